package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"parley/bus"
	"parley/bus/id"
)

// A room is a subscription: it hands the room's chain to its sink, unbroken, or says where it is broken.
//
// It is joining until its first read, then live. As soon as an entry does not follow the last one that was delivered, or
// entries may have passed us by, it is repairing: what arrives is held until the log was read (repair.go).
type room struct {
	bus    *Bus
	name   string
	keys   *roomKeys
	sink   bus.Sink
	link   *link
	roster *roster
	last   bus.ID        // set before ready is closed
	ready  chan struct{} // closed when the room is live for the first time

	// mu is held while the sink is called. It may be waited for where no lock that the sink could take is held.
	mu              sync.Mutex
	state           roomState     // guarded by mu, as is all of this
	at              bus.ID        // where the chain has got to: the last entry delivered, or known when we came
	recent          [16]bus.ID    // the last entries delivered, in a ring; a marker of our own break is none
	recents         int           // how many were ever put there
	horizon         bus.ID        // entries up to this one were read from the log: they may still arrive
	kept            bus.ID        // an entry that is known to be in the log
	held            []bus.Message // what arrived while repairing
	heldSize        int
	dropped         bool // more arrived than could be held
	repaired        int  // entries delivered from the log that did not arrive, so far
	broken          bool // what followed at is lost; to be told with the next read
	owes            bool // a break after owing was told before its marker came by, which is passed over then
	owing           bus.ID
	passed          bool // that was the last entry: to the sink, the next one follows the one before it
	before          bus.ID
	heldChanges     []rosterChange // what arrived while the roster was being read
	isConfirmed     bool           // the server confirmed the subscription once, so that a read makes sense
	rosterUnchecked bool           // changes of the roster may have been missed: its version is to be read
	rosterStale     bool           // changes of the roster were missed: it is to be read anew
	repair          repairState    // whether it is being read

	idsMu sync.Mutex // a leaf: nothing is called under it
	acked bus.ID     // guarded by idsMu; the greatest id acknowledged here that may not have been delivered yet
	floor bus.ID     // guarded by idsMu; the greatest id ever seen

	touched    atomic.Bool // something happened since the last comparison
	reconciled reconciled  // owned by reconcileLoop
}

type roomState byte

const (
	joining roomState = iota
	live
	repairing
	over
)

const (
	heldMax      = 1024
	heldSizeMax  = 1 << 20
	heldOverhead = 100
)

var errSubscribed = errors.New("subscribed already")

// Subscribe implements bus.Bus.
func (r *Bus) Subscribe(ctx context.Context, name string, sink bus.Sink) (bus.Subscription, error) {
	rm := &room{bus: r, name: name, keys: keysOf(r.db, name), sink: sink, ready: make(chan struct{})}
	rm.link = r.linkOf(name)
	r.mu.Lock()
	switch {
	case r.closed.Load():
		r.mu.Unlock()
		return nil, bus.ErrClosed
	case r.rooms[name] != nil:
		r.mu.Unlock()
		return nil, fmt.Errorf("subscribe to %s: %w", name, errSubscribed)
	}
	r.rooms[name] = rm
	rm.roster = r.rosterLocked(rm.keys)
	r.mu.Unlock()
	rm.link.subscriber.want(rm)
	select {
	case <-rm.ready:
		return rm, nil
	case <-ctx.Done():
		rm.Close()
		return nil, unavailable(fmt.Errorf("subscribe to %s: %w", name, context.Cause(ctx)))
	case <-r.ctx.Done():
		rm.Close()
		return nil, bus.ErrClosed
	}
}

// keys gives a room's keys.
func (r *Bus) keys(room string) *roomKeys {
	if rm := r.roomNamed(room); rm != nil {
		return rm.keys
	}
	return keysOf(r.db, room)
}

func (r *Bus) roomNamed(room string) *room {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.rooms[room]
}

// Last implements bus.Subscription.
func (rm *room) Last() bus.ID { return rm.last }

// Close implements bus.Subscription.
func (rm *room) Close() {
	r := rm.bus
	rm.mu.Lock()
	before := rm.state
	rm.state = over
	rm.held, rm.heldChanges = nil, nil
	rm.mu.Unlock()
	if before == over {
		return
	}
	rm.link.subscriber.unwant(rm)
	rm.roster.leaveAll()
	r.mu.Lock()
	delete(r.rooms, rm.name)
	r.mu.Unlock()
}

// confirmed is told when the server confirmed the subscription. What was published before may have passed us by.
func (rm *room) confirmed() {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.state == over {
		return
	}
	rm.rosterUnchecked, rm.isConfirmed = true, true
	if rm.state == live {
		rm.state = repairing
	}
	if rm.readSoonLocked() {
		rm.dropped = true // what is being read may be older than the subscription
	}
}

// receive takes what was published on the room's channel. It runs on the link's only reader.
func (rm *room) receive(payload string) {
	if payload == "" {
		return
	}
	rm.touched.Store(true)
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.state == over {
		return
	}
	switch rest := payload[1:]; payload[0] {
	case 'm', 'g':
		if m, err := parsePublished(payload[0], rest); err == nil {
			rm.arrivedLocked(m)
		}
	case 's':
		if rm.state != joining {
			rm.sink.Signal(stringAsBytes(rest))
		}
	case 'p':
		if c, err := parseRosterChange(rest); err == nil {
			rm.rosterChangedLocked(c)
		}
	}
}

// arrivedLocked takes an entry that was published.
func (rm *room) arrivedLocked(m bus.Message) {
	switch {
	case rm.state != live:
		rm.holdLocked(m)
	case m.Prev == rm.at:
		rm.deliverLocked(m)
	case rm.horizon.Less(m.ID):
		rm.holdLocked(m)
		rm.repairNowLocked()
	}
}

// repairNowLocked has the room read the log.
func (rm *room) repairNowLocked() {
	rm.state = repairing
	rm.readSoonLocked()
}

// holdLocked keeps what arrived until the log was read. What is too much is dropped, and read from the log after all.
func (rm *room) holdLocked(m bus.Message) {
	rm.heldSize += heldOverhead + len(m.Body)
	if len(rm.held) == heldMax || rm.heldSize > heldSizeMax {
		rm.held, rm.heldSize, rm.dropped = nil, 0, true
		return
	}
	rm.held = append(rm.held, m)
}

// releaseLocked goes on with what was held, and reports whether the chain is unbroken so far.
func (rm *room) releaseLocked() bool {
	held := rm.held
	rm.held, rm.heldSize = nil, 0
	whole := !rm.dropped
	rm.dropped = false
	for _, m := range held {
		switch {
		case m.Prev == rm.at:
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
	rm.rememberLocked(m.ID)
	rm.seen(m.ID)
	switch {
	case m.Break && rm.owes && m.Lost == rm.owing:
		rm.owes, rm.passed, rm.before = false, true, m.Prev
		return
	case m.Break:
		rm.bus.cfg.Observer.Broken()
	case rm.passed:
		m.Prev = rm.before
	}
	rm.passed = false
	rm.sink.Deliver(m)
}

// breakAtLocked tells the sink that what followed lost is lost, and goes on from there.
func (rm *room) breakAtLocked(lost, goOn bus.ID) {
	rm.bus.cfg.Observer.Broken()
	rm.sink.Deliver(bus.Message{ID: goOn, Prev: lost, Break: true, Lost: lost})
	rm.at, rm.horizon = goOn, goOn
	rm.rememberLocked(goOn)
}

// rememberLocked puts an entry among those that were delivered lately.
func (rm *room) rememberLocked(i bus.ID) {
	rm.recent[rm.recents%len(rm.recent)] = i
	rm.recents++
}

// oldestRememberedLocked is the zero ID where nothing is.
func (rm *room) oldestRememberedLocked() bus.ID {
	if rm.recents <= len(rm.recent) {
		return rm.recent[0]
	}
	return rm.recent[rm.recents%len(rm.recent)]
}

// deliveredLocked reports whether the entry was delivered lately, as far as is remembered.
func (rm *room) deliveredLocked(i bus.ID) bool {
	return slices.Contains(rm.recent[:min(rm.recents, len(rm.recent))], i)
}

// acknowledged is told of every id that a publisher here was given.
func (rm *room) acknowledged(i bus.ID) {
	rm.idsMu.Lock()
	defer rm.idsMu.Unlock()
	if rm.acked.Less(i) {
		rm.acked = i
	}
	if rm.floor.Less(i) {
		rm.floor = i
	}
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

func (rm *room) ackedID() bus.ID {
	rm.idsMu.Lock()
	defer rm.idsMu.Unlock()
	return rm.acked
}

// forgive forgets that an id was acknowledged: its loss was told.
func (rm *room) forgive(i bus.ID) {
	rm.idsMu.Lock()
	defer rm.idsMu.Unlock()
	if rm.acked == i {
		rm.acked = bus.ID{}
	}
}

var errEntry = errors.New("not an entry of a log")

// parsePublished reads "id prev body", or of a marker "id prev lost".
func parsePublished(kind byte, s string) (bus.Message, error) {
	first, rest, ok := strings.Cut(s, " ")
	i, err := id.Parse(first)
	if !ok || err != nil {
		return bus.Message{}, errEntry
	}
	return parseEntry(i, kind, rest)
}

// parseEntry reads "prev body", or of a marker "prev lost".
func parseEntry(i bus.ID, kind byte, s string) (bus.Message, error) {
	first, rest, ok := strings.Cut(s, " ")
	prev, err := id.Parse(first)
	if !ok || err != nil {
		return bus.Message{}, errEntry
	}
	m := bus.Message{ID: i, Prev: prev}
	if kind == 'm' {
		m.Body = stringAsBytes(rest)
		return m, nil
	}
	m.Break = true
	m.Lost, err = id.Parse(rest)
	return m, err
}
