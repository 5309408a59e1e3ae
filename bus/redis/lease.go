package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A lease says that a node lives. A node's members are in rooms under the lease's incarnation. Once the lease has run out,
// any node may take the incarnation out of its rooms. A node that finds its lease gone, or can't tell, takes a new incarnation
// and enters everyone under that.
type lease struct {
	bus *Bus

	mu      sync.Mutex
	inc     string    // guarded by mu
	until   int64     // guarded by mu; when it runs out if it is not renewed, by the server's clock, in ms since 1970
	renewed time.Time // guarded by mu; when the last renewal that succeeded was sent
	steady  time.Time // guarded by mu; since when no outage could have cost another node its lease
	cause   error     // guarded by mu; why it is not renewed
}

func (l *lease) init(r *Bus) { l.bus = r }

// current is the incarnation to act under, and when its lease runs out, in ms since 1970 by the server's clock. Only the server
// can tell whether it has, at the moment of a write: members.lua does.
func (l *lease) current() (inc string, until int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inc, l.until
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

// steadyFor is how long Redis has answered this node without an outage in which another node's lease may have run out.
func (l *lease) steadyFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.renewed) >= l.outage() {
		return 0
	}
	return time.Since(l.steady)
}

// outage is how long Redis must be away for leases to run out: they are as old as a heartbeat when it begins.
func (l *lease) outage() time.Duration { return l.bus.cfg.LeaseTTL - l.bus.cfg.HeartbeatInterval }

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
	inc, _ := l.current()
	sent := time.Now()
	until, err := l.write(ctx, inc, "xx")
	if err == redis.Nil {
		return l.take(ctx)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.renewed) >= l.outage() {
		l.steady = time.Now()
	}
	l.renewed, l.until = sent, until
	return nil
}

// take begins a new incarnation.
func (l *lease) take(ctx context.Context) error {
	inc, sent := randomName(), time.Now()
	until, err := l.write(ctx, inc, "nx")
	if err != nil {
		return err
	}
	l.mu.Lock()
	former := l.inc
	l.inc, l.until, l.renewed, l.steady = inc, until, sent, sent
	l.mu.Unlock()
	r := l.bus
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, ro := range r.rosters {
		ro.renew()
		if former != "" { // Redis may have lost its index
			r.reaper.accuse(former, ro.keys.room)
		}
	}
	return nil
}

// write sets the lease on a condition ("nx", "xx"), keeps alive what finds it, and reads the server's clock, before: so the
// lease runs out no sooner than until. redis.Nil says that the condition failed.
func (l *lease) write(ctx context.Context, inc, condition string) (until int64, err error) {
	q := l.bus.query(ctx, l.bus.own)
	clock := redis.NewTimeCmd(ctx, "time")
	q.cmds = append(q.cmds, clock)
	set := q.do("set", leaseKey(inc), "1", condition, "px", l.bus.cfg.LeaseTTL.Milliseconds())
	q.do("sadd", incarnationsKey, inc)
	q.do("pexpire", incarnationsKey, l.bus.cfg.presenceLife.Milliseconds())
	q.do("pexpire", roomsOfKey(inc), l.bus.cfg.presenceLife.Milliseconds())
	if err := q.send(); err != nil {
		return 0, err
	}
	l.bus.skew.Store(int64(time.Until(clock.Val())))
	return clock.Val().Add(l.bus.cfg.LeaseTTL).UnixMilli(), set.Err()
}
