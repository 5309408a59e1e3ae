package bus_test

import (
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
)

// A clock runs, and can be set.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) set(ahead time.Duration) { c.ahead.Store(int64(ahead)) }

func newMemory(keep bus.Retention) (*bus.Memory, *clock) {
	m, c := bus.NewMemory(keep), &clock{}
	m.SetClock(c.now)
	return m, c
}

func TestMemory(t *testing.T) {
	bustest.Run(t, func(t testing.TB, keep bus.Retention) bustest.Backend {
		m, c := newMemory(keep)
		return bustest.Backend{
			Open:      func(o bus.Observer) (bus.Bus, error) { return m.Open(o), nil },
			ClockBack: func(string) { c.set(-time.Hour) },
		}
	})
}
