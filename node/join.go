package node

import (
	"context"
	"errors"

	"parley/bus"
	"parley/node/rights"
	"parley/node/wire"
)

// join makes the caller a member of a room, and gives it what it missed, or the newest messages.
func (s *Server) join(ctx context.Context, c *caller, req *wire.Request) (appender, *wire.Error) {
	if m := c.rooms.in(req.Room); m != nil { // again: only the answer
		m.r.mu.Lock()
		var recovered *bool
		if req.Since != nil {
			missed, whole := m.r.afterLocked(*req.Since, bus.ID{})
			whole = whole && len(missed) == 0
			recovered = &whole
		}
		c.replies.answer(m.joinedLocked(req, recovered))
		m.r.mu.Unlock()
		return nil, nil
	}
	if bad := s.mayJoin(c, req.Room); bad != nil {
		return nil, bad
	}
	r, err := s.enter(ctx, req.Room)
	if err != nil {
		return nil, joinError(err)
	}
	if err := r.catchUp(ctx); err != nil {
		r.release()
		return nil, joinError(err)
	}
	blind, from := s.may(c, rights.History, req.Room) != nil, req
	if blind {
		from = &wire.Request{Room: req.Room, Limit: new(int)} // it begins with what is said next
	}
	cursor, recovered, next, err := r.resume(ctx, from)
	if err != nil {
		r.release()
		return nil, joinError(err)
	}
	m := newMember(c.session, r)
	m.cursor, m.ahead, m.blind = cursor, next, blind
	c.rooms.add(m)
	m.admit(req, recovered)
	return nil, nil
}

// catchUp returns once the room has flushed all that was acknowledged before the call, over any node: none of it comes after the
// live of a join.
func (r *room) catchUp(ctx context.Context) error {
	if err := r.sub.Sync(ctx); err != nil {
		return err
	}
	return r.inbox.await(ctx)
}

// joinError says what a client is told that could not join.
func joinError(err error) *wire.Error {
	e := busError(err)
	if !errors.Is(err, bus.ErrConflict) {
		e.Message = "the room cannot be read, as the message bus does not answer: join again"
	}
	return e
}

// resume finds where a join begins to read: after since, or before the newest messages. recovered is nil without a since. next is
// what was read of the log that follows, if anything was.
func (r *room) resume(ctx context.Context, req *wire.Request) (cursor bus.ID, recovered *bool, next *ahead, err error) {
	if req.Since == nil {
		n := wire.DefaultBacklog
		if req.Limit != nil {
			n = *req.Limit
		}
		cursor, err = r.start(ctx, n)
		return cursor, nil, nil, err
	}
	whole := r.has(*req.Since)
	if !whole {
		if r.srv.outage.lasts() {
			return bus.ID{}, nil, nil, bus.ErrUnavailable
		}
		if err := r.learn(ctx); err != nil {
			return bus.ID{}, nil, nil, err
		}
		whole = r.has(*req.Since)
	}
	if !whole {
		page, err := r.after(ctx, *req.Since)
		if err != nil {
			return bus.ID{}, nil, nil, err
		}
		next = &ahead{*req.Since, page}
		whole = page.Complete && !req.Since.Less(page.LastBreak)
	}
	return *req.Since, &whole, next, nil
}

// has reports whether all that follows an id, up to the head, is in memory, and no break.
func (r *room) has(since bus.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.afterLocked(since, bus.ID{})
	return ok
}

// afterLocked returns what follows an id up to the head, if the node has it in memory; see recent.after. It needs r.mu.
func (r *room) afterLocked(since, told bus.ID) ([]bus.Message, bool) {
	if since == r.head && !(since.Less(r.recent.broke) && told.Less(r.recent.broke)) {
		return nil, true
	}
	return r.recent.after(since, told)
}

// start returns the id after which the room's newest n messages up to the head follow, or fewer if it has fewer, or they have more
// than backlogBytes.
func (r *room) start(ctx context.Context, n int) (bus.ID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n == 0 || r.head.IsZero() {
		return r.head, nil
	}
	if start, ok := r.recent.start(n); ok {
		return start, nil
	}
	if r.srv.outage.lasts() {
		return bus.ID{}, bus.ErrUnavailable
	}
	r.mu.Unlock()
	page, err := r.newest(ctx, n)
	r.mu.Lock()
	if err != nil {
		return bus.ID{}, err
	}
	r.recent.learn(page, r.head)
	if start, ok := r.recent.start(n); ok {
		return start, nil
	}
	if old := len(page.Messages) - n; old > 0 {
		page.Messages = page.Messages[old:]
	}
	if len(page.Messages) == 0 || r.head.Less(page.Messages[0].ID) {
		return r.head, nil
	}
	return page.Messages[0].Prev, nil
}
