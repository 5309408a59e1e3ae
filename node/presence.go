package node

import (
	"strings"
	"time"

	"parley/bus"
	"parley/node/wire"
)

// presence is what a room's live members have been told about its roster. room.mu guards it.
//
// In a room of at most Config.PresenceLimit members each join and leave is told. In a larger one only the count is, now and then
// (countPause). It is large until a tenth fewer are left: nobody makes it one and the other by coming and going.
type presence struct {
	handed  uint64      // how many changes, lists and counts were: whoever has missed one is told the whole roster
	large   bool        // only the count is told
	stale   bool        // the whole roster is to be told, and until then no single change
	counted time.Time   // when the count or the roster was last told
	timer   *time.Timer // runs until it is to be told
}

// countPause is the time between two counts that so many members are told: from a second to ten, so that the cost does not grow
// with the square of their number.
func countPause(members int) time.Duration {
	return min(max(time.Second, time.Duration(members)*5*time.Millisecond), 10*time.Second)
}

// changedLocked tells of a change, or has the count or the whole roster told soon. It needs r.mu.
func (r *room) changedLocked(b *batch, c *bus.Change) {
	p := &r.presence
	p.handed++
	if len(r.members) == 0 {
		return // whoever comes is told the roster; and without members the room may not be subscribed to yet, and have none
	}
	limit := r.srv.cfg.PresenceLimit
	switch {
	case c.Count > limit:
		p.large, p.stale = true, false
	case p.large && c.Count <= limit-limit/10:
		p.large, p.stale = false, true
	case c.Kind == bus.Synced:
		p.stale = !p.large
	}
	if p.large || p.stale {
		if p.timer == nil {
			wait := max(0, time.Until(p.counted.Add(countPause(c.Count))))
			p.timer = time.AfterFunc(wait, func() { r.receive(item{kind: itemCount}) })
		}
		return
	}
	event := wire.EventJoin
	switch c.Kind {
	case bus.Left:
		event = wire.EventLeave
	case bus.Renamed:
		event = wire.EventUpdate
	}
	user := wireMember(c.Member)
	b.frameLocked("presence", wire.Presence{Room: r.name, Event: event, User: &user, Count: c.Count, Presence: c.Version})
}

// countLocked tells the count or the whole roster, when it is due. It needs r.mu.
func (r *room) countLocked(b *batch) {
	p := &r.presence
	p.timer = nil
	p.counted = time.Now()
	p.handed++
	switch {
	case p.large:
		roster := r.sub.Roster()
		b.frameLocked("presence", wire.Presence{Room: r.name, Event: wire.EventCount, Count: roster.Count, Presence: roster.Version})
	case p.stale:
		p.stale = false
		b.frameLocked("presence", r.sync())
	}
}

func (r *room) stopPresence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.presence.timer != nil {
		r.presence.timer.Stop()
	}
}

// sync is the whole roster, or only the count of a large room.
func (r *room) sync() wire.Presence {
	roster := r.sub.Roster()
	p := wire.Presence{Room: r.name, Event: wire.EventSync, Count: roster.Count, Presence: roster.Version}
	if roster.Count > r.srv.cfg.PresenceLimit {
		p.Event = wire.EventCount
		return p
	}
	p.Members = wireMembers(roster)
	return p
}

// listed is a roster as clients are told it, kept for as long as the bus gives the same.
type listed struct {
	from    []bus.Member
	members []wire.Member
}

// listLocked gives the members of a roster, which nobody changes. It needs r.mu.
func (r *room) listLocked(roster bus.Roster) []wire.Member {
	n, l := len(roster.Members), &r.listed
	if n <= smallRoom {
		return wireMembers(roster)
	}
	if n != len(l.from) || &l.from[0] != &roster.Members[0] {
		l.from, l.members = roster.Members, wireMembers(roster)
	}
	return l.members
}

// listedInfo bounds what a list of members has of infos, in bytes: past it, members are listed without.
const listedInfo = 32 << 10

func wireMembers(roster bus.Roster) []wire.Member {
	out := make([]wire.Member, len(roster.Members))
	bytes := 0
	for i, m := range roster.Members {
		out[i] = wireMember(m)
		if bytes += len(out[i].Info); bytes > listedInfo {
			out[i].Info = ""
		}
	}
	return out
}

// seen is what others see of a user, as the bus has it for a name: the name and, if there is one, a zero and the info. No name has
// a zero.
func seen(m wire.Member) string {
	if m.Info == "" {
		return m.Name
	}
	return m.Name + "\x00" + string(m.Info)
}

func wireMember(m bus.Member) wire.Member {
	name, info, _ := strings.Cut(m.Name, "\x00")
	return wire.Member{ID: m.ID, Name: name, Info: wire.Info(info)}
}
