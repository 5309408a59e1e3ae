package node

import (
	"maps"
	"runtime/debug"
	"slices"
	"time"
)

// janitorTick is how often all sessions are looked at.
const janitorTick = time.Second

// janitor keeps the clients alive or drops them, each when its ping is due, and gives back memory that is not used any more.
func (s *Server) janitor() {
	tick := time.NewTicker(min(janitorTick, s.cfg.PingInterval/4))
	defer tick.Stop()
	looks := time.NewTicker(scavengeEvery)
	defer looks.Stop()
	var due []*session
	var scavenger scavenger
	var sweeper sweeper
	forgot := time.Now()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-looks.C:
			if scavenger.due(s.occupancy(), now) {
				giveBack()
			}
		case now := <-tick.C:
			due = s.pingsDue(due[:0], now)
			for _, sess := range due {
				sess.keepAlive(now)
			}
			clear(due)
			if sweeper.due(now) {
				debug.FreeOSMemory() // it collects, once
			}
			if now.Sub(forgot) > recentLife/2 {
				forgot = now
				s.forgetRecent(now)
				s.addresses.forget(now)
			}
		}
	}
}

// recentLife is how long a room that nothing is said in keeps its newest messages in memory.
const recentLife = 30 * time.Second

func (s *Server) forgetRecent(now time.Time) {
	s.roomsMu.Lock()
	rooms := slices.Collect(maps.Values(s.rooms))
	s.roomsMu.Unlock()
	for _, r := range rooms {
		if !r.mu.TryLock() {
			continue // it is being flushed
		}
		if len(r.recent.msgs) > 0 && now.Sub(r.recent.used) > recentLife {
			r.recent.reset(r.head)
		}
		r.mu.Unlock()
	}
}

// occupancy is how much there is that takes memory: clients, and the rooms that outlive them for a while.
func (s *Server) occupancy() int {
	s.roomsMu.Lock()
	rooms := len(s.rooms)
	s.roomsMu.Unlock()
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	return rooms + len(s.sessions)
}

// pingsDue gathers the sessions whose ping is due, and ends those whose time is over.
func (s *Server) pingsDue(out []*session, now time.Time) []*session {
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	for _, sess := range s.sessions {
		sess.conn.Expire(now)
		sess.lapse(now)
		if sess.nextPing <= now.UnixNano() {
			sess.nextPing = now.Add(s.jitter(s.cfg.PingInterval)).UnixNano()
			out = append(out, sess)
		}
	}
	return out
}
