package node

import (
	"context"
	"errors"

	"parley/bus"
	"parley/node/wire"
)

// join makes the caller a member of a room, and gives it what it missed, or the newest messages.
func (s *Server) join(ctx context.Context, c *caller, req *wire.Request) (appender, *wire.Error) {
	if m := c.rooms[req.Room]; m != nil { // again: only the answer
		m.r.mu.Lock()
		c.replies.answer(m.joinedLocked(req, nil))
		m.r.mu.Unlock()
		return nil, nil
	}
	r, err := s.enter(ctx, req.Room)
	if err != nil {
		return nil, joinError(err)
	}
	if err := r.inbox.await(ctx); err != nil { // or what was acknowledged before the join could come after live
		r.release()
		return nil, joinError(err)
	}
	cursor, recovered, err := r.resume(ctx, req)
	if err != nil {
		r.release()
		return nil, joinError(err)
	}
	m := &member{s: c.session, r: r, cursor: cursor}
	if c.rooms == nil {
		c.rooms = make(map[string]*member)
	}
	c.rooms[req.Room] = m
	m.admit(req, recovered)
	return nil, nil
}

// admit makes a new member one of its room and answers its join, in one piece: what the roster in the answer does not have is
// told after it. If all that the member is owed is in memory it is live at once, else catchUp sees to it.
func (m *member) admit(req *wire.Request, recovered *bool) {
	r := m.r
	b := m.s.srv.buffers.Get().(*sayBuffers)
	defer m.s.srv.putBuffers(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.admitLocked(m)
	m.version = r.crowd.version
	b.payload = m.joinedLocked(req, recovered).Append(b.payload[:0])
	b.frame = m.s.codec.appendEvent(b.frame[:0], "ok", b.payload)
	live := false
	if recovered == nil || *recovered { // else catchUp finds the gap, and tells it
		b.frame, b.payload, live = m.serveRecentLocked(b.frame, b.payload)
	}
	m.s.conn.Put(b.frame)
	if !live {
		m.s.srv.wg.Go(m.catchUp)
	}
}

// joinedLocked answers a join from the node's memory. It needs room.mu.
func (m *member) joinedLocked(req *wire.Request, recovered *bool) wire.Joined {
	roster := m.r.sub.Roster()
	last := m.r.head
	if recovered != nil && *recovered && last.Less(*req.Since) {
		last = *req.Since // seen over another node, or before this one's flush
	}
	return wire.Joined{
		Req:       req.Req,
		Room:      m.r.name,
		Last:      last,
		Recovered: recovered,
		Members:   wireMembers(roster),
		Count:     roster.Count,
		Presence:  roster.Version,
	}
}

// joinError says what a client is told that could not join.
func joinError(err error) *wire.Error {
	e := busError(err)
	if !errors.Is(err, bus.ErrConflict) {
		e.Message = "the room cannot be read, as the message bus does not answer: join again"
	}
	return e
}

// resume finds where a join begins to read: after since, or before the newest messages. recovered is nil without a since.
func (r *room) resume(ctx context.Context, req *wire.Request) (cursor bus.ID, recovered *bool, err error) {
	if req.Since == nil {
		n := wire.DefaultBacklog
		if req.Limit != nil {
			n = *req.Limit
		}
		cursor, err = r.start(ctx, n)
		return cursor, nil, err
	}
	r.mu.Lock()
	_, whole := r.recent.after(*req.Since)
	whole = whole || *req.Since == r.head
	r.mu.Unlock()
	if !whole {
		page, err := r.srv.cfg.Bus.After(ctx, r.name, *req.Since, 1)
		if err != nil {
			return bus.ID{}, nil, err
		}
		whole = page.Complete && !req.Since.Less(page.LastBreak)
	}
	return *req.Since, &whole, nil
}
