package node

import (
	"slices"

	"parley/bus"
	"parley/node/socket"
	"parley/node/wire"
)

// A member is a session in a room. What a delivery looks at comes first: to thousands of members, what is apart in memory is slow.
type member struct {
	conn   *socket.Conn // static; the session's
	stream *stream      // static; the session's
	id     uint64       // static; the session's
	codec  codec        // static; the session's
	live   bool         // guarded by room.mu; given everything by flush; else served by catchUp, up to the head
	blind  bool         // static; it may not read what was said before it joined

	s *session // static
	r *room    // static

	// Guarded by room.mu.
	place   int    // in room.members
	greeted bool   // was live before
	gone    bool   // is no member any more
	cursor  bus.ID // the last id written while not live; only catchUp moves it
	handed  uint64 // what it had of presence.handed, while not live
	told    bus.ID // the marker of the newest break that it was told of, or that came before it
	user    wire.Member

	ahead *ahead // owned by admit, then by catchUp
}

func newMember(s *session, r *room) *member {
	return &member{conn: s.conn, stream: s.stream, id: s.id, codec: s.codec, s: s, r: r}
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
	m.handed = r.presence.handed
	if m.blind && req.Since != nil {
		whole := *req.Since == m.cursor && !m.cursor.Less(r.recent.broke)
		recovered = &whole
	}
	if recovered == nil || m.blind && !*recovered {
		m.told = r.recent.broke // it had nothing that it could have lost, or is told of a gap in any case
	}
	b.payload = m.joinedLocked(req, recovered).Append(b.payload[:0])
	b.frame = m.codec.appendEventAt(b.frame[:0], m.cursor, "ok", b.payload)
	live := false
	if m.blind && recovered != nil && !*recovered {
		b.frame = m.appendGap(b.frame, *req.Since, m.cursor) // plain text, which has no words for it, has no since
	}
	answer, cursor, greeted := len(b.frame), m.cursor, m.greeted
	switch {
	case m.blind: // it is not served by catchUp
		b.frame, b.payload, live = m.serveRecentLocked(b.frame, b.payload)
		m.put(b.frame)
	case recovered == nil || *recovered:
		b.frame, b.payload, live = m.serveRecentLocked(b.frame, b.payload)
		if m.putIfSpace(b.frame) {
			break
		}
		m.cursor, m.greeted, m.live, live = cursor, greeted, false, false // what it is told beside has filled the queue
		fallthrough
	default: // catchUp finds the gap, and tells it, or waits for space
		m.put(b.frame[:answer])
	}
	if live {
		m.ahead = nil
	} else {
		m.s.srv.wg.Go(m.catchUp)
	}
}

// enterLocked makes the user a member through this node, or changes the name. It needs room.mu, and the reader calls it.
func (m *member) enterLocked() {
	who := &m.s.identity
	m.user = wire.Member{ID: who.user.ID, Name: who.user.Name, Info: who.user.Info}
	m.r.sub.Enter(bus.Member{ID: m.user.ID, Name: seen(m.user), Named: who.named})
}

// rename tells the room a name that may be new.
func (m *member) rename() {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	m.enterLocked()
}

// rosterLocked is the room's roster as its answers to this member list it: with him, though the bus may not have taken him in yet, if the
// list has space. All others learn of him when it has.
func (m *member) rosterLocked() (members []wire.Member, count int, version uint64) {
	roster := m.r.sub.Roster()
	members = m.r.listLocked(roster)
	if slices.ContainsFunc(members, func(o wire.Member) bool { return o.ID == m.user.ID }) || roster.Count > len(members) {
		return members, roster.Count, roster.Version
	}
	if len(members) < bus.RosterMax {
		members = append(slices.Clip(members), m.user)
	}
	return members, roster.Count + 1, roster.Version
}

// joinedLocked answers a join from the node's memory. It needs room.mu.
func (m *member) joinedLocked(req *wire.Request, recovered *bool) wire.Joined {
	members, count, version := m.rosterLocked()
	last := m.r.head
	if recovered != nil && *recovered && last.Less(*req.Since) {
		last = *req.Since // seen over another node, or before this one's flush
	}
	return wire.Joined{
		Req:       req.Req,
		Room:      m.r.name,
		Last:      last,
		Recovered: recovered,
		Members:   members,
		Count:     count,
		Presence:  version,
	}
}
