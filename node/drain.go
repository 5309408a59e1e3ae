package node

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"parley/node/wire"
)

// drainTick is how finely the goodbyes are spread.
const drainTick = 10 * time.Millisecond

// retrySpread is the time over which clients that are told to come back at one moment do so.
const retrySpread = time.Second

func (s *Server) retryAfter() time.Duration {
	return 100*time.Millisecond + rand.N(retrySpread).Round(time.Millisecond)
}

// Shutdown hands the clients over to other nodes: /readyz fails and upgrades get 503 at once, then every client gets a
// goodbye and a close, spread over Config.Drain. It returns when the last one is gone, or ctx is done: then it cuts off
// those that are left, and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.bodies.hurry()
	err := s.sayGoodbyes(ctx)

	s.sessionsMu.Lock()
	s.closed = true
	for _, sess := range s.sessions {
		sess.conn.Abort(wire.StatusRestart)
	}
	s.sessionsMu.Unlock()
	<-s.noSessions() // an ended session is gone soon
	s.cancel()
	s.endMu.Lock()
	s.ended = true // requests may be under way that are no session's
	s.endMu.Unlock()
	s.wg.Wait()
	s.sockets.Close()
	s.closeRooms()
	s.nodeSubMu.Lock()
	if s.nodeSub != nil {
		s.nodeSub.Close()
	}
	s.nodeSubMu.Unlock()
	s.flushers.stop()
	return err
}

// noSessions returns a channel that is closed once there are no sessions. Only Shutdown uses it.
func (s *Server) noSessions() <-chan struct{} {
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	if len(s.sessions) == 0 {
		s.emptyLocked()
	}
	return s.empty
}

// emptyLocked notes that the last session has ended.
func (s *Server) emptyLocked() {
	if s.empty == nil {
		return
	}
	select {
	case <-s.empty:
	default:
		close(s.empty)
	}
}

// sayGoodbyes ends all sessions, spread over Config.Drain, and waits for them to be gone.
func (s *Server) sayGoodbyes(ctx context.Context) error {
	empty := s.noSessions()
	s.sessionsMu.Lock()
	left := slices.Clone(s.sessions)
	s.sessionsMu.Unlock()
	rand.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })

	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	for began, said := time.Now(), 0; ; {
		share := len(left)
		if d := s.cfg.Drain; d > 0 {
			share = min(share, 1+int(float64(share)*float64(time.Since(began))/float64(d)))
		}
		for ; said < share; said++ {
			left[said].goodbye()
		}
		select {
		case <-empty:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// closeRooms leaves all rooms. No session is left.
func (s *Server) closeRooms() {
	s.roomsMu.Lock()
	s.shut = true
	s.roomsMu.Unlock()
	s.roomsWG.Wait()
	s.roomsMu.Lock()
	var mine []*room
	var closing []chan struct{}
	for _, r := range s.rooms {
		if r.idle != nil {
			r.idle.Stop()
		}
		if r.gone != nil { // its linger was over
			closing = append(closing, r.gone)
			continue
		}
		r.gone = make(chan struct{})
		mine = append(mine, r)
	}
	s.roomsMu.Unlock()
	for _, r := range mine {
		r.close()
	}
	for _, gone := range closing {
		<-gone
	}
}
