package redis

import "context"

// The index of an incarnation names the rooms that it is in: for whoever reaps it, and for who lists rooms. It may come to differ from
// what this node knows: it was deleted, an answer was lost, or the server went back to what it was and has members again of rooms
// that they have left since. A room that is subscribed to is compared itself; the others show here.

// writeIndex notes rooms that an incarnation is about to be in. It comes before the incarnation is in them, so that whoever
// reaps it finds them.
func (r *Bus) writeIndex(inc string, rooms []any) error {
	if len(rooms) == 0 {
		return nil
	}
	q := r.query(r.ctx, r.own)
	q.do(append([]any{"sadd", roomsOfKey(inc)}, rooms...)...)
	q.do("pexpire", roomsOfKey(inc), r.cfg.presenceLife.Milliseconds())
	return q.send()
}

// leaveIndex takes out of the index the rooms that nobody is in through this node. Where it fails, comparing shows it.
func (r *Bus) leaveIndex(inc string, written []*roster) {
	var rooms []any
	for _, ro := range written {
		ro.mu.Lock()
		if len(ro.want) == 0 && len(ro.dirty) == 0 && !ro.whole && ro.inc == inc && ro.indexed {
			ro.indexed = false
			rooms = append(rooms, ro.keys.room)
		}
		ro.mu.Unlock()
	}
	if len(rooms) > 0 {
		q := r.query(r.ctx, r.own)
		q.do(append([]any{"srem", roomsOfKey(inc)}, rooms...)...)
		_ = q.send()
	}
}

// compareIndex has written anew what the index lacks, and what it should not have.
func (r *Bus) compareIndex() error {
	r.writing.Lock()
	defer r.writing.Unlock()
	inc, _ := r.lease.current()
	if inc == "" {
		return nil
	}
	indexed := 0
	r.mu.RLock()
	for _, ro := range r.rosters {
		if ro.isIndexed(inc) {
			indexed++
		}
	}
	r.mu.RUnlock()
	q := r.query(r.ctx, r.own)
	count := q.do("scard", roomsOfKey(inc))
	if err := q.send(); err != nil {
		return err
	}
	if n, _ := count.Int(); n == indexed {
		return nil
	}
	rooms, err := r.readIndex(r.ctx, inc)
	if err != nil {
		return err
	}
	named := make(map[string]*roomKeys, len(rooms))
	moved := make(map[string]bool) // who moved those takes this incarnation out of them
	for _, room := range rooms {
		k := keysOf(r.db, room)
		named[room], moved[room] = k, r.cluster != nil && r.cluster.ownerOf(slotOf(k.log)) != r
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for room, ro := range r.rosters {
		if !ro.isIndexed(inc) {
			continue
		}
		if named[room] == nil {
			ro.unindexed()
		}
		delete(named, room)
	}
	for room, k := range named {
		if !moved[room] {
			r.rosterOfLocked(room, k).mayHave(inc)
		}
	}
	return nil
}

// readIndex gives the rooms of an incarnation.
func (r *Bus) readIndex(ctx context.Context, inc string) ([]string, error) {
	q := r.query(ctx, r.own)
	index := q.do("smembers", roomsOfKey(inc))
	if err := q.send(); err != nil {
		return nil, err
	}
	return index.StringSlice()
}

func (ro *roster) isIndexed(inc string) bool {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	return ro.indexed && ro.inc == inc
}

// unindexed is called when the index does not name the room any more.
func (ro *roster) unindexed() {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.indexed, ro.whole = false, true
	ro.queueLocked()
}

// mayHave is called when Redis may have somebody of an incarnation in the room of whom this node knows nothing.
func (ro *roster) mayHave(inc string) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.touched && ro.inc != inc {
		return // it changes its incarnation, and leaves this one
	}
	ro.inc, ro.touched, ro.indexed, ro.whole = inc, true, true, true
	ro.queueLocked()
}
