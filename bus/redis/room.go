package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/bus"
)

// A room is a subscription: it hands the room's chain to its sink, unbroken, or says where it is broken.
//
// It is joining until its first read, then live. When an entry does not follow the last one that was delivered, or entries
// may have been missed, it is repairing: it holds what arrives until it has read the log (repair.go).
type room struct {
	bus    *Bus
	name   string
	keys   *roomKeys
	sink   bus.Sink
	link   *link
	roster *roster
	last   bus.ID        // set before ready is closed
	ready  chan struct{} // closed when the room is live for the first time
	denied chan error    // capacity 1: the server refused the subscription

	// mu is held while the sink is called. So nobody waits for mu who holds a lock that a sink may take. roster.mu and idsMu come
	// after it.
	mu             sync.Mutex
	state          roomState     // guarded by mu, as is all of this
	at             bus.ID        // where the chain has got to: the last entry delivered, or known when we came
	recent         recentIDs     // the last entries delivered
	horizon        bus.ID        // entries up to this one were read from the log: they may still arrive
	held           []bus.Message // what arrived while repairing
	heldSize       int
	dropped        bool           // more arrived than could be held
	repaired       int            // entries delivered from the log that did not arrive, so far
	mending        bool           // the link is to find out what the log has lost; the log is read after that
	asked          bool           // the question was sent
	question       uint64         // its number
	mendRefused    bool           // that one was answered with an error: the next waits
	mendTimer      *time.Timer    // has the link ask later; nil before it was needed
	sure           bus.ID         // the entry that the answer says is in the log, or was trimmed away
	marker         bus.ID         // of a break that is to be told with the next read
	told           bus.ID         // the marker of a break that was told before it came by
	newest         bus.ID         // the marker of the newest break that is known
	run            string         // the server's of which the room knows this
	trail          *trail         // what was known of the room before it was subscribed to, while it is joining
	reads          uint64         // how often a read of the log began
	waiters        []*waiter      // in Sync
	heldChanges    []rosterChange // what arrived while the roster was being read
	changesDropped bool           // more arrived than could be held
	isConfirmed    bool           // the server confirmed the subscription once, so that a read makes sense
	isReady        bool           // ready is closed
	rosterStale    bool           // changes of the roster may have been missed: it is to be read
	repair         repairState    // whether the log is being read
	rosterRepair   repairState    // whether the roster is

	idsMu    sync.Mutex // a leaf: nothing is called under it
	head     *head      // guarded by idsMu; the next read of the newest id
	headSent bool       // guarded by idsMu; one is under way
	acked    bus.ID     // guarded by idsMu; the greatest id acknowledged here that may not have been delivered yet
	found    bus.ID     // guarded by idsMu; the greatest id that the log of this server was found to have, the same
	floor    bus.ID     // guarded by idsMu; the greatest id ever seen
	closed   bool       // guarded by idsMu; what is acknowledged is noted at the room's trail

	ended      atomic.Bool // as state says
	reconciled reconciled  // owned by reconcileLoop
}

type roomState byte

const (
	joining roomState = iota
	live
	repairing
	over
)

var errSubscribed = errors.New("subscribed already")

// Subscribe implements bus.Bus.
func (r *Bus) Subscribe(ctx context.Context, name string, sink bus.Sink) (bus.Subscription, error) {
	rm, err := r.begin(name, sink)
	if err != nil {
		return nil, err
	}
	if err := rm.join(ctx, rm.Close); err != nil {
		return nil, err
	}
	return rm, nil
}

// begin has a room join.
func (r *Bus) begin(name string, sink bus.Sink) (*room, error) {
	rm := &room{bus: r, name: name, keys: keysOf(r.db, name), sink: sink, ready: make(chan struct{}), denied: make(chan error, 1), rosterStale: true}
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
	rm.trail = r.trails.take(name)
	ask := rm.trail != nil
	rm.mending = ask
	r.rooms[name] = rm
	r.turns.add(rm)
	rm.roster = r.rosterLocked(rm)
	r.mu.Unlock()
	rm.link.enter(rm, ask)
	return rm, nil
}

// join waits until the room is live. If it does not come to that, the room is closed by giveUp.
func (rm *room) join(ctx context.Context, giveUp func()) error {
	select {
	case <-rm.ready:
		return nil
	case err := <-rm.denied:
		giveUp()
		return unavailable(fmt.Errorf("subscribe to %s: %w", rm.name, err))
	case <-ctx.Done():
		giveUp()
		return unavailable(fmt.Errorf("subscribe to %s: %w", rm.name, context.Cause(ctx)))
	case <-rm.bus.ctx.Done():
		giveUp()
		return bus.ErrClosed
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
	rm.ended.Store(true)
	rm.takeHeldLocked()
	rm.takeHeldChangesLocked()
	rm.releaseWaitersLocked(func(*waiter) bool { return true })
	tr := rm.trail
	if before != joining {
		tr = rm.trailLocked()
		tr.known = slices.Clone(tr.known[:min(trailKnown, len(tr.known))])
	}
	if tr != nil { // what the log has lost since it was last compared shows only if it is asked about once more
		tr.again = true
	}
	rm.mu.Unlock()
	if before == over {
		return
	}
	rm.link.subscriber.unwant(rm)
	rm.roster.leaveAll()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rooms, rm.name)
	acked := rm.lastAcked() // with r.mu held: who then looks for the room finds no closed one
	if tr != nil {
		r.trails.leave(tr)
	}
	if !acked.IsZero() {
		r.trails.acknowledged(rm.keys, acked, r.server.runNow())
	}
}

// confirmed is called when the server confirmed the subscription. What was published before it may have been missed.
func (rm *room) confirmed() {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.state == over {
		return
	}
	rm.rosterStale, rm.isConfirmed = true, true
	if rm.state == live {
		rm.state = repairing
	}
	// What is being read may be older than the subscription.
	if rm.readSoonLocked() {
		rm.dropped = true
	}
	if rm.readRosterSoonLocked() {
		rm.changesDropped = true
	}
}

// refused is called when the server refused the subscription. A room that is live goes on: what it misses is found when it is
// compared with Redis.
func (rm *room) refused(why error) {
	select {
	case rm.denied <- why:
	default:
	}
}

// receive takes what was published on the room's channel. It runs on the link's only reader.
func (rm *room) receive(payload string) {
	if payload == "" {
		return
	}
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
	case 'w':
		if c, err := parseRosterChange(rest); err == nil {
			rm.rosterChangedLocked(c)
		}
	case 'n':
		if users, err := parseUsers(rest); err == nil {
			rm.roster.learn(users)
		}
	}
}
