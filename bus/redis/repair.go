package redis

import (
	"github.com/redis/go-redis/v9"

	"parley/bus"
)

const (
	repairWorkers = 4
	repairRooms   = 128 // read in one pipeline
	repairPage    = 256 // entries of one room in it
)

type repairState byte

const (
	repairIdle repairState = iota
	repairQueued
	repairRunning
	repairAgain // asked for while running
)

// readSoonLocked queues the room for a worker that reads what it lacks. It reports whether a worker is reading it now: that
// worker then reads once more.
func (rm *room) readSoonLocked() (running bool) {
	switch rm.repair {
	case repairIdle:
		rm.repair = repairQueued
		rm.bus.repairs.add(rm)
	case repairRunning:
		rm.repair = repairAgain
	}
	return rm.repair == repairAgain
}

// readDone is called when a worker is done with the room.
func (rm *room) readDone() {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	again := rm.repair == repairAgain
	rm.repair = repairIdle
	if again {
		rm.readSoonLocked()
	}
}

// repairLoop reads rooms that lack something. Many rooms share a round trip, since all of them come at once after a
// reconnection. One worker at a time reads a room. reconcileLoop tries again what fails.
func (r *Bus) repairLoop() {
	for {
		taken := r.repairs.take(repairRooms, r.ctx.Done())
		if taken == nil {
			return
		}
		for rooms := taken; len(rooms) > 0; {
			rooms = r.readRooms(rooms)
		}
		for _, rm := range taken {
			rm.readDone()
		}
	}
}

// readRooms reads each room once and returns those that have more to read.
func (r *Bus) readRooms(rooms []*room) (more []*room) {
	q := r.query(r.ctx, r.own)
	readings := make([]*reading, 0, len(rooms))
	for _, rm := range rooms {
		if rd := rm.ask(q); rd != nil {
			readings = append(readings, rd)
		}
	}
	if len(readings) == 0 {
		return nil
	}
	if err := r.exec(r.ctx, r.own, q.cmds); err != nil {
		if r.ctx.Err() == nil {
			r.complain("read rooms", err)
		}
		return nil
	}
	for _, rd := range readings {
		again, err := rd.settle()
		if err != nil && r.ctx.Err() == nil {
			r.complain("repair "+rd.room.name, err)
		}
		if again && err == nil {
			more = append(more, rd.room)
		}
	}
	return more
}

// A reading is what is read of a room in one round trip.
type reading struct {
	room    *room
	term    uint64 // of the server, before the read
	joining bool
	number  uint64 // of the room's reads
	at      bus.ID // where the chain was
	acked   bus.ID // what had been acknowledged, before the read

	last    *redis.Cmd
	entries *redis.Cmd // after at; the newest alone when joining
	changes int        // changes of the roster that were held at the time
	roster  *redis.Cmd // nil unless the roster may be out of date
}

// ask adds a room's reading to a query. It returns nil for a room that is closed.
func (rm *room) ask(q *query) *reading {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.repair == repairQueued {
		rm.repair = repairRunning
	}
	if rm.state == over {
		return nil
	}
	rd := &reading{room: rm, term: rm.bus.server.term.Load(), joining: rm.state == joining, at: rm.at, acked: rm.ackedID()}
	rm.reads++
	rd.number = rm.reads
	switch {
	case rm.mending: // it goes on with the answer
	case rm.state == joining:
		rd.last = q.get(rm.keys.last) // before the entries
		rd.entries = q.do("xrevrange", rm.keys.log, "+", "-", "count", 1)
	case rm.state == repairing:
		rd.last = q.get(rm.keys.last)
		rd.entries = q.do("xrange", rm.keys.log, "("+rm.at.String(), "+", "count", repairPage)
	}
	rd.changes = len(rm.heldChanges)
	if rm.state == joining || rm.rosterStale {
		rd.roster = q.readRoster(rm.keys, 0, rm.roster.numbers())
	}
	return rd
}

// settle applies what was read, and reports whether there is more to read.
func (rd *reading) settle() (again bool, err error) {
	if rd.term != rd.room.bus.server.term.Load() {
		return false, nil // of a server that is left; it is read again with the next connection
	}
	for _, cmd := range []*redis.Cmd{rd.last, rd.entries, rd.roster} {
		if cmd != nil && cmd.Err() != nil && cmd.Err() != redis.Nil {
			return false, cmd.Err()
		}
	}
	rosterAgain, err := rd.settleRoster()
	if err != nil || rd.entries == nil {
		return rosterAgain, err
	}
	entries, err := messagesOf(rd.entries)
	if err != nil {
		return false, err
	}
	if rd.joining {
		return rd.join(entries) || rosterAgain, nil
	}
	return rd.advance(entries) || rosterAgain, nil
}

// join makes a joining room live, where the log ends.
func (rd *reading) join(newest []bus.Message) (again bool) {
	rm := rd.room
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.state != joining {
		return false
	}
	rm.at = idOf(rd.last)
	if len(newest) > 0 && rm.at.Less(newest[0].ID) {
		rm.at = newest[0].ID
	}
	rm.rememberLocked(rm.at)
	rm.seen(rm.at)
	rm.horizon = rm.at
	rm.last = rm.at
	rm.state = live
	close(rm.ready)
	whole := rm.releaseLocked()
	rm.repaired = 0
	if !whole {
		rm.state = repairing
	}
	return !whole
}

// advance delivers what was read. If the log seems to lack something that was delivered or acknowledged, the link asks: the answer
// has the log read again.
func (rd *reading) advance(entries []bus.Message) (again bool) {
	rm := rd.room
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.state != repairing || rm.at != rd.at || rm.mending {
		return false
	}
	if marker := rm.marker; !marker.IsZero() {
		rm.marker = bus.ID{}
		if len(entries) == 0 || entries[0].ID != marker { // otherwise that tells it
			rm.breakAtLocked(rm.at, rm.at, marker)
		}
	}
	for _, m := range entries {
		switch sure := rm.sure == rm.at; {
		case m.Prev.Less(rm.at) && !sure:
			rm.mendLocked()
			return false
		case m.Prev.Less(rm.at): // the log has it, though it names another: its last id's key was behind
			m.Prev = rm.at
		case m.Prev != rm.at: // trimmed away
			rm.breakAtLocked(rm.at, m.Prev, bus.ID{})
		}
		if rm.at.Less(rd.acked) && rd.acked.Less(m.ID) && rd.acked != rm.sureAcked {
			rm.mendLocked()
			return false
		}
		rm.deliverLocked(m)
		rm.horizon = m.ID
		rm.repaired++
	}
	if count(rd.entries) == repairPage && len(entries) > 0 {
		return true
	}
	last := idOf(rd.last)
	switch {
	case len(entries) > 0:
	case last.Less(rm.at) && rm.sure != rm.at:
		rm.mendLocked()
		return false
	case rm.at.Less(last): // all of it trimmed away
		rm.breakAtLocked(rm.at, last, bus.ID{})
	}
	if rm.at.Less(rd.acked) {
		if rd.acked != rm.sureAcked {
			rm.mendLocked()
			return false
		}
		rm.forgive(rd.acked)
	}
	rm.sure, rm.sureAcked = bus.ID{}, bus.ID{}
	rm.state = live
	whole := rm.releaseLocked()
	rm.releaseWaitersLocked(func(w *waiter) bool { return w.reads < rd.number })
	if rm.repaired > 0 {
		rm.bus.cfg.Observer.Repaired(rm.repaired)
	}
	rm.repaired = 0
	if !whole {
		rm.state = repairing
		return true
	}
	return false
}

// settleRoster applies what was read of a roster, and reports whether it must be read again.
func (rd *reading) settleRoster() (again bool, err error) {
	rm := rd.room
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.state == over || rd.roster == nil {
		return false, nil
	}
	read, err := parseRosterRead(rd.roster)
	if err != nil {
		return false, err
	}
	changes := rm.roster.take(read)
	switch {
	case rd.joining:
	case len(changes) > changesMax:
		last := changes[len(changes)-1]
		rm.sink.Presence(bus.Change{Kind: bus.Synced, Count: last.Count, Version: last.Version})
	default:
		for _, c := range changes {
			rm.sink.Presence(c)
		}
	}
	again = rm.changesDropped
	held := rm.takeHeldChangesLocked()[rd.changes:] // what came before was read
	rm.changesDropped, rm.rosterStale = false, again
	for i, c := range held {
		if !rm.applyChangeLocked(c) {
			rm.rosterStale = true
			for _, c := range held[i:] {
				rm.holdChangeLocked(c)
			}
			return true, nil
		}
	}
	return again, nil
}
