package redis

import (
	"errors"
	"net"
	"slices"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"parley/bus"
)

const (
	repairWorkers = 4    // that read logs
	repairRooms   = 128  // whose logs are read in one pipeline
	repairPage    = 1024 // entries of one room in it
	rosterReaders = 2    // that read rosters
	rosterRooms   = 32   // whose rosters are read in one pipeline
)

// How many bytes a pipeline may ask for. What takes longer than the time-out is of no use, and was transferred for nothing.
const (
	budgetFirst = 1 << 20
	budgetMost  = 4 << 20
	budgetLeast = 16 << 10
	shareLeast  = budgetFirst / repairRooms // of one room: with less to share, fewer rooms are read at once
)

// A budget is a number of bytes that halves when they take too long, and grows again.
type budget struct{ bytes atomic.Int64 }

// halve is told that so many bytes took too long. It reports whether fewer can be asked for.
func (b *budget) halve(bytes int64) bool {
	b.bytes.CompareAndSwap(bytes, max(budgetLeast, bytes/2)) // or another did it
	return bytes > budgetLeast
}

// grow is told that so many bytes did not.
func (b *budget) grow(bytes int64) { b.bytes.CompareAndSwap(bytes, min(budgetMost, 2*bytes)) }

type repairState byte

const (
	repairIdle repairState = iota
	repairQueued
	repairRunning
	repairAgain // asked for while running
)

// soon notes that there is something to read. It reports whether that is new, and must be queued.
func (s *repairState) soon() bool {
	switch *s {
	case repairIdle:
		*s = repairQueued
		return true
	case repairRunning:
		*s = repairAgain
	}
	return false
}

// done reports whether there is more to read meanwhile.
func (s *repairState) done() bool {
	again := *s == repairAgain
	*s = repairIdle
	return again
}

// readSoonLocked queues the room for a worker that reads what it lacks of its log. It reports whether a worker is reading it now:
// that worker then reads once more.
func (rm *room) readSoonLocked() (running bool) {
	if rm.repair.soon() {
		rm.bus.repairs.add(rm, rm.state == joining)
	}
	return rm.repair == repairAgain
}

// readRosterSoonLocked is the same of who is in the room.
func (rm *room) readRosterSoonLocked() (running bool) {
	if rm.rosterRepair.soon() {
		rm.bus.rosterRepairs.add(rm, !rm.isReady)
	}
	return rm.rosterRepair == repairAgain
}

// readDone is called when a worker is done with the room's log.
func (rm *room) readDone() {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.repair.done() {
		rm.readSoonLocked()
	}
}

func (rm *room) rosterReadDone() {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.rosterRepair.done() {
		rm.readRosterSoonLocked()
	}
}

// repairLoop reads logs of rooms that lack something. Many rooms share a round trip, since all of them come at once after a
// reconnection. One worker at a time reads a room. reconcileLoop tries again what fails.
func (r *Bus) repairLoop() {
	for {
		rooms := r.repairs.take(repairRooms, r.ctx.Done())
		if rooms == nil {
			return
		}
		for len(rooms) > 0 {
			rooms = r.readLogs(rooms)
		}
	}
}

// readLogs reads a page of the logs of the first rooms, and returns those that have more to read.
func (r *Bus) readLogs(rooms []*room) (more []*room) {
	bytes := r.budget.bytes.Load()
	n := min(len(rooms), int(bytes/shareLeast))
	rooms, more = rooms[:n], rooms[n:]
	q := r.query(r.ctx, r.own)
	readings := make([]*reading, 0, n)
	for _, rm := range rooms {
		if rd := rm.ask(q, int(bytes)/n); rd != nil {
			readings = append(readings, rd)
		} else {
			rm.readDone()
		}
	}
	if len(readings) == 0 {
		return more
	}
	err := r.exec(r.ctx, r.own, q.cmds)
	if isLate(err) && r.ctx.Err() == nil && r.budget.halve(bytes) {
		for _, rd := range readings {
			more = append(more, rd.room)
		}
		return more
	}
	if err != nil && r.ctx.Err() == nil {
		r.complain("read rooms", err)
	}
	used := 0
	for _, rd := range readings {
		again := false
		if err == nil {
			var failure error
			if again, failure = rd.settle(); failure != nil {
				r.complain("repair "+rd.room.name, failure)
			}
		}
		used += rd.bytes
		if again {
			more = append(more, rd.room)
		} else {
			rd.room.readDone()
		}
	}
	if int64(used) > bytes/2 {
		r.budget.grow(bytes)
	}
	return more
}

// isLate reports whether the server did not answer in time.
func isLate(err error) bool {
	var late net.Error
	return errors.As(err, &late) && late.Timeout()
}

// A reading is what is read of a room in one round trip.
type reading struct {
	room     *room
	term     uint64 // of the server, before the read
	joining  bool
	question uint64 // the room's last one
	number   uint64 // of the room's reads
	at       bus.ID // where the chain was
	owed     bus.ID // what the log had to have, before the read
	bytes    int    // that were read

	log     *redis.Cmd // entries after at; the newest alone when joining
	proofs  []proof    // that the log has what it was said to have, read after that
	oldest  *redis.Cmd // the log's first entry, where there are proofs
	changes int        // changes of the roster that were held at the time
	roster  *redis.Cmd
}

// ask adds a read of the log to a query. It returns nil for a room that needs none.
func (rm *room) ask(q *query, bytes int) *reading {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.repair = repairRunning
	if rm.state != joining && rm.state != repairing || rm.mending { // mended goes on with the answer
		return nil
	}
	if rm.state == repairing && rm.run != rm.bus.server.runNow() { // the link is to ask first, which it does once it is there
		return nil
	}
	rd := &reading{room: rm, term: rm.bus.server.term.Load(), joining: rm.state == joining, question: rm.question, at: rm.at, owed: rm.owed()}
	rm.reads++
	rd.number = rm.reads
	if rd.joining {
		rd.log = q.readLog(rm.keys, "xrevrange", "+", "-", 1, 0)
		if tr := rm.trail; tr == nil {
			rd.prove(q, rd.owed)
		} else if !tr.again { // otherwise it is asked about later
			rd.prove(q, tr.newestID())
			rd.prove(q, rd.owed)
		}
	} else {
		rd.log = q.readLog(rm.keys, "xrange", "("+rm.at.String(), "+", repairPage, bytes)
		if rm.sure == rm.at {
			rd.prove(q, rm.at)
		}
	}
	return rd
}

// settle applies what was read, and reports whether there is more to read.
func (rd *reading) settle() (again bool, err error) {
	if rd.term != rd.room.bus.server.term.Load() {
		return false, nil // of a server that is left; it is read again with the next connection
	}
	read, err := parseLogRead(rd.log)
	if err != nil {
		return false, err
	}
	rd.bytes = read.bytes
	has := true
	for _, p := range rd.proofs {
		holds, err := p.holds(rd.oldest, read.last)
		if err != nil {
			return false, err
		}
		has = has && holds
	}
	if rd.joining {
		return rd.join(read, has), nil
	}
	return rd.advance(read, has && len(rd.proofs) > 0), nil
}

// A proof is a read that says whether a log still has an entry. The answer to a question about the log is older than what is read then,
// and proves nothing: much may have been lost since, while the connection stayed.
type proof struct {
	id    bus.ID
	entry *redis.Cmd
}

// prove asks for a proof, unless the id is that of no entry.
func (rd *reading) prove(q *query, i bus.ID) {
	if i.IsZero() {
		return
	}
	log := rd.room.keys.log
	rd.proofs = append(rd.proofs, proof{i, q.do("xrange", log, i.String(), i.String())})
	if rd.oldest == nil {
		rd.oldest = q.do("xrange", log, "-", "+", "count", 1)
	}
}

// holds reports whether the log has the entry, or has trimmed it away; oldest is the log's first entry, and last its last id.
func (p *proof) holds(oldest *redis.Cmd, last bus.ID) (bool, error) {
	entry, err := p.entry.Slice()
	if err != nil || len(entry) > 0 {
		return err == nil, err
	}
	entries, err := oldest.Slice()
	switch {
	case err != nil:
		return false, err
	case len(entries) == 0:
		return !last.Less(p.id), nil
	}
	first, err := messageOf(entries[0])
	return err == nil && p.id.Less(first.ID) && !first.Prev.Less(p.id), nil // what is none of ours follows nothing
}

// rosterRepairLoop reads who is in rooms whose changes may have been missed: apart from their logs, which are not to wait for a crowd.
func (r *Bus) rosterRepairLoop() {
	most := rosterRooms
	for {
		rooms := r.rosterRepairs.take(most, r.ctx.Done())
		if rooms == nil {
			return
		}
		late := false
		for len(rooms) > 0 {
			var l bool
			rooms, l = r.readRosters(rooms)
			late = late || l
		}
		if most = min(rosterRooms, 2*most); late {
			most = max(1, most/4)
		}
	}
}

// readRosters reads who is in the rooms, and returns those that are to be read again, and whether the server was late.
func (r *Bus) readRosters(rooms []*room) (more []*room, late bool) {
	q := r.query(r.ctx, r.own)
	readings := make([]*reading, 0, len(rooms))
	for _, rm := range rooms {
		if rd := rm.askRoster(q); rd != nil {
			readings = append(readings, rd)
		} else {
			rm.rosterReadDone()
		}
	}
	if len(readings) == 0 {
		return nil, false
	}
	err := r.exec(r.ctx, r.own, q.cmds)
	if err != nil && r.ctx.Err() == nil {
		r.complain("read who is in rooms", err)
	}
	for _, rd := range readings {
		again := false
		if err == nil {
			var failure error
			if again, failure = rd.settleRoster(); failure != nil {
				r.complain("read who is in "+rd.room.name, failure)
			}
		}
		if again {
			more = append(more, rd.room)
		} else {
			rd.room.rosterReadDone()
		}
	}
	return more, isLate(err)
}

// askRoster adds a read of who is in the room to a query. It returns nil for a room that needs none.
func (rm *room) askRoster(q *query) *reading {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.rosterRepair = repairRunning
	if rm.state == over || !rm.rosterStale {
		return nil
	}
	rd := &reading{room: rm, term: rm.bus.server.term.Load(), changes: len(rm.heldChanges)}
	rd.roster = q.readRoster(rm.keys, 0, rm.roster.numbers())
	return rd
}

// join makes a joining room live, where the log ends, unless the log lacks what was known of it: then the link asks, once more it may be.
func (rd *reading) join(read logRead, has bool) (again bool) {
	rm := rd.room
	rm.mu.Lock()
	defer rm.mu.Unlock()
	switch {
	case rm.state != joining || rm.mending:
		return false
	case rd.question != rm.question, rm.lacksLocked(rd.owed):
		return true // it is too old
	case !has:
		if rm.trail == nil {
			rm.trail = &trail{keys: rm.keys, known: []bus.ID{{}}, run: rm.bus.server.runNow()}
		}
		rm.mendLocked()
		return false
	}
	if rm.trail != nil && rm.trail.again { // not before: what is lost meanwhile shows only if it is asked about later
		rm.bus.trails.leave(rm.trail)
	}
	rm.at = read.last
	if len(read.messages) > 0 && rm.at.Less(read.messages[0].ID) {
		rm.at = read.messages[0].ID
	}
	rm.recent.add(rm.at)
	rm.seen(rm.at)
	rm.newest, rm.run = read.lastBreak, rm.bus.server.runNow()
	rm.horizon = rm.at
	rm.last = rm.at
	rm.state, rm.trail = live, nil
	rm.readyLocked()
	whole := rm.releaseLocked()
	rm.repaired = 0
	if !whole {
		rm.state = repairing
	}
	return !whole
}

// lacksLocked reports whether the log must have more than it had to at a read, and that has not arrived.
func (rm *room) lacksLocked(owedThen bus.ID) bool {
	owed := rm.owed()
	return owedThen.Less(owed) && !rm.dropped && !slices.ContainsFunc(rm.held, func(m bus.Message) bool { return m.ID == owed })
}

// readyLocked lets Subscribe return once both the log's end and who is there are known.
func (rm *room) readyLocked() {
	if rm.state != joining && !rm.rosterStale && !rm.isReady {
		rm.isReady = true
		close(rm.ready)
	}
}

// advance delivers what was read. If the log seems to lack something that was delivered or acknowledged, the link asks: the answer
// has the log read again. sure says that the log has the entry that the chain has got to.
func (rd *reading) advance(read logRead, sure bool) (again bool) {
	entries := read.messages
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
		switch follows := m.Prev.Less(rm.at); {
		case follows && !(sure && rm.at == rd.at):
			rm.mendLocked()
			return false
		case follows: // the log has it, though it names another: its last id's key was behind
			m.Prev = rm.at
		case m.Prev != rm.at: // trimmed away
			rm.breakAtLocked(rm.at, m.Prev, bus.ID{})
		}
		if rm.leavesOutLocked(m) {
			rm.mendLocked()
			return false
		}
		rm.deliverLocked(m)
		rm.horizon = m.ID
		rm.repaired++
	}
	if read.more && len(entries) > 0 {
		rm.foundLocked(read.last, rm.bus.server.runNow())
		return true
	}
	last := read.last
	switch {
	case len(entries) > 0:
	case last.Less(rm.at) && !sure:
		rm.mendLocked()
		return false
	case rm.at.Less(last): // all of it trimmed away
		rm.breakAtLocked(rm.at, last, bus.ID{})
	}
	if rm.at.Less(rd.owed) {
		rm.mendLocked()
		return false
	}
	rm.sure = bus.ID{}
	rm.state = live
	whole := rm.releaseLocked()
	rm.releaseWaitersLocked(func(w *waiter) bool { return w.reads < rd.number || !w.lost && !rm.at.Less(w.id) })
	if rm.repaired > 0 {
		rm.bus.cfg.Observer.Repaired(rm.repaired)
	}
	rm.repaired = 0
	if !whole || len(rm.waiters) > 0 { // what those wait for who came meanwhile would have arrived by now
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
	if rm.state == over || rd.term != rm.bus.server.term.Load() {
		return false, nil // of a server that is left, its next connection has it read again
	}
	read, err := parseRosterRead(rd.roster)
	if err != nil {
		return false, err
	}
	changes := rm.roster.take(read)
	switch {
	case !rm.isReady:
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
	for _, c := range held {
		if !rm.applyChangeLocked(c) {
			rm.rosterStale = true // what follows is read with it
			return true, nil
		}
	}
	rm.readyLocked()
	return again, nil
}
