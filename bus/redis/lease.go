package redis

import (
	"context"
	"errors"
	"slices"
	"strings"
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
	full    time.Time // guarded by mu; when Redis last refused a new one for lack of memory
	cause   error     // guarded by mu; why it is not renewed
	reaped  string    // guarded by mu; an incarnation that was reaped, whatever its lease says
}

func (l *lease) init(r *Bus) { l.bus = r }

// current is the incarnation to act under, and when its lease runs out, in ms since 1970 by the server's clock. Only the server
// can tell whether it has, at the moment of a write: members.lua does.
func (l *lease) current() (inc string, until int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inc, l.until
}

// distrust is told that an incarnation was reaped, as may happen where Redis lost a lease and got it back.
func (l *lease) distrust(inc string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reaped = inc
}

// age is how long ago Redis last took a renewal, or would have but for lack of memory, and why it takes none. A node without a
// lease can do all that does not need memory.
func (l *lease) age() (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cause := l.cause
	if cause == nil {
		cause = errors.New("no answer")
	}
	last := l.renewed
	if l.full.After(last) {
		last = l.full
	}
	return time.Since(last), cause
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
	l.mu.Lock()
	inc, reaped := l.inc, l.reaped == l.inc
	l.mu.Unlock()
	if reaped || inc == "" {
		return l.take(ctx)
	}
	sent := time.Now()
	q := l.bus.query(ctx, l.bus.own)
	renewed := q.do("pexpire", leaseKey(inc), l.bus.cfg.LeaseTTL.Milliseconds()) // which takes no memory
	until, err := l.send(q, inc)
	if err != nil {
		return err
	}
	if held, _ := renewed.Bool(); !held {
		return l.take(ctx)
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
	inc, sent := l.bus.tag()+randomName(), time.Now()
	q := l.bus.query(ctx, l.bus.own)
	q.do("set", leaseKey(inc), "1", "nx", "px", l.bus.cfg.LeaseTTL.Milliseconds())
	until, err := l.send(q, inc)
	if err != nil {
		if isFull(err) {
			l.mu.Lock()
			l.full = time.Now()
			l.mu.Unlock()
		}
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
		ro.rewrite()
		if former != "" { // Redis may have lost its index
			r.reaper.accuse(former, ro.keys.room)
		}
	}
	return nil
}

// send sends what makes a lease last, keeps alive what finds its incarnation, and reads the server's clock, before: so the lease
// runs out no sooner than until.
func (l *lease) send(q *query, inc string) (until int64, err error) {
	clock := redis.NewTimeCmd(q.ctx, "time")
	q.cmds = slices.Insert(q.cmds, 0, redis.Cmder(clock))
	life := l.bus.cfg.presenceLife.Milliseconds()
	q.do("pexpire", roomsOfKey(inc), life)
	if err := q.send(); err != nil {
		return 0, err
	}
	l.bus.skew.Store(int64(time.Until(clock.Val())))
	// Apart from it, since a full Redis refuses this. Whoever meets the incarnation in a room suspects it anyway.
	q = l.bus.query(q.ctx, l.bus.own)
	for _, tag := range l.bus.tags() {
		q.do("sadd", incarnationsKey(tag), inc)
		q.do("pexpire", incarnationsKey(tag), life)
		if tag != l.bus.tag() { // who finds nodes there, and no layout, takes it for the first
			q.keepLayout(tag)
		}
	}
	_ = q.send()
	return clock.Val().Add(l.bus.cfg.LeaseTTL).UnixMilli(), nil
}

// isFull reports whether Redis refused something for lack of memory.
func isFull(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && strings.HasPrefix(reply.Error(), "OOM")
}
