package redis

import (
	"maps"
)

// A room of a Cluster moves from one primary to another with its slot. Its chain goes on: on the other primary it asks what the log
// has lost, as after a reconnection, and reads what it missed.

// leave ends the room at this primary, and gives the same room for another; nil if it is over.
func (rm *room) leave() *room {
	rm.mu.Lock()
	if rm.state == over {
		rm.mu.Unlock()
		return nil
	}
	next := &room{
		name: rm.name, keys: rm.keys, sink: rm.sink, last: rm.last, ready: rm.ready, denied: rm.denied,
		state: rm.state, at: rm.at, recent: rm.recent, horizon: rm.at,
		marker: rm.marker, told: rm.told, newest: rm.newest, run: rm.run, trail: rm.trail, rosterStale: true, isReady: rm.isReady,
	}
	if next.state == live {
		next.state = repairing
	}
	rm.state = over
	rm.ended.Store(true)
	rm.takeHeldLocked()
	rm.takeHeldChangesLocked()
	rm.releaseWaitersLocked(func(*waiter) bool { return true })
	rm.idsMu.Lock()
	next.acked, next.floor = rm.acked, rm.floor
	rm.idsMu.Unlock()
	rm.mu.Unlock()

	rm.link.subscriber.unwant(rm)
	r := rm.bus
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rooms[rm.name] == rm {
		delete(r.rooms, rm.name)
	}
	return next
}

// arrive has a room that left another primary go on at this one.
func (r *Bus) arrive(rm *room, from *room) {
	rm.bus, rm.link = r, r.linkOf(rm.name)
	rm.roster = from.roster.transplant(r, rm)
	if rm.state == joining && rm.trail == nil {
		rm.trail = r.trails.take(rm.name)
	}
	ask := rm.state != joining || rm.trail != nil
	rm.mending = ask
	r.mu.Lock()
	r.rooms[rm.name] = rm
	r.turns.add(rm)
	if left := r.rosters[rm.name]; left != nil {
		left.forget()
	}
	r.rosters[rm.name] = rm.roster
	r.mu.Unlock()
	rm.link.enter(rm, ask)
	rm.roster.rewrite()
}

// transplant gives the same roster for a room at another primary, and leaves this one with nothing to do. What the incarnation here has
// in the room moves with the slot, and is taken out once the other's is written.
func (ro *roster) transplant(r *Bus, to *room) *roster {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	next := &roster{
		bus: r, keys: ro.keys, want: maps.Clone(ro.want), dirty: make(map[string]struct{}), whole: true,
		inc: ro.inc, number: ro.number, former: ro.former, touched: ro.touched, open: to,
		sets: ro.sets, users: ro.users, version: ro.version, unkept: ro.unkept,
	}
	ro.forgetLocked()
	return next
}

// forget leaves the roster with nothing to write.
func (ro *roster) forget() {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.forgetLocked()
}

func (ro *roster) forgetLocked() {
	clear(ro.want)
	clear(ro.dirty)
	ro.sets, ro.users, ro.unkept = nil, nil, nil
	ro.whole, ro.touched, ro.open, ro.former = false, false, nil, nil
	ro.queueLocked() // so that it is dropped
}

// merge takes a trail of a room whose slot has come. It is to be asked about.
func (t *trails) merge(tr *trail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// The old primary may be asked about the other yet, and note there that it was.
	tr = &trail{keys: tr.keys, acked: tr.acked, known: tr.known, newest: tr.newest, run: tr.run, until: tr.until, again: true}
	if had := t.byRoom[tr.keys.room]; had != nil {
		if tr.acked.Less(had.acked) {
			tr.acked = had.acked
		}
		if tr.known[0].Less(had.known[0]) {
			tr.known, tr.newest, tr.run = had.known, had.newest, had.run
		}
	}
	t.byRoom[tr.keys.room] = tr
}

// moved takes out the trails of rooms that are not here any more.
func (t *trails) moved(here func(k *roomKeys) bool) (gone []*trail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for room, tr := range t.byRoom {
		if !here(tr.keys) {
			delete(t.byRoom, room)
			gone = append(gone, tr)
		}
	}
	return gone
}
