// Package memory is a bus in the memory of one process, for a node alone.
package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/bus"
)

// A Store keeps rooms. The handles that Open gives are the nodes of a cluster inside the process.
//
// Publish, Signal, Enter, Leave and Close call the sinks themselves, those of all handles. So their callers hold no lock that a
// sink takes.
type Store struct {
	retention bus.Retention
	now       func() time.Time

	mu      sync.RWMutex
	rooms   map[string]*room // guarded by mu
	handles int              // guarded by mu; those open
	sweeper *time.Timer      // guarded by mu; nil while no handle is open

	board board
}

// sweepEvery is how often rooms that nobody uses are checked for what has expired.
const sweepEvery = time.Minute

// New makes an empty store. Closing its handles is all the closing it needs.
func New(r bus.Retention) *Store {
	return &Store{retention: r.WithDefaults(), now: time.Now, rooms: make(map[string]*room)}
}

// Open gives a handle: one more node.
func (m *Store) Open(o bus.Observer) bus.Bus {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.handles++; m.handles == 1 {
		m.sweeper = time.AfterFunc(sweepEvery, m.sweep)
	}
	return &Bus{shared: m, observer: o, subs: make(map[string]*subscription)}
}

func (m *Store) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.handles--; m.handles == 0 {
		m.sweeper.Stop()
		m.sweeper = nil
	}
}

// sweep drops what has expired in rooms that nobody uses. Using a room does that for it.
func (m *Store) sweep() {
	m.mu.RLock()
	names := slices.Collect(maps.Keys(m.rooms))
	m.mu.RUnlock()
	for _, name := range names {
		m.forget(name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sweeper != nil {
		m.sweeper.Reset(sweepEvery)
	}
}

// forget drops what has expired in a room, and the room itself if nothing is left.
func (m *Store) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rooms[name]
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := m.now()
	r.expireLocked(now)
	if r.unusedLocked(now) {
		r.forgotten = true
		delete(m.rooms, name)
	}
}

// lock gives a room, locked. It makes the room where there is none.
func (m *Store) lock(name string) *room {
	for {
		m.mu.RLock()
		r := m.rooms[name]
		m.mu.RUnlock()
		if r == nil {
			r = m.create(name)
		}
		r.mu.Lock()
		if !r.forgotten {
			return r
		}
		r.mu.Unlock()
	}
}

func (m *Store) create(name string) *room {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rooms[name]
	if r == nil {
		r = newRoom(m.retention, m.now())
		m.rooms[name] = r
	}
	return r
}

// lookUp gives a room, locked, or nil where there is none.
func (m *Store) lookUp(name string) *room {
	m.mu.RLock()
	r := m.rooms[name]
	m.mu.RUnlock()
	if r == nil {
		return nil
	}
	r.mu.Lock() // one that was just forgotten is as good as none
	return r
}

// A Bus is a handle on a Store: one node.
type Bus struct {
	shared   *Store
	observer bus.Observer
	closed   atomic.Bool

	mu   sync.Mutex
	subs map[string]*subscription // guarded by mu; nil once closed
}

func (b *Bus) Publish(room string, d bus.Draft, done func(bus.ID, error)) {
	if b.closed.Load() {
		b.observer.Published(0, bus.ErrClosed)
		done(bus.ID{}, bus.ErrClosed)
		return
	}
	now := b.shared.now()
	b.publishAndUnlock(b.shared.lock(room), d, now, done)
}

// publishAndUnlock publishes into a room that is locked, and unlocks it. Where nobody else calls the sinks, they are told before
// the outcome is.
func (b *Bus) publishAndUnlock(r *room, d bus.Draft, began time.Time, done func(bus.ID, error)) {
	id, err := r.appendLocked(d, began)
	mine := r.unlock()
	b.observer.Published(b.shared.now().Sub(began), err)
	if mine {
		r.deliver()
	}
	done(id, err)
}

func (b *Bus) Signal(room string, body []byte, done func(error)) {
	if b.closed.Load() {
		done(bus.ErrClosed)
		return
	}
	r := b.shared.lookUp(room)
	if r == nil {
		done(nil) // there is nobody to be told
		return
	}
	r.signalAndUnlock(body, done)
}

func (b *Bus) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs == nil {
		return nil, bus.ErrClosed
	}
	if b.subs[room] != nil {
		return nil, fmt.Errorf("subscribe to %s: subscribed already", room)
	}
	r := b.shared.lock(room)
	defer r.mu.Unlock()
	s := &subscription{bus: b, name: room, room: r, sink: sink, last: r.last}
	r.addLocked(s)
	b.subs[room] = s
	return s, nil
}

func (b *Bus) After(ctx context.Context, room string, since bus.ID, limit, bytes int) (bus.Page, error) {
	if err := b.readable(ctx); err != nil {
		return bus.Page{}, err
	}
	r := b.shared.lookUp(room)
	if r == nil {
		return bus.Page{Complete: since.IsZero()}, nil
	}
	defer r.mu.Unlock()
	r.expireLocked(b.shared.now())
	return r.afterLocked(since, limit, bytes), nil
}

func (b *Bus) Before(ctx context.Context, room string, before bus.ID, limit, bytes int) (bus.Page, error) {
	if err := b.readable(ctx); err != nil {
		return bus.Page{}, err
	}
	r := b.shared.lookUp(room)
	if r == nil {
		return bus.Page{}, nil
	}
	defer r.mu.Unlock()
	r.expireLocked(b.shared.now())
	return r.beforeLocked(before, limit, bytes), nil
}

func (b *Bus) Roster(ctx context.Context, room string) (bus.Roster, error) {
	if err := b.readable(ctx); err != nil {
		return bus.Roster{}, err
	}
	r := b.shared.lookUp(room)
	if r == nil {
		return bus.Roster{}, nil
	}
	defer r.mu.Unlock()
	return r.rosterLocked(), nil
}

func (b *Bus) readable(ctx context.Context) error {
	if b.closed.Load() {
		return bus.ErrClosed
	}
	return ctx.Err()
}

func (b *Bus) Ready() error {
	if b.closed.Load() {
		return bus.ErrClosed
	}
	return nil
}

func (b *Bus) HeartbeatAge() time.Duration { return 0 }

func (b *Bus) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.mu.Lock()
	subs := b.subs
	b.subs = nil
	b.mu.Unlock()
	for _, s := range subs {
		s.Close()
	}
	b.shared.release()
	return nil
}

// subscription is a room handed to a sink of one handle.
type subscription struct {
	bus  *Bus
	name string
	room *room
	sink bus.Sink
	last bus.ID

	closed  atomic.Bool         // set with room.mu held
	entered map[string]struct{} // guarded by room.mu; the users who entered here
}

func (s *subscription) Last() bus.ID { return s.last }

func (s *subscription) Publish(d bus.Draft, done func(bus.ID, error)) {
	now := s.bus.shared.now()
	s.room.mu.Lock()
	if s.closed.Load() { // the room may be forgotten, and another have its name
		s.room.mu.Unlock()
		s.bus.Publish(s.name, d, done)
		return
	}
	s.bus.publishAndUnlock(s.room, d, now, done)
}

func (s *subscription) Signal(body []byte, done func(error)) {
	s.room.mu.Lock()
	if s.closed.Load() {
		s.room.mu.Unlock()
		s.bus.Signal(s.name, body, done)
		return
	}
	s.room.signalAndUnlock(body, done)
}

func (s *subscription) Sync(ctx context.Context) error {
	if !s.room.awaitTold(ctx) {
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	if s.closed.Load() {
		return bus.ErrClosed
	}
	return nil
}

func (s *subscription) Enter(m bus.Member) {
	s.room.mu.Lock()
	if !s.closed.Load() {
		s.room.enterLocked(s, m)
	}
	s.room.unlockAndDeliver()
}

func (s *subscription) Leave(user string) {
	s.room.mu.Lock()
	s.room.leaveLocked(s, user)
	s.room.unlockAndDeliver()
}

func (s *subscription) Roster() bus.Roster {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	return s.room.rosterLocked()
}

func (s *subscription) Close() {
	s.room.mu.Lock()
	first := !s.closed.Swap(true)
	if first {
		s.room.removeLocked(s)
	}
	round := s.room.round
	s.room.unlockAndDeliver()
	s.room.awaitRound(round)
	if !first {
		return
	}
	s.bus.mu.Lock()
	delete(s.bus.subs, s.name)
	s.bus.mu.Unlock()
	s.bus.shared.forget(s.name)
}
