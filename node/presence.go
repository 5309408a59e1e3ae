package node

import (
	"time"

	"parley/bus"
	"parley/node/wire"
)

// presence is what a room's members have been told about its roster. room.mu guards it.
//
// In a room of at most Config.PresenceLimit members each join and leave is told. In a larger one only the count is, now and then
// (countPause).
type presence struct {
	version uint64      // of the newest change that was handed on
	large   bool        // only the count is told
	counted time.Time   // when the count was last told
	timer   *time.Timer // runs until the count is to be told
}

// countPause is the time between two counts that so many members are told: from a second to ten, so that the cost does not grow
// with the square of their number.
func countPause(members int) time.Duration {
	return min(max(time.Second, time.Duration(members)*5*time.Millisecond), 10*time.Second)
}

// changedLocked tells of a change, or has the count told soon. It needs r.mu.
func (r *room) changedLocked(b *batch, c *bus.Change) {
	r.presence.version = c.Version
	switch {
	case c.Count > r.srv.cfg.PresenceLimit:
		r.presence.large = true
		if r.presence.timer == nil {
			wait := max(0, time.Until(r.presence.counted.Add(countPause(c.Count))))
			r.presence.timer = time.AfterFunc(wait, func() { r.receive(item{kind: itemCount}) })
		}
	case r.presence.large || c.Kind == bus.Synced:
		r.presence.large = false
		b.frameLocked("presence", r.sync())
	default:
		event := wire.EventJoin
		if c.Kind == bus.Left {
			event = wire.EventLeave
		}
		user := wire.Member(c.Member)
		b.frameLocked("presence", wire.Presence{Room: r.name, Event: event, User: &user, Count: c.Count, Presence: c.Version})
	}
}

// countLocked tells the count, when it is due. It needs r.mu.
func (r *room) countLocked(b *batch) {
	r.presence.timer = nil
	r.presence.counted = time.Now()
	if r.presence.large {
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

func wireMembers(roster bus.Roster) []wire.Member {
	out := make([]wire.Member, len(roster.Members))
	for i, m := range roster.Members {
		out[i] = wire.Member(m)
	}
	return out
}
