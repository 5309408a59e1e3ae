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
