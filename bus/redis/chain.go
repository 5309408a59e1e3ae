package redis

import (
	"sync/atomic"

	"parley/bus"
)

const (
	heldMax      = 1024
	heldSizeMax  = 1 << 20
	heldOverhead = 100
)

// The chain: what arrives is delivered if it follows the last entry delivered, and otherwise held until the log was read.

// arrivedLocked takes an entry that was published.
func (rm *room) arrivedLocked(m bus.Message) {
	switch {
	case rm.state != live:
		rm.holdLocked(m)
	case rm.followsLocked(m):
		rm.deliverLocked(m)
	case rm.horizon.Less(m.ID):
		rm.holdLocked(m)
		rm.repairNowLocked()
	}
}

// followsLocked reports whether an entry is the next one. Where it leaves out what was acknowledged, that is lost.
func (rm *room) followsLocked(m bus.Message) bool { return m.Prev == rm.at && !rm.leavesOutLocked(m) }

// leavesOutLocked reports whether the greatest id that the log must have is between the end of the chain and an entry that comes next.
func (rm *room) leavesOutLocked(m bus.Message) bool {
	owed := rm.owed()
	return rm.at.Less(owed) && owed.Less(m.ID)
}

// repairNowLocked makes a worker read the log for the room.
func (rm *room) repairNowLocked() {
	rm.state = repairing
	rm.readSoonLocked()
}

// holdLocked keeps what arrived until the log was read. If that is too much, for the room or the node, it drops all of the room's:
// the log has it.
func (rm *room) holdLocked(m bus.Message) {
	size := heldOverhead + len(m.Body)
	if len(rm.held) == heldMax || rm.heldSize+size > heldSizeMax || !rm.bus.held.take(size, rm.bus.cfg.heldBytes) {
		rm.takeHeldLocked()
		rm.dropped = true
		return
	}
	rm.heldSize += size
	rm.held = append(rm.held, m)
}

// takeHeldLocked gives what was held, which is held no more.
func (rm *room) takeHeldLocked() []bus.Message {
	held := rm.held
	rm.bus.held.give(rm.heldSize)
	rm.held, rm.heldSize = nil, 0
	return held
}

// heldBytes counts what all rooms of a node hold.
type heldBytes struct{ bytes atomic.Int64 }

// take reports whether there is room for so many more.
func (h *heldBytes) take(size, most int) bool {
	for {
		before := h.bytes.Load()
		after := before + int64(size)
		if after > int64(most) {
			return false
		}
		if h.bytes.CompareAndSwap(before, after) {
			return true
		}
	}
}

func (h *heldBytes) give(size int) { h.bytes.Add(-int64(size)) }

// releaseLocked delivers what was held, and reports whether the chain is unbroken so far.
func (rm *room) releaseLocked() bool {
	held := rm.takeHeldLocked()
	whole := !rm.dropped
	rm.dropped = false
	for _, m := range held {
		switch {
		case rm.followsLocked(m):
			rm.deliverLocked(m)
		case rm.horizon.Less(m.ID):
			return false
		default:
			rm.repaired-- // it was read, and had arrived too
		}
	}
	return whole
}

// deliverLocked hands the next entry to the sink.
func (rm *room) deliverLocked(m bus.Message) {
	rm.at = m.ID
	rm.recent.add(m.ID)
	rm.seen(m.ID)
	if m.Break {
		rm.newest = m.ID
		if m.Marker != rm.told {
			rm.bus.cfg.Observer.Broken()
		}
	}
	m.Unsettled = rm.bus.cfg.Replicas > 0 // which may not have it yet
	rm.sink.Deliver(m)
	if len(rm.waiters) > 0 {
		rm.arrivedAtLocked()
	}
}

// breakAtLocked tells the sink that what followed lost is lost, and goes on from goOn. marker is the entry that says so, zero for
// none.
func (rm *room) breakAtLocked(lost, goOn, marker bus.ID) {
	rm.bus.cfg.Observer.Broken()
	rm.sink.Deliver(bus.Message{ID: goOn, Prev: lost, Break: true, Lost: lost, Marker: marker})
	rm.at, rm.horizon, rm.told = goOn, goOn, marker
	rm.recent.add(goOn)
}

// acknowledged is called with every id that this node acknowledges to a publisher: if the log lacks it later it is lost, whether it was
// delivered or not. It reports false if the room is closed, and asks about nothing any more.
func (rm *room) acknowledged(i bus.ID) bool {
	rm.idsMu.Lock()
	defer rm.idsMu.Unlock()
	if rm.closed {
		return false
	}
	if rm.acked.Less(i) {
		rm.acked = i
	}
	if rm.floor.Less(i) {
		rm.floor = i
	}
	return true
}

// foundLocked is called with ids that the log of the server of that run was found to have: the same holds for them until there is another
// server. What that one lacks is asked about by who acknowledged it, and is no loss if nobody did. It needs room.mu, as reconnected does.
func (rm *room) foundLocked(i bus.ID, run string) {
	if run != rm.bus.server.runNow() {
		return
	}
	rm.idsMu.Lock()
	defer rm.idsMu.Unlock()
	if rm.found.Less(i) {
		rm.found = i
	}
	if rm.floor.Less(i) {
		rm.floor = i
	}
}

// forgetFoundLocked forgets what another server was found to have.
func (rm *room) forgetFoundLocked() {
	rm.idsMu.Lock()
	defer rm.idsMu.Unlock()
	rm.found = bus.ID{}
}

// lastAcked is what was acknowledged until the room is closed, as it is from here on.
func (rm *room) lastAcked() bus.ID {
	rm.idsMu.Lock()
	defer rm.idsMu.Unlock()
	rm.closed = true
	return rm.acked
}

// seen raises the floor.
func (rm *room) seen(i bus.ID) {
	rm.idsMu.Lock()
	defer rm.idsMu.Unlock()
	if rm.floor.Less(i) {
		rm.floor = i
	}
}

// appendFloor appends the floor as append.lua takes it.
func (rm *room) appendFloor(dst []byte) []byte {
	rm.idsMu.Lock()
	defer rm.idsMu.Unlock()
	if rm.floor.IsZero() {
		return dst
	}
	return rm.floor.Append(dst)
}

// owed is the greatest id that the log must have, whether it was delivered or not.
func (rm *room) owed() bus.ID {
	rm.idsMu.Lock()
	defer rm.idsMu.Unlock()
	if rm.acked.Less(rm.found) {
		return rm.found
	}
	return rm.acked
}
