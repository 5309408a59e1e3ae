package memory_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"parley/bus"
	"parley/bus/memory"
)

// TestMemorySweepsForAsLongAsItIsOpen: rooms that nobody uses are forgotten without being asked for, however late they expire.
func TestMemorySweepsForAsLongAsItIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory.New(bus.Retention{Age: time.Hour})
		for handle := range 2 { // the second one finds a store that was closed
			b := m.Open(bus.NoObserver{})
			for i := range 3 {
				publish(t, b, fmt.Sprint("room", i), bus.Draft{})
				time.Sleep(time.Hour)
			}
			time.Sleep(2 * time.Hour)
			if n := m.Rooms(); n != 0 {
				t.Errorf("handle %d: %d rooms are kept of none", handle, n)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
