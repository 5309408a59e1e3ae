package memory_test

import (
	"fmt"
	"testing"
	"time"

	"parley/bus"
)

// Whoever sends once has a bucket. Those that are full again are forgotten.
func TestMemoryForgetsBucketsThatAreFull(t *testing.T) {
	m, c := newMemory(bus.Retention{})
	b := open(t, m)
	for i := range 5000 {
		if n, err := b.Draw(t.Context(), fmt.Sprint("user", i), 1, 1, 1); err != nil || n != 1 {
			t.Fatalf("%d were drawn, %v", n, err)
		}
		c.advance(time.Second)
	}
	if n := m.Buckets(); n > 1024 {
		t.Errorf("%d buckets are kept, one of which is not full", n)
	}
}

// Of what nobody has any more nothing is kept.
func TestMemoryForgetsWhatNobodyHas(t *testing.T) {
	m, c := newMemory(bus.Retention{})
	b := open(t, m)
	count := func(of string, n int) {
		t.Helper()
		if total, err := b.Count(t.Context(), of, "node", n, time.Minute); err != nil || total != n {
			t.Fatalf("%d are counted, %v", total, err)
		}
	}
	for i := range 100 {
		user := fmt.Sprint("user", i)
		count(user, 1)
		c.advance(time.Second)
		count(user, 0)
	}
	if n := m.Counted(); n != 0 {
		t.Errorf("of %d users it is kept that they have nothing", n)
	}
}

// What a holder has counts until its time is over, to the moment.
func TestMemoryCountsUntilTheTimeIsOver(t *testing.T) {
	m, c := newMemory(bus.Retention{})
	b := open(t, m)
	for _, step := range []struct {
		holder string
		n      int
		after  time.Duration
		want   int
	}{
		{"a", 1, 0, 1},
		{"b", 2, 0, 3},
		{"b", 2, 59 * time.Second, 3}, // which lasts for longer
		{"b", 2, time.Second, 2},
		{"c", 0, 0, 2},
	} {
		c.advance(step.after)
		if total, err := b.Count(t.Context(), "ann", step.holder, step.n, time.Minute); err != nil || total != step.want {
			t.Errorf("when %s has %d, %d are counted, %v; want %d", step.holder, step.n, total, err, step.want)
		}
	}
}
