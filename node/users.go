package node

import (
	"context"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"parley/node/wire"
)

// users are those with a token, as far as their limits over all nodes need it.
//
// Messages: a node draws tokens from the user's bucket, which all nodes share, in chunks and ahead, so that no message waits for the
// bus, or costs a round trip. What the first few of a second cost is not asked for at all: so people never make a node ask.
type users struct {
	mu    sync.Mutex
	known map[string]*account // guarded by mu; those that are used, or connected
}

// An account is a user's. Guarded by users.mu.
type account struct {
	free    *rate.Limiter // what a node gives without asking
	drawn   int           // tokens that are left of what was drawn
	chunk   int           // how many are drawn next: it doubles as long as they are gone soon
	drawing bool          // a draw is under way
	pause   time.Time     // until when there is none, as the last one got nothing
	used    time.Time
	conns   int
}

const (
	userBurst    = 5  // seconds' worth that a user may say at once
	freeShare    = 30 // of a user's rate: so much of it a node gives without asking
	userIdle     = 2 * time.Second
	drawPause    = 100 * time.Millisecond
	countLife    = time.Minute // after which the connections of a node that was killed do not count any more
	countRefresh = countLife / 3
)

// limits reports whether there are limits for who a caller is: not for guests, who can be anybody, nor for applications.
func (who *identity) limited() bool {
	return who.grant != nil && !who.grant.nobody && !who.user.Guest && who.app == nil
}

// spend takes one message from what a user may say, or says how long to wait. It does not wait for the bus.
func (s *Server) spend(who *identity) (wait time.Duration) {
	most := s.cfg.Limits.UserMessages
	if most <= 0 || !who.limited() {
		return 0
	}
	user, now, least := who.user.ID, time.Now(), max(1, most/4)
	us := &s.users
	us.mu.Lock()
	defer us.mu.Unlock()
	a := us.atLocked(user)
	if a.free == nil {
		a.free = rate.NewLimiter(rate.Limit(max(1, float64(most)/freeShare)), max(1, most/4))
		a.chunk = least
	}
	if now.Sub(a.used) > userIdle {
		a.drawn, a.chunk = 0, least // nobody else could say what is kept here
	}
	a.used = now
	switch {
	case a.drawn > 0:
		a.drawn--
	case a.free.AllowN(now, 1):
	default:
		wait = leastWait
	}
	if !a.drawing && a.drawn < a.chunk/2+1 && a.free.TokensAt(now) < float64(a.free.Burst())/2 && now.After(a.pause) {
		n := a.chunk
		a.drawing = s.begin(func() { s.draw(user, a, n) })
		a.chunk = min(most, 2*a.chunk)
	}
	return wait
}

// draw draws n tokens for an account.
func (s *Server) draw(user string, a *account, n int) {
	ctx, cancel := context.WithTimeout(s.ctx, busTimeout)
	defer cancel()
	most := s.cfg.Limits.UserMessages
	drawn, err := s.cfg.Bus.Draw(ctx, "user "+user, n, float64(most), most*userBurst)
	if err != nil {
		drawn = 0
	}
	s.users.mu.Lock()
	defer s.users.mu.Unlock()
	a.drawing = false
	if a.drawn += drawn; drawn < n {
		a.pause = time.Now().Add(drawPause)
		a.chunk = max(1, most/4)
	}
}

func (us *users) atLocked(user string) *account {
	a := us.known[user]
	if a == nil {
		if us.known == nil {
			us.known = make(map[string]*account)
		}
		a = &account{}
		us.known[user] = a
	}
	return a
}

// connect counts a connection of a user over all nodes, or says that it is one too many. It gives the user, whose disconnect has to
// follow; "" for one that is not counted.
func (s *Server) connect(ctx context.Context, who *identity) (user string, bad *wire.Error) {
	most := s.cfg.Limits.UserConnections
	if most <= 0 || !who.limited() {
		return "", nil
	}
	user = who.user.ID
	if total, _ := s.count(ctx, user, 1); total > most {
		s.disconnected(user)
		return "", s.limited(limitUserConnections, wire.RateLimited, leastWait, "you may have %d connections open at a time", most)
	}
	return user, nil
}

// disconnected undoes connect.
func (s *Server) disconnected(user string) {
	if user == "" {
		return
	}
	s.users.mu.Lock()
	s.users.known[user].conns--
	s.users.mu.Unlock()
	tell := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), time.Second) // a node that ends tells it too
		defer cancel()
		_, _ = s.count(ctx, user, 0) // else it is forgotten after countLife
	}
	if !s.begin(tell) {
		tell()
	}
}

// count tells the bus how many connections a user has here, with more, and gives how many there are everywhere; with an error, how
// many here. Tellings of a user may overtake each other; the next refresh makes up for it.
func (s *Server) count(ctx context.Context, user string, more int) (total int, err error) {
	s.users.mu.Lock()
	a := s.users.atLocked(user)
	a.conns += more
	n := a.conns
	s.users.mu.Unlock()
	if total, err = s.cfg.Bus.Count(ctx, "connections of "+user, s.holder, n, countLife); err != nil {
		return n, err
	}
	return total, nil
}

// refreshCounts keeps what is counted from being forgotten, and forgets users who are not here. That it fails for one of them, as a part of the
// bus is away, harms no other.
func (s *Server) refreshCounts() {
	s.users.mu.Lock()
	maps.DeleteFunc(s.users.known, func(_ string, a *account) bool {
		return a.conns == 0 && !a.drawing && time.Since(a.used) > countLife
	})
	var here []string
	for user, a := range s.users.known {
		if a.conns > 0 {
			here = append(here, user)
		}
	}
	s.users.mu.Unlock()
	for _, user := range here {
		ctx, cancel := context.WithTimeout(s.ctx, busTimeout)
		_, _ = s.count(ctx, user, 0)
		cancel()
		if s.ctx.Err() != nil {
			return
		}
	}
}

// watchUsers refreshes the counts until the node ends.
func (s *Server) watchUsers() {
	tick := time.NewTicker(countRefresh)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.refreshCounts()
		case <-s.ctx.Done():
			return
		}
	}
}
