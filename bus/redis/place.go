package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"parley/bus"
)

// A place is where a room of a Cluster is: at the part that has its slot. All that is published in the room goes there, in order, also
// when the room moves.
type place struct {
	cluster *Cluster
	keys    *roomKeys
	slot    int
	uses    int // guarded by Cluster.placesMu; the subscription, what is being published, and the move

	mu     sync.RWMutex  // nobody holds it who takes a room's mu, or calls a function of a caller's
	shard  *Bus          // guarded by mu; nil if no primary has the slot
	sub    *room         // guarded by mu; nil if the room is not subscribed to
	of     *placed       // guarded by mu; the subscription whose sub is
	moving chan struct{} // guarded by mu; while the room moves: closed once it has; until then nobody subscribes
}

var errNoPrimary = errors.New("no primary has its slot")

// use gives a room's place, which stays until it is released as often.
func (c *Cluster) use(name string) *place {
	c.placesMu.Lock()
	defer c.placesMu.Unlock()
	p := c.places[name]
	if p == nil {
		k := keysOf(0, name)
		p = &place{cluster: c, keys: k, slot: slotOf(k.log)}
		p.shard = c.ownerOf(p.slot)
		c.places[name] = p
	}
	p.uses++
	return p
}

func (c *Cluster) release(p *place) {
	c.placesMu.Lock()
	defer c.placesMu.Unlock()
	if p.uses--; p.uses == 0 {
		delete(c.places, p.keys.room)
	}
}

// Publish implements bus.Bus.
func (c *Cluster) Publish(room string, d bus.Draft, done func(bus.ID, error)) {
	p := c.use(room)
	p.add(newMessageOp(nil, p.keys, d, func(i bus.ID, err error) {
		c.release(p)
		done(i, err)
	}))
}

// Signal implements bus.Bus.
func (c *Cluster) Signal(room string, body []byte, done func(error)) {
	p := c.use(room)
	p.add(newSignalOp(p.keys, body, func(err error) {
		c.release(p)
		done(err)
	}))
}

// add queues an op where the room is.
func (p *place) add(o *op) {
	p.mu.RLock()
	shard := p.shard
	if shard == nil {
		p.mu.RUnlock()
		err := unavailable(errNoPrimary)
		if o.channel != "" {
			o.told(err)
		} else {
			o.done(bus.ID{}, err)
		}
		return
	}
	if o.channel == "" {
		o.room = p.sub
	}
	publisher := &shard.linkOf(p.keys.room).publisher
	err := publisher.enqueue(o)
	p.mu.RUnlock()
	if err != nil {
		publisher.tell(o, bus.ID{}, err)
	}
}

// moveRooms begins to move the rooms that are not where their slots are. It tells which parts have rooms still.
func (c *Cluster) moveRooms() map[*Bus]bool {
	inUse := make(map[*Bus]bool)
	c.placesMu.Lock()
	defer c.placesMu.Unlock()
	for _, p := range c.places {
		p.move(c.ownerOf(p.slot))
		p.mu.RLock()
		inUse[p.shard] = true
		p.mu.RUnlock()
	}
	return inUse
}

// move begins to move the room, if it is elsewhere. It needs Cluster.placesMu.
func (p *place) move(to *Bus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case to == nil || p.shard == to:
	case p.shard == nil:
		p.shard = to
	default:
		p.moveLocked()
	}
}

func (p *place) moveLocked() {
	if p.moving == nil {
		p.uses++ // a place that comes after it would know nothing of the move
		p.moving = make(chan struct{})
		p.shard.linkOf(p.keys.room).publisher.move(p.keys.room, p.moved)
	}
}

// moved moves the room: none of what was published in it is under way.
func (p *place) moved() {
	defer p.cluster.release(p)
	p.mu.RLock()
	from, old := p.shard, p.sub
	p.mu.RUnlock()
	var next *room
	if old != nil {
		next = old.leave()
	}
	to := p.cluster.ownerOf(p.slot)
	p.mu.Lock()
	p.shard = to
	left := next != nil && p.sub != old // it was closed meanwhile
	if left {
		next.sink = noSink{}
	}
	if next != nil {
		to.arrive(next, old)
		if !left {
			p.sub = next
		}
	}
	ops := from.linkOf(p.keys.room).publisher.take(p.keys.room)
	for _, o := range ops {
		if o.room = nil; o.channel == "" {
			o.room = p.sub
		}
	}
	there := &to.linkOf(p.keys.room).publisher
	given := there.give(ops)
	p.mu.Unlock()
	if !given {
		for _, o := range ops {
			there.tell(o, bus.ID{}, bus.ErrClosed)
		}
	}
	if left {
		next.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.moving)
	p.moving = nil
}

type noSink struct{}

func (noSink) Deliver(bus.Message) {}
func (noSink) Signal([]byte)       {}
func (noSink) Presence(bus.Change) {}

// A placed is a subscription of a Cluster.
type placed struct {
	*place
	last bus.ID
	over sync.Once
}

// Subscribe implements bus.Bus.
func (c *Cluster) Subscribe(ctx context.Context, name string, sink bus.Sink) (bus.Subscription, error) {
	c.mu.RLock()
	closed := c.closed
	c.mu.RUnlock()
	if closed {
		return nil, bus.ErrClosed
	}
	s := &placed{place: c.use(name)}
	rm, err := s.begin(ctx, sink)
	if err != nil {
		c.release(s.place)
		return nil, err
	}
	for {
		err := rm.join(ctx, func() {})
		if now := s.current(); err != nil && errors.Is(err, bus.ErrClosed) && now != rm {
			rm = now // the part that it was at is closed
			continue
		}
		if err != nil {
			s.Close()
			return nil, err
		}
		break
	}
	s.last = s.current().Last()
	return s, nil
}

// begin has the room join where it is, once it does not move.
func (s *placed) begin(ctx context.Context, sink bus.Sink) (rm *room, err error) {
	p := s.place
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.sub == nil && p.moving != nil {
		moving := p.moving
		p.mu.Unlock()
		err := await(ctx, moving)
		if p.mu.Lock(); err != nil {
			return nil, unavailable(fmt.Errorf("subscribe to %s: %w", p.keys.room, err))
		}
	}
	switch {
	case p.sub != nil:
		return nil, fmt.Errorf("subscribe to %s: %w", p.keys.room, errSubscribed)
	case p.shard == nil:
		return nil, unavailable(fmt.Errorf("subscribe to %s: %w", p.keys.room, errNoPrimary))
	}
	if rm, err = p.shard.begin(p.keys.room, sink); err == nil {
		p.sub, p.of = rm, s
	}
	return rm, err
}

func await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// current is the room, nil once the subscription is closed: there may be another by then.
func (s *placed) current() *room {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.currentLocked()
}

func (s *placed) currentLocked() *room {
	if s.of != s {
		return nil
	}
	return s.sub
}

// Last implements bus.Subscription.
func (s *placed) Last() bus.ID { return s.last }

// Publish implements bus.Subscription.
func (s *placed) Publish(d bus.Draft, done func(bus.ID, error)) {
	s.cluster.Publish(s.keys.room, d, done)
}

// Signal implements bus.Subscription.
func (s *placed) Signal(body []byte, done func(error)) { s.cluster.Signal(s.keys.room, body, done) }

// Enter implements bus.Subscription.
func (s *placed) Enter(m bus.Member) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if rm := s.currentLocked(); rm != nil {
		rm.Enter(m)
	}
}

// Leave implements bus.Subscription.
func (s *placed) Leave(user string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if rm := s.currentLocked(); rm != nil {
		rm.Leave(user)
	}
}

// Roster implements bus.Subscription.
func (s *placed) Roster() bus.Roster {
	rm := s.current()
	if rm == nil {
		return bus.Roster{}
	}
	return rm.Roster()
}

// Sync implements bus.Subscription.
func (s *placed) Sync(ctx context.Context) error {
	for {
		rm := s.current()
		if rm == nil {
			return bus.ErrClosed
		}
		err := rm.Sync(ctx)
		s.mu.RLock()
		now, moving := s.currentLocked(), s.moving
		s.mu.RUnlock()
		switch {
		case moving != nil && errors.Is(err, bus.ErrClosed): // it is over where it was
			if err := await(ctx, moving); err != nil {
				return unavailable(err)
			}
		case now == rm:
			return err
		case ctx.Err() != nil:
			return unavailable(context.Cause(ctx))
		}
	}
}

// Close implements bus.Subscription.
func (s *placed) Close() {
	s.over.Do(func() {
		s.mu.Lock()
		rm := s.currentLocked()
		s.sub, s.of = nil, nil
		s.mu.Unlock()
		if rm != nil {
			rm.Close()
		}
		s.cluster.release(s.place)
	})
}

// at is the part that has a room.
func (c *Cluster) at(room string) (*Bus, error) {
	k := keysOf(0, room)
	if s := c.ownerOf(slotOf(k.log)); s != nil {
		return s, nil
	}
	return nil, unavailable(errNoPrimary)
}

// After implements bus.Bus.
func (c *Cluster) After(ctx context.Context, room string, since bus.ID, limit, bytes int) (bus.Page, error) {
	s, err := c.at(room)
	if err != nil {
		return bus.Page{}, err
	}
	return s.After(ctx, room, since, limit, bytes)
}

// Before implements bus.Bus.
func (c *Cluster) Before(ctx context.Context, room string, before bus.ID, limit, bytes int) (bus.Page, error) {
	s, err := c.at(room)
	if err != nil {
		return bus.Page{}, err
	}
	return s.Before(ctx, room, before, limit, bytes)
}

// Roster implements bus.Bus.
func (c *Cluster) Roster(ctx context.Context, room string) (bus.Roster, error) {
	s, err := c.at(room)
	if err != nil {
		return bus.Roster{}, err
	}
	return s.Roster(ctx, room)
}
