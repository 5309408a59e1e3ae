package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A lease says that a node lives. Who is in a room through a node is so under the lease's incarnation: once the lease has
// run out, anyone may take an incarnation out of its rooms. A node that finds its lease gone, or can't tell, takes a new
// incarnation and enters everyone under that.
type lease struct {
	bus *Bus

	mu      sync.Mutex
	inc     string    // guarded by mu
	renewed time.Time // guarded by mu; when the last renewal that succeeded was sent
	steady  time.Time // guarded by mu; since when it never ran out
	cause   error     // guarded by mu; why it is not renewed
}

func (l *lease) init(r *Bus) { l.bus = r }

// current is the incarnation to act under. It is not valid if the lease may have run out.
func (l *lease) current() (inc string, valid bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inc, time.Since(l.renewed) < l.bus.cfg.LeaseTTL
}

// age is how long ago Redis last took a renewal, and why it takes none.
func (l *lease) age() (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cause := l.cause
	if cause == nil {
		cause = errors.New("no answer")
	}
	return time.Since(l.renewed), cause
}

// steadyFor is how long this node has held a lease, as far as it knows.
func (l *lease) steadyFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.renewed) >= l.bus.cfg.LeaseTTL {
		return 0
	}
	return time.Since(l.steady)
}

func (r *Bus) leaseLoop() {
	next := r.cfg.HeartbeatInterval
	for {
		select {
		case <-time.After(next):
		case <-r.ctx.Done():
			return
		}
		next = r.cfg.HeartbeatInterval
		if err := r.lease.renew(r.ctx); err != nil && r.ctx.Err() == nil {
			r.complain("renew the lease", err)
			next /= 4
		}
	}
}

// renew prolongs the lease, or takes a new one.
func (l *lease) renew(ctx context.Context) (err error) {
	defer func() {
		l.mu.Lock()
		l.cause = err
		l.mu.Unlock()
	}()
	inc, valid := l.current()
	if !valid {
		return l.take(ctx)
	}
	sent := time.Now()
	err = l.write(ctx, inc, "xx")
	if err == redis.Nil {
		return l.take(ctx)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if sent.Sub(l.renewed) < l.bus.cfg.LeaseTTL { // otherwise it may be taken for dead already
		l.renewed = sent
	}
	return nil
}

// take begins a new incarnation.
func (l *lease) take(ctx context.Context) error {
	inc, sent := randomName(), time.Now()
	if err := l.write(ctx, inc, "nx"); err != nil {
		return err
	}
	l.mu.Lock()
	l.inc, l.renewed, l.steady = inc, sent, sent
	l.mu.Unlock()
	r := l.bus
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, ro := range r.rosters {
		ro.renew()
	}
	return nil
}

// write sets the lease on a condition ("nx", "xx"), keeps alive what finds it, and reads the server's clock. redis.Nil says
// that the condition failed.
func (l *lease) write(ctx context.Context, inc, condition string) error {
	q := l.bus.query(ctx, l.bus.own)
	set := q.do("set", leaseKey(inc), "1", condition, "px", l.bus.cfg.LeaseTTL.Milliseconds())
	q.do("sadd", incarnationsKey, inc)
	q.do("pexpire", incarnationsKey, presenceLife.Milliseconds())
	q.do("pexpire", roomsOfKey(inc), presenceLife.Milliseconds())
	clock := redis.NewTimeCmd(ctx, "time")
	q.cmds = append(q.cmds, clock)
	if err := q.send(); err != nil {
		return err
	}
	l.bus.skew.Store(int64(time.Until(clock.Val())))
	return set.Err()
}

// A reaper takes dead incarnations out of the rooms that they were in. Every node does; doing it twice does no harm.
type reaper struct {
	bus *Bus

	mu       sync.Mutex
	suspects map[string]map[string]struct{} // guarded by mu; incarnations met in rooms: incarnation -> rooms
	alive    map[string]struct{}            // guarded by mu; those known to have a lease, as of late

	dead map[string]time.Time // owned by run: when an incarnation was found dead
}

// reapFor is how long a dead incarnation is looked after, since what it sent may arrive late.
const reapFor = 2 * time.Minute

func (p *reaper) init(r *Bus) {
	p.bus = r
	p.suspects = make(map[string]map[string]struct{})
	p.dead = make(map[string]time.Time)
}

// suspect is told of an incarnation met in a room.
func (p *reaper) suspect(inc, room string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.alive[inc]; ok {
		return
	}
	if p.suspects[inc] == nil {
		p.suspects[inc] = make(map[string]struct{})
	}
	p.suspects[inc][room] = struct{}{}
}

func (p *reaper) run() {
	r := p.bus
	tick := time.NewTicker(r.cfg.HeartbeatInterval / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		// After an outage all leases have run out, and their nodes deserve the time to take new ones.
		if r.lease.steadyFor() < 2*r.cfg.HeartbeatInterval {
			continue
		}
		if err := p.round(r.ctx); err != nil && r.ctx.Err() == nil {
			r.complain("look for dead nodes", err)
		}
	}
}

func (p *reaper) round(ctx context.Context) error {
	r := p.bus
	q := r.query(ctx, r.own)
	members := q.do("smembers", incarnationsKey)
	if err := q.send(); err != nil {
		return err
	}
	incs, _ := members.StringSlice()
	p.mu.Lock()
	suspects := p.suspects
	p.suspects = make(map[string]map[string]struct{})
	p.mu.Unlock()
	for inc := range suspects {
		incs = append(incs, inc)
	}
	if len(incs) == 0 {
		return nil
	}
	q = r.query(ctx, r.own)
	leases := make([]*redis.Cmd, len(incs))
	for i, inc := range incs {
		leases[i] = q.do("exists", leaseKey(inc))
	}
	if err := q.send(); err != nil {
		return err
	}
	for inc, since := range p.dead {
		if time.Since(since) > 2*reapFor {
			delete(p.dead, inc)
		}
	}
	alive := make(map[string]struct{}, len(incs))
	for i, inc := range incs {
		if n, err := leases[i].Int(); err != nil || n > 0 {
			alive[inc] = struct{}{}
		}
	}
	p.mu.Lock()
	p.alive = alive
	p.mu.Unlock()
	for _, inc := range incs {
		if _, ok := alive[inc]; !ok {
			if err := p.reap(ctx, inc, suspects[inc]); err != nil {
				return err
			}
		}
	}
	return nil
}

// reap takes an incarnation out of the rooms that its index names, and of others that it was met in.
func (p *reaper) reap(ctx context.Context, inc string, met map[string]struct{}) error {
	r := p.bus
	q := r.query(ctx, r.own)
	index := q.do("smembers", roomsOfKey(inc))
	if err := q.send(); err != nil {
		return err
	}
	rooms, _ := index.StringSlice()
	for room := range met {
		rooms = append(rooms, room)
	}
	if err := r.reapRooms(ctx, inc, rooms); err != nil {
		return err
	}
	since, known := p.dead[inc]
	switch {
	case !known:
		p.dead[inc] = time.Now()
	case time.Since(since) > reapFor:
		delete(p.dead, inc)
		q := r.query(ctx, r.own)
		q.do("srem", incarnationsKey, inc)
		return q.send()
	}
	return nil
}

// reapRooms takes an incarnation out of the rooms, and them out of its index.
func (r *Bus) reapRooms(ctx context.Context, inc string, rooms []string) error {
	for len(rooms) > 0 {
		n := min(len(rooms), rosterBatch)
		q := r.query(ctx, r.own)
		answers := make([]*redis.Cmd, n)
		for i, room := range rooms[:n] {
			k := keysOf(r.db, room)
			answers[i] = q.do("evalsha", membersSHA, 3, k.users, k.nodes, k.usersOf(inc), k.channel, inc, "reap",
				presenceLife.Milliseconds())
		}
		if err := q.send(); err != nil {
			return err
		}
		var again []string
		done := []any{"srem", roomsOfKey(inc)}
		for i, room := range rooms[:n] {
			if left, _ := membersAnswer(answers[i]); left > 0 {
				again = append(again, room)
			} else {
				done = append(done, room)
			}
		}
		if len(done) > 2 {
			q := r.query(ctx, r.own)
			q.do(done...)
			if err := q.send(); err != nil {
				return err
			}
		}
		rooms = append(again, rooms[n:]...)
	}
	return nil
}
