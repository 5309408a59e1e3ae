package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// mixBytes bounds the messages of mixes: the network may be narrow too.
const mixBytes = 4000

// mix makes a fault of two or three that strike at the same time, of different kinds. The seed decides which, and when.
func mix(seed uint64) fault {
	random := rand.New(rand.NewPCG(seed, 0))
	all := faults()
	random.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	n := 2 + random.IntN(2)
	var parts []fault
	for _, f := range all {
		taken := slices.ContainsFunc(parts, func(p fault) bool { return p.mix == f.mix })
		if f.mix != "" && !taken && len(parts) < n {
			parts = append(parts, f)
		}
	}
	m := fault{must: nothing}
	var names []string
	var delays []float64 // of the traffic's length
	for _, f := range parts {
		names = append(names, f.name)
		delays = append(delays, 2*random.Float64())
		m.redis = append(m.redis, f.redis...)
		m.node = append(m.node, f.node...)
		m.bytes = min(max(m.bytes, f.bytes), mixBytes)
	}
	m.name = fmt.Sprintf("mix %d: %s", seed, strings.Join(names, " + "))
	m.strike = func(tr *trial) {
		var striking sync.WaitGroup
		for i, f := range parts {
			striking.Go(func() {
				tr.meanwhile(time.Duration(delays[i] * float64(tr.traffic)))
				f.strike(tr)
			})
		}
		striking.Wait()
	}
	return m
}

// runMixes runs mixes from a seed on, until the time is over. It gives those that do not hold, and the sum of all.
func runMixes(ctx context.Context, seed uint64, over time.Duration, parallel int, run func(fault) result) (wrong []result, sum result) {
	var mu sync.Mutex // guards what follows, and the results
	next, n := seed, 0
	sum.name = fmt.Sprintf("random mixes from seed %d", seed)
	end := time.Now().Add(over)
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			for ctx.Err() == nil && time.Now().Before(end) {
				mu.Lock()
				m := mix(next)
				next++
				mu.Unlock()
				r := run(m)
				mu.Lock()
				n++
				sum.add(&r)
				if !r.ok() {
					wrong = append(wrong, r)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	sum.name = fmt.Sprintf("%d %s", n, sum.name)
	return wrong, sum
}

// add adds the counts of another row.
func (r *result) add(o *result) {
	for _, c := range []struct {
		to *int
		n  int
	}{
		{&r.said, o.said},
		{&r.cut, o.cut},
		{&r.links, o.links},
		{&r.refused, o.refused},
		{&r.Acked, o.Acked},
		{&r.Heard, o.Heard},
		{&r.Gone, o.Gone},
		{&r.Missing, o.Missing},
		{&r.Twice, o.Twice},
		{&r.Disordered, o.Disordered},
		{&r.Strange, o.Strange},
		{&r.Gaps, o.Gaps},
		{&r.FalseGaps, o.FalseGaps},
		{&r.Excused, o.Excused},
		{&r.Misled, o.Misled},
		{&r.Late, o.Late},
		{&r.Ghosts, o.Ghosts},
		{&r.Unlisted, o.Unlisted},
	} {
		*c.to += c.n
	}
	r.slowest, r.unready, r.ready = max(r.slowest, o.slowest), max(r.unready, o.unready), max(r.ready, o.ready)
	if !o.ok() {
		r.failed = append(r.failed, fmt.Sprintf("%s: %s", o.name, o.verdict()))
	}
}
