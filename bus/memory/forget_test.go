package memory_test

import (
	"testing"
	"time"

	"parley/bus"
)

// TestKeysAreRememberedLongerThanMessages: a room that is expired, and in which nobody is, remembers keys for ten minutes, and
// is forgotten after that.
func TestKeysAreRememberedLongerThanMessages(t *testing.T) {
	m, c := newMemory(bus.Retention{Age: time.Second})
	b := open(t, m)
	for range 3 {
		d := bus.Draft{Key: bus.KeyOf("u", "k"), Sum: 1}
		first := publish(t, b, "room", d)
		for range 9 {
			c.advance(time.Minute)
			m.Sweep()
			if again := publish(t, b, "room", d); again != first {
				t.Fatalf("a repeat got %v, the first %v", again, first)
			}
		}
		c.advance(11 * time.Minute)
		m.Sweep()
		c.advance(10 * time.Minute)
		m.Sweep()
		if n := m.Rooms(); n != 0 {
			t.Fatalf("%d rooms are kept of none", n)
		}
	}
}
