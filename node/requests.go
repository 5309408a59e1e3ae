package node

import (
	"context"
	"errors"
	"slices"
	"strings"

	"parley/bus"
	"parley/node/wire"
)

// do carries out one request of parley.v1 and answers it.
func (s *session) do(req *wire.Request) {
	var bad *wire.Error
	switch req.Op {
	case "hello":
		bad = s.hello(req)
	case "join":
		bad = s.join(req)
	case "leave":
		if m := s.member(req.Room); m != nil {
			s.rooms = slices.DeleteFunc(s.rooms, func(o *member) bool { return o == m })
			m.r.dismiss(m, false)
		}
		s.say("ok", wire.OK{Req: req.Req})
	case "send":
		bad = s.send(req)
	case "signal":
		bad = s.signal(req)
	case "history":
		bad = s.history(req)
	case "members":
		bad = s.members(req)
	case "ping":
		s.say("ok", wire.OK{Req: req.Req})
	}
	if bad != nil {
		s.refuse(req.Req, bad)
	}
}

// hello says who the client is: one with a token, or the guest of a session.
func (s *session) hello(req *wire.Request) *wire.Error {
	user, token := s.user, s.token
	switch {
	case req.Token != "":
		u, err := s.srv.authenticate(req.Token)
		if err != nil {
			return err
		}
		user, token = u, ""
	case req.Session != "":
		if !validSessionToken(req.Session) {
			return wire.Errorf(wire.BadRequest, "session is not a token that a welcome gave")
		}
		user, token = guest(req.Session, req.Name), req.Session
	case req.Name != "" && user.Guest:
		user = guest(token, req.Name)
	}
	if len(s.rooms) > 0 && user != s.user {
		return wire.Errorf(wire.Forbidden, "the user cannot change after the first join")
	}
	s.user, s.token = user, token
	s.say("welcome", s.welcome(req.Req))
	return nil
}

// authenticate asks who a token stands for.
func (s *Server) authenticate(token string) (User, *wire.Error) {
	if s.cfg.Auth == nil {
		return User{}, wire.Errorf(wire.Unauthorized, "this server takes no tokens: say hello without one, as a guest")
	}
	ctx, cancel := context.WithTimeout(s.ctx, busTimeout)
	defer cancel()
	u, err := s.cfg.Auth.Authenticate(ctx, token)
	if err != nil {
		return User{}, wire.Errorf(wire.Unauthorized, "%v", err)
	}
	if strings.HasPrefix(u.ID, guestPrefix) {
		return User{}, wire.Errorf(wire.Unauthorized, "the token's subject begins with %q, which guests' ids do", guestPrefix)
	}
	return u, nil
}

// join makes the session a member of a room, and gives it what it missed, or the newest messages.
func (s *session) join(req *wire.Request) *wire.Error {
	if m := s.member(req.Room); m != nil { // again: only the answer
		m.r.mu.Lock()
		s.say("ok", m.joinedLocked(req, nil))
		m.r.mu.Unlock()
		return nil
	}
	ctx, cancel := context.WithTimeout(s.srv.ctx, busTimeout)
	defer cancel()
	r, err := s.srv.enter(ctx, req.Room)
	if err != nil {
		return joinError(err)
	}
	if err := r.inbox.await(ctx); err != nil { // or what was acknowledged before the join could come after live
		r.release()
		return joinError(err)
	}
	cursor, recovered, err := r.resume(ctx, req)
	if err != nil {
		r.release()
		return joinError(err)
	}
	m := &member{s: s, r: r, cursor: cursor}
	s.rooms = append(s.rooms, m)
	m.admit(req, recovered)
	return nil
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
	b.frame = b.frame[:0]
	if m.s.codec != plain {
		b.payload = m.joinedLocked(req, recovered).Append(b.payload[:0])
		b.frame = m.s.codec.appendEvent(b.frame, "ok", b.payload)
	}
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

func (s *session) joined(room string) (*member, *wire.Error) {
	if m := s.member(room); m != nil {
		return m, nil
	}
	return nil, wire.Errorf(wire.NotJoined, "join the room %q first", room)
}

func (s *session) send(req *wire.Request) *wire.Error {
	m, bad := s.joined(req.Room)
	if bad != nil {
		return bad
	}
	if s.leaving.Load() {
		return busError(bus.ErrUnavailable)
	}
	s.publish(m.r.sub, req)
	return nil
}

func (s *session) signal(req *wire.Request) *wire.Error {
	m, bad := s.joined(req.Room)
	if bad != nil {
		return bad
	}
	seq := s.sends.begin(req.Req)
	body := wire.Signalled{
		Origin: wire.Origin{Conn: s.id, Seq: seq},
		Room:   m.r.name,
		Kind:   req.Kind,
		User:   wire.Member{ID: s.user.ID, Name: s.user.Name},
		Data:   req.Data,
	}.Body()
	m.r.sub.Signal(body, func(err error) {
		raw, waits := s.sends.take(seq)
		switch {
		case !waits:
		case err != nil:
			s.refuse(raw, busError(err))
		default:
			s.say("ok", wire.OK{Req: raw})
		}
	})
	return nil
}

func (s *session) history(req *wire.Request) *wire.Error {
	ctx, cancel := context.WithTimeout(s.srv.ctx, busTimeout)
	defer cancel()
	entries, more, err := s.srv.history(ctx, req.Room, req.Before, req.Limit)
	if err != nil {
		return busError(err)
	}
	s.say("ok", wire.History{Req: req.Req, Room: req.Room, Messages: entries, More: more})
	return nil
}

// maxHistory bounds the bytes of one answer, well below a queue's limit.
const maxHistory = 64 << 10

// history reads messages before an id, oldest first, as AppendEntry writes them: at most limit, or as many of the newest as fit.
func (s *Server) history(ctx context.Context, room string, before *bus.ID, limit *int) (entries [][]byte, more bool, err error) {
	n, end := wire.DefaultBacklog, bus.ID{}
	if limit != nil {
		n = *limit
	}
	if before != nil {
		if end = *before; end.IsZero() {
			return nil, false, nil // nothing comes before it
		}
	}
	if n == 0 {
		return nil, true, nil
	}
	for {
		page, err := s.cfg.Bus.Before(ctx, room, end, n)
		if err != nil {
			return nil, false, err
		}
		bytes := 0
		for _, m := range slices.Backward(page.Messages) {
			if m.Break {
				continue
			}
			e := wire.AppendEntry(nil, m.ID, m.Body)
			if bytes += len(e); bytes > maxHistory && len(entries) > 0 {
				page.More = true
				break
			}
			if len(e) > 0 {
				entries = append(entries, e)
			}
		}
		if len(entries) > 0 || !page.More || len(page.Messages) == 0 {
			slices.Reverse(entries)
			return entries, page.More, nil
		}
		end = page.Messages[0].ID // who got a page without a message could not page on
	}
}

func (s *session) members(req *wire.Request) *wire.Error {
	ctx, cancel := context.WithTimeout(s.srv.ctx, busTimeout)
	defer cancel()
	roster, err := s.srv.roster(ctx, req.Room)
	if err != nil {
		return busError(err)
	}
	s.say("ok", wire.Members{
		Req:      req.Req,
		Room:     req.Room,
		Members:  wireMembers(roster),
		Count:    roster.Count,
		Presence: roster.Version,
	})
	return nil
}

// roster is who is in a room, from memory if the node is subscribed to it.
func (s *Server) roster(ctx context.Context, room string) (bus.Roster, error) {
	s.roomsMu.Lock()
	r := s.rooms[room]
	s.roomsMu.Unlock()
	if r != nil {
		select {
		case <-r.ready:
			if r.err == nil {
				return r.sub.Roster(), nil
			}
		default:
		}
	}
	return s.cfg.Bus.Roster(ctx, room)
}
