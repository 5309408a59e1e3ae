package memory

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A board is what the handles of a Store know in common beside rooms.
type board struct {
	mu      sync.Mutex
	version uint64                   // guarded by mu
	texts   map[string]time.Time     // guarded by mu; until when
	buckets map[string]*rate.Limiter // guarded by mu; those that are full are forgotten now and then

	counts map[string]map[string]count // guarded by mu; of what -> holder
}

type count struct {
	n     int
	until time.Time
}

// maxBuckets is how many buckets there are before the full ones are forgotten.
const maxBuckets = 1 << 10

func (b *Bus) Rooms(ctx context.Context) (names []string, err error) {
	if err := b.readable(ctx); err != nil {
		return nil, err
	}
	b.shared.mu.RLock()
	rooms := maps.Clone(b.shared.rooms)
	b.shared.mu.RUnlock()
	for name, r := range rooms {
		r.mu.Lock()
		if r.rosterLocked().Count > 0 {
			names = append(names, name)
		}
		r.mu.Unlock()
	}
	return names, nil
}

func (b *Bus) Post(ctx context.Context, text string, until time.Time) error {
	if err := b.readable(ctx); err != nil {
		return err
	}
	o := &b.shared.board
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.texts == nil {
		o.texts = make(map[string]time.Time)
	}
	maps.DeleteFunc(o.texts, func(_ string, until time.Time) bool { return !b.shared.now().Before(until) })
	if until.After(o.texts[text]) {
		o.texts[text] = until
	}
	o.version++
	return nil
}

func (b *Bus) Posted(ctx context.Context, known string) (texts []string, version string, err error) {
	if err := b.readable(ctx); err != nil {
		return nil, "", err
	}
	o := &b.shared.board
	o.mu.Lock()
	defer o.mu.Unlock()
	if version = strconv.FormatUint(o.version, 10); version == known {
		return nil, version, nil
	}
	maps.DeleteFunc(o.texts, func(_ string, until time.Time) bool { return !b.shared.now().Before(until) })
	return slices.Collect(maps.Keys(o.texts)), version, nil
}

func (b *Bus) Draw(ctx context.Context, bucket string, n int, perSecond float64, burst int) (int, error) {
	if err := b.readable(ctx); err != nil {
		return 0, err
	}
	o := &b.shared.board
	o.mu.Lock()
	defer o.mu.Unlock()
	now := b.shared.now()
	l := o.buckets[bucket]
	if l == nil {
		if o.buckets == nil || len(o.buckets) >= maxBuckets {
			maps.DeleteFunc(o.buckets, func(_ string, l *rate.Limiter) bool { return l.TokensAt(now) >= float64(l.Burst()) })
		}
		if o.buckets == nil {
			o.buckets = make(map[string]*rate.Limiter)
		}
		l = rate.NewLimiter(rate.Limit(perSecond), burst)
		o.buckets[bucket] = l
	}
	n = max(0, min(n, int(l.TokensAt(now))))
	l.AllowN(now, n)
	return n, nil
}

func (b *Bus) Count(ctx context.Context, of, holder string, n int, life time.Duration) (total int, err error) {
	if err := b.readable(ctx); err != nil {
		return 0, err
	}
	o := &b.shared.board
	o.mu.Lock()
	defer o.mu.Unlock()
	now := b.shared.now()
	if o.counts == nil {
		o.counts = make(map[string]map[string]count)
	}
	if o.counts[of] == nil {
		o.counts[of] = make(map[string]count)
	}
	o.counts[of][holder] = count{n, now.Add(life)}
	for other, c := range o.counts[of] {
		if c.n == 0 || !now.Before(c.until) {
			delete(o.counts[of], other)
			continue
		}
		total += c.n
	}
	if total == 0 {
		delete(o.counts, of)
	}
	return total, nil
}
