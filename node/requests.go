package node

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"parley/bus"
	"parley/node/rights"
	"parley/node/wire"
)

// A caller is who makes requests, over whatever transport.
type caller struct {
	identity           // owned by the reader
	id       uint64    // static; names it in what it publishes, over all nodes
	replies  transport // static
	session  *session  // static; nil over HTTP, where nobody can join

	// Owned by the reader.
	keys   string      // whose its idempotency keys are; empty for the user's
	rooms  memberships // that it joined
	visits *room       // over HTTP: the one that it says something in

	pending pending
	leaving atomic.Bool                 // a goodbye is on its way: nothing more is taken on
	barred  *atomic.Pointer[wire.Error] // static; nil over HTTP; holds why the session is being ended
}

// answersPings reports whether the caller shows what it has read.
func (c *caller) answersPings() bool {
	return c.session != nil && c.session.codec.answersPings()
}

// A transport writes what comes of a request: one of the two, once.
type transport interface {
	answer(f appender)
	refuse(req json.RawMessage, e *wire.Error)
}

// An operation carries out the requests of one op, for every transport alike.
type operation struct {
	weight int          // how dear it is, compared with a ping
	waits  bool         // it may have to wait for the bus, the Authenticator or a flush, so the poller must not carry it out
	needs  rights.Verbs // what the caller has to have the right to, in the request's room

	// do returns the answer, or what is wrong. It returns neither if the answer has its place among what else the caller is told,
	// or comes later: then it goes to caller.replies.
	do func(*Server, context.Context, *caller, *wire.Request) (appender, *wire.Error)
}

// operations has all that wire.Ops lists.
var operations = map[string]operation{
	"hello":   {weight: 5, waits: true, do: (*Server).hello},
	"join":    {weight: 20, waits: true, needs: rights.Join, do: (*Server).join},
	"leave":   {weight: 2, waits: true, do: (*Server).leave},
	"send":    {weight: 2, waits: false, needs: rights.Send, do: (*Server).send},
	"signal":  {weight: 2, waits: false, needs: rights.Signal, do: (*Server).signal},
	"history": {weight: 10, waits: true, needs: rights.History, do: (*Server).history},
	"members": {weight: 5, waits: true, needs: rights.Members, do: (*Server).members},
	"ping":    {weight: 1, waits: false, do: (*Server).ping},
}

// busTimeout bounds one request's calls of the bus.
const busTimeout = 5 * time.Second

// do carries out a request, and has its transport write what comes of it.
func (s *Server) do(ctx context.Context, c *caller, req *wire.Request) {
	switch answer, bad := s.carryOut(ctx, c, req); {
	case bad != nil:
		c.replies.refuse(req.Req, bad)
	case answer != nil:
		c.replies.answer(answer)
	}
}

// carryOut is do without the writing.
func (s *Server) carryOut(ctx context.Context, c *caller, req *wire.Request) (appender, *wire.Error) {
	op := operations[req.Op]
	if bad := s.may(c, op.needs, req.Room); bad != nil {
		return nil, bad
	}
	if op.waits {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, busTimeout)
		defer cancel()
	}
	return op.do(s, ctx, c, req)
}

// room finds the room that a request is about among those that the caller is in.
func (c *caller) room(name string) (*room, *wire.Error) {
	if m := c.rooms.in(name); m != nil {
		return m.r, nil
	}
	if c.visits != nil {
		return c.visits, nil
	}
	return nil, wire.Errorf(wire.NotJoined, "join the room %q first", name)
}

func (s *Server) ping(_ context.Context, _ *caller, req *wire.Request) (appender, *wire.Error) {
	return wire.OK{Req: req.Req}, nil
}

func (s *Server) leave(_ context.Context, c *caller, req *wire.Request) (appender, *wire.Error) {
	if m := c.rooms.in(req.Room); m != nil {
		c.rooms.remove(m)
		m.r.dismiss(m, false)
	}
	return wire.OK{Req: req.Req}, nil
}

// maxHistory bounds the bytes of one answer, well below a queue's limit.
const maxHistory = 64 << 10

// history reads messages before an id, oldest first: at most the limit, or as many of the newest as fit.
func (s *Server) history(ctx context.Context, _ *caller, req *wire.Request) (appender, *wire.Error) {
	answer := wire.History{Req: req.Req, Room: req.Room}
	n, end := wire.DefaultBacklog, bus.ID{}
	if req.Limit != nil {
		n = *req.Limit
	}
	if req.Before != nil {
		if end = *req.Before; end.IsZero() {
			return answer, nil // nothing comes before it
		}
	}
	if n == 0 {
		answer.More = true
		return answer, nil
	}
	for {
		page, err := s.cfg.Bus.Before(ctx, req.Room, end, n, maxHistory)
		if err != nil {
			return nil, busError(err)
		}
		answer.More = page.More
		bytes := 0
		for _, m := range slices.Backward(page.Messages) {
			e := wire.AppendEntry(nil, m.ID, m.Body) // nothing of a break
			if bytes += len(e); bytes > maxHistory && len(answer.Messages) > 0 {
				answer.More = true
				break
			}
			if len(e) > 0 {
				answer.Messages = append(answer.Messages, e)
			}
		}
		if len(answer.Messages) > 0 || !page.More || len(page.Messages) == 0 {
			slices.Reverse(answer.Messages)
			return answer, nil
		}
		end = page.Messages[0].ID // a client that got a page without a message could not page on
	}
}

// members reads who is in a room: from the node's memory if it is subscribed to the room.
func (s *Server) members(ctx context.Context, c *caller, req *wire.Request) (appender, *wire.Error) {
	if m := c.rooms.in(req.Room); m != nil {
		m.r.mu.Lock()
		members, count, version := m.rosterLocked()
		m.r.mu.Unlock()
		return membersOf(req, slices.Clone(members), count, version), nil
	}
	roster, known := s.knownRoster(req.Room)
	if !known {
		var err error
		if roster, err = s.cfg.Bus.Roster(ctx, req.Room); err != nil {
			return nil, busError(err)
		}
	}
	return membersOf(req, wireMembers(roster), roster.Count, roster.Version), nil
}

func membersOf(req *wire.Request, members []wire.Member, count int, version uint64) wire.Members {
	slices.SortFunc(members, func(a, b wire.Member) int { return strings.Compare(a.ID, b.ID) })
	return wire.Members{Req: req.Req, Room: req.Room, Members: members, Count: count, Presence: version}
}

func (s *Server) knownRoster(room string) (bus.Roster, bool) {
	s.roomsMu.Lock()
	r := s.rooms[room]
	s.roomsMu.Unlock()
	if r == nil {
		return bus.Roster{}, false
	}
	select {
	case <-r.ready:
		if r.err == nil {
			return r.sub.Roster(), true
		}
	default:
	}
	return bus.Roster{}, false
}
