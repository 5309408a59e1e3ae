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
