package node

import (
	"testing"
	"time"
)

func TestMemoryIsGivenBackWhenACrowdHasComeOrGone(t *testing.T) {
	var s scavenger
	now := time.Now()
	look := func(n int, d time.Duration) bool {
		now = now.Add(d)
		return s.due(n, now)
	}
	for _, step := range []struct {
		n    int
		d    time.Duration
		want bool
	}{
		{400, time.Second, false},
		{400, time.Minute, false}, // too few to matter
		{5000, time.Second, false},
		{5010, 250 * time.Millisecond, false}, // not calm for long enough
		{5010, 500 * time.Millisecond, true},
		{5010, time.Minute, false}, // once
		{5500, time.Second, false},
		{5500, time.Minute, false}, // a small change
		{100, time.Second, false},
		{100, time.Second, true},
	} {
		if got := look(step.n, step.d); got != step.want {
			t.Errorf("%d clients: %v", step.n, got)
		}
	}
}
