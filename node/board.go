package node

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"parley/node/wire"
)

// A notice is what all nodes are to know, as it stands on the bus's board.
type notice struct {
	Disconnect string `json:"disconnect,omitempty"` // a user whose connections end
	At         int64  `json:"at,omitempty"`         // tells it from the same before

	Revoke bool   `json:"revoke,omitempty"`
	User   string `json:"user,omitempty"`   // whose tokens; empty for everyone's
	Token  string `json:"token,omitempty"`  // one token, by its jti
	Before int64  `json:"before,omitempty"` // those issued before, in ms since 1970
}

const (
	noticePrefix = "notice "
	noticeLife   = time.Minute            // of what is done once
	boardTick    = 300 * time.Millisecond // a notice holds on every node within a second
	boardAnew    = time.Minute            // between readings of all that is there, whatever the version
	boardWait    = time.Second            // that a token waits at most for the first reading
)

// A board is what a node knows of the notices.
type board struct {
	revoked atomic.Pointer[revoked] // nil for none; unread before the first reading
	first   chan struct{}           // static; closed after the first reading

	mu      sync.Mutex
	known   map[string]bool // guarded by mu; the texts of the last reading; nil before the first
	version string          // guarded by mu
}

// revoked is what is not good any more. It does not change.
type revoked struct {
	all    int64            // tokens issued before, in ms since 1970
	users  map[string]int64 // those of a user
	tokens map[string]bool  // by jti
}

// unread stands for what a node does not know yet that has just started. Who could be revoked has to wait.
var unread = &revoked{}

var errUnread = &wire.Error{Code: wire.Unavailable, Message: "it is not known yet what was revoked: try again", RetryAfter: unavailableRetry}

// begin has tokens wait for the first reading.
func (b *board) begin() {
	b.first = make(chan struct{})
	b.revoked.Store(unread)
}

// await returns once the board was read. It returns false if that takes too long.
func (b *board) await(ctx context.Context) bool {
	if b.revoked.Load() != unread {
		return true
	}
	enough := time.NewTimer(boardWait)
	defer enough.Stop()
	select {
	case <-b.first:
		return true
	case <-enough.C:
	case <-ctx.Done():
	}
	return false
}

var errRevoked = wire.Errorf(wire.Unauthorized, "this was revoked: a new token is needed")

// hits reports whether a grant is revoked. A guest's session was issued before any time, but is no token: only its user is revoked.
func (r *revoked) hits(g *Grant) bool {
	if r == nil {
		return false
	}
	if before, ok := r.users[g.User.ID]; ok && g.Issued.UnixMilli() < before {
		return true
	}
	return !g.User.Guest && !g.Issued.IsZero() && g.Issued.UnixMilli() < r.all || r.tokens[g.Token]
}

// watchBoard reads the board again and again, until the node ends.
func (s *Server) watchBoard() {
	tick := time.NewTicker(boardTick)
	defer tick.Stop()
	anew := time.Now()
	for {
		if time.Since(anew) > boardAnew {
			anew = time.Now()
			s.board.mu.Lock()
			s.board.version = ""
			s.board.mu.Unlock()
		}
		ctx, cancel := context.WithTimeout(s.ctx, busTimeout)
		if err := s.board.read(ctx, s); err != nil && s.ctx.Err() == nil {
			s.cfg.Log.Debug("read the board", "err", err)
		}
		cancel()
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// read takes in what is new on the board.
func (b *board) read(ctx context.Context, s *Server) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	texts, version, err := s.cfg.Bus.Posted(ctx, b.version)
	if err != nil || version == b.version && b.known != nil {
		return err
	}
	known := make(map[string]bool, len(texts))
	next := &revoked{users: make(map[string]int64), tokens: make(map[string]bool)}
	var ended []string
	for _, text := range texts {
		rest, is := strings.CutPrefix(text, noticePrefix)
		var n notice
		if !is || json.Unmarshal([]byte(rest), &n) != nil {
			continue // of a newer version
		}
		known[text] = true
		switch {
		case n.Revoke && n.Token != "":
			next.tokens[n.Token] = true
		case n.Revoke && n.User != "":
			next.users[n.User] = max(next.users[n.User], n.Before)
		case n.Revoke:
			next.all = max(next.all, n.Before)
		case n.Disconnect != "" && b.known != nil && !b.known[text]:
			ended = append(ended, n.Disconnect)
		}
	}
	if b.known == nil {
		defer close(b.first)
	}
	b.known, b.version = known, version
	if next.all == 0 && len(next.users)+len(next.tokens) == 0 {
		next = nil
	}
	b.revoked.Store(next)
	s.enforce(next, ended)
	return nil
}

// enforce ends the sessions that notices are about. Those that begin from now on are refused by what board.revoked holds.
func (s *Server) enforce(r *revoked, ended []string) {
	if r == nil && ended == nil {
		return
	}
	gone := make(map[string]bool, len(ended))
	for _, user := range ended {
		gone[user] = true
	}
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	for _, sess := range s.sessions {
		g := sess.held.Load()
		switch {
		case r.hits(g):
			sess.expel(errRevoked, wire.StatusNoToken)
		case gone[g.User.ID]:
			sess.expel(wire.Errorf(wire.Forbidden, "the operator has disconnected you"), wire.StatusKicked)
		}
	}
}
