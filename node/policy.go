package node

import (
	"slices"
	"strings"
	"time"

	"parley/node/rights"
	"parley/node/wire"
)

// A Grant is what a credential gives: who its bearer is, and what they may do. It does not change.
type Grant struct {
	User    User
	Rights  *rights.Rights // nil: what users may do, in every room
	Expires time.Time      // zero: never
	Issued  time.Time      // zero: it is not known
	Token   string         // the token's own id, if it has one

	nobody bool // it is not known yet who the bearer is
}

// nobody is who a client is where guests are not welcome, until it has said hello with a token.
func (s *Server) nobody() *Grant {
	return &Grant{nobody: true, Expires: time.Now().Add(s.cfg.HelloWait)}
}

// may says whether a caller may do what it asks for: the one place that decides, for every operation over every transport. It is
// asked before anything is looked up, so a room that may not be read is answered alike, and as fast, whether it exists or not.
func (s *Server) may(c *caller, needs rights.Verbs, room string) *wire.Error {
	if c.barred != nil {
		if bad := c.barred.Load(); bad != nil {
			return bad
		}
	}
	g := c.grant
	if g == nil {
		return nil
	}
	r := s.board.revoked.Load()
	if r.hits(g) {
		return errRevoked
	}
	if needs == 0 {
		return nil
	}
	if r == unread && c.app == nil {
		return errUnread
	}
	if g.nobody {
		return wire.Errorf(wire.Unauthorized, "say hello with a token first: there are no guests here")
	}
	if !g.Expires.IsZero() && !time.Now().Before(g.Expires) {
		return errExpired()
	}
	if !g.Rights.Of(room).Has(needs) {
		return forbidden(needs, room)
	}
	return nil
}

// forbidden does not say whether there is such a room.
func forbidden(needs rights.Verbs, room string) *wire.Error {
	return wire.Errorf(wire.Forbidden, "you may not %s in the room %q", strings.ReplaceAll(needs.String(), ",", " and "), room)
}

func errExpired() *wire.Error {
	return wire.Errorf(wire.Expired, "the token has expired: say hello with a new one")
}

// left is how long a grant holds yet, to be told to a client; zero is for ever.
func (g *Grant) left(now time.Time) time.Duration {
	if g == nil || g.nobody || g.Expires.IsZero() {
		return 0
	}
	return max(time.Millisecond, g.Expires.Sub(now))
}

// settle makes a grant of who a caller is. It may be of a new user only before the first join; a room that it may not be in any
// more is left at once. The caller's reader calls it.
func (s *session) settle(who identity) (left []string) {
	s.identity = who
	s.held.Store(who.grant)
	for _, m := range slices.Clone(s.rooms) {
		if s.srv.may(&s.caller, rights.Join, m.r.name) != nil {
			s.drop(m)
			left = append(left, m.r.name)
			continue
		}
		m.rename()
	}
	return left
}

// drop takes the session out of a room.
func (s *session) drop(m *member) {
	s.rooms.remove(m)
	m.r.dismiss(m, false)
	if s.stream != nil {
		s.stream.remove(m.r.name)
	}
}

// expel ends the session, as who it is does not hold any more: what is said with it is refused from now on.
func (s *session) expel(bad *wire.Error, code int) {
	if !s.bar.CompareAndSwap(nil, bad) {
		return
	}
	s.srv.cfg.Observer.Rejected(string(bad.Code))
	s.say("error", wire.Reject{Err: bad})
	s.end(closing{code: code, reason: bad.Message})
}

// lapse ends the session if its grant has run out.
func (s *session) lapse(now time.Time) {
	g := s.held.Load()
	if g == nil || g.Expires.IsZero() || now.Before(g.Expires) {
		return
	}
	bad := errExpired()
	if g.nobody {
		bad = wire.Errorf(wire.Unauthorized, "no token came within %s", s.srv.cfg.HelloWait)
	}
	s.expel(bad, wire.StatusNoToken)
}
