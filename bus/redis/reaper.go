package redis

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A reaper takes dead incarnations out of the rooms that they were in. Every node has one, and one of them
// claims each incarnation; two at the same one would do no harm.
type reaper struct {
	bus *Bus

	mu       sync.Mutex
	suspects map[string]map[string]struct{} // guarded by mu; incarnations met in rooms: incarnation -> rooms
	alive    map[string]struct{}            // guarded by mu; those known to have a lease, as of late
}

func (p *reaper) init(r *Bus) {
	p.bus = r
	p.suspects = make(map[string]map[string]struct{})
}

// suspect is told of an incarnation met in a room.
func (p *reaper) suspect(inc, room string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.alive[inc]; !ok {
		p.accuseLocked(inc, room)
	}
}

// accuse is suspect, of an incarnation that is dead for certain.
func (p *reaper) accuse(inc, room string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accuseLocked(inc, room)
}

func (p *reaper) accuseLocked(inc, room string) {
	if p.suspects[inc] == nil {
		p.suspects[inc] = make(map[string]struct{})
	}
	p.suspects[inc][room] = struct{}{}
}

func (p *reaper) run() {
	r := p.bus
	tick := time.NewTicker(r.cfg.HeartbeatInterval / 2)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		if n%2 == 0 {
			if err := r.compareIndex(); err != nil && r.ctx.Err() == nil {
				r.complain("compare the list of rooms", err)
			}
		}
		if err := p.round(r.ctx); err != nil && r.ctx.Err() == nil {
			r.complain("look for dead nodes", err)
		}
	}
}

func (p *reaper) round(ctx context.Context) error {
	r := p.bus
	q := r.query(ctx, r.own)
	var members []*redis.Cmd
	for _, tag := range r.tags() {
		members = append(members, q.do("smembers", incarnationsKey(tag)))
	}
	if err := q.send(); err != nil {
		return err
	}
	var incs []string
	for _, m := range members {
		some, _ := m.StringSlice()
		incs = append(incs, some...)
	}
	p.mu.Lock()
	suspects := p.suspects
	p.suspects = make(map[string]map[string]struct{})
	p.mu.Unlock()
	defer func() { p.accuseAll(suspects) }() // the next round sees to those that are left
	for inc := range suspects {
		incs = append(incs, inc)
	}
	if len(incs) == 0 {
		return nil
	}
	own, _ := r.lease.current()
	q = r.query(ctx, r.own)
	leases := make([]*redis.Cmd, len(incs))
	for i, inc := range incs {
		// No lease lasts longer than a new one. By a clock that was set back it would, also that of a node that died before.
		q.do("pexpire", leaseKey(inc), r.cfg.LeaseTTL.Milliseconds(), "lt")
		leases[i] = q.do("exists", leaseKey(inc))
	}
	ours := q.do("exists", leaseKey(own)) // last: what takes all leases at once takes ours as well
	err := q.send()                       // perhaps only of leases at another primary, which is away
	if n, e := ours.Int(); e != nil {
		return cmp.Or(err, e)
	} else if n == 0 {
		return nil // they were lost, or have run out by a clock that was put forward: that says nothing of nodes
	}
	alive, dead := make(map[string]struct{}, len(incs)), make([]string, 0, len(incs))
	for i, inc := range incs {
		switch n, err := leases[i].Int(); {
		case err != nil:
		case n > 0:
			alive[inc] = struct{}{}
			delete(suspects, inc)
		default:
			dead = append(dead, inc)
		}
	}
	p.mu.Lock()
	p.alive = alive
	p.mu.Unlock()
	// After an outage all leases have run out, and their nodes deserve the time to take new ones. This is asked last: what
	// was read may have waited for the end of an outage.
	if r.lease.steadyFor() < 2*r.cfg.HeartbeatInterval {
		return nil
	}
	failed := []error{err}
	for _, inc := range dead {
		mine, err := p.claim(ctx, inc)
		if err != nil {
			return err
		}
		if !mine { // whoever reaps it need not know where it was met; in rooms that are subscribed to it is met again
			maps.DeleteFunc(suspects[inc], func(room string, _ struct{}) bool { return r.roomNamed(room) != nil })
			continue
		}
		if err := p.reap(ctx, inc, suspects[inc]); err != nil {
			failed = append(failed, err)
			continue
		}
		delete(suspects, inc)
	}
	return errors.Join(failed...)
}

// claim reports whether it is this node that is to reap an incarnation. The claim ends if it is not prolonged.
func (p *reaper) claim(ctx context.Context, inc string) (mine bool, err error) {
	r := p.bus
	q := r.query(ctx, r.own)
	set := q.do("set", claimKey(inc), "1", "nx", "px", r.claimLife().Milliseconds())
	q.do("pexpire", claimKey(inc), r.claimLife().Milliseconds(), "lt") // as with leases, above
	err = q.send()
	if err != nil && !isFull(err) { // a full Redis can't keep order among us
		return false, err
	}
	return set.Err() != redis.Nil, nil
}

func (r *Bus) claimLife() time.Duration { return 2 * r.cfg.HeartbeatInterval }

func (p *reaper) accuseAll(suspects map[string]map[string]struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for inc, rooms := range suspects {
		for room := range rooms {
			p.accuseLocked(inc, room)
		}
	}
}

// reap takes an incarnation out of the rooms that its index names, and of others that it was met in. Nothing that the
// incarnation sent can put it back: members.lua knows when its lease ended.
func (p *reaper) reap(ctx context.Context, inc string, met map[string]struct{}) error {
	r := p.bus
	rooms, err := r.readIndex(ctx, inc)
	if err != nil {
		return err
	}
	for room := range met {
		rooms = append(rooms, room)
	}
	if err := r.reapRooms(ctx, inc, rooms); err != nil {
		return err
	}
	q := r.query(ctx, r.own)
	for _, tag := range r.tags() {
		q.do("srem", incarnationsKey(tag), inc)
	}
	return q.send()
}

// reapRooms takes an incarnation out of the rooms, and them out of its index. A room where that fails keeps no other.
func (r *Bus) reapRooms(ctx context.Context, inc string, rooms []string) error {
	var failed error
	for some := range slices.Chunk(rooms, rosterBatch) {
		q := r.query(ctx, r.own)
		taken := make([]*redis.Cmd, len(some))
		for i, room := range some {
			k := r.keys(room)
			taken[i] = q.do("evalsha", r.scripts.staying, 2, k.incarnations, k.usersOf(inc), k.channel, inc, "x", 0, 0,
				r.cfg.presenceLife.Milliseconds(), 0)
		}
		err := q.send()
		done := []any{"srem", roomsOfKey(inc)}
		for i, room := range some {
			if _, err := taken[i].Int64(); err == nil {
				done = append(done, room)
			}
		}
		if failed = cmp.Or(failed, err); len(done) == 2 {
			return failed // nothing works
		}
		q = r.query(ctx, r.own)
		q.do(done...)
		q.do("pexpire", claimKey(inc), r.claimLife().Milliseconds())
		if err := q.send(); err != nil {
			return err
		}
	}
	return failed
}
