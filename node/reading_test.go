package node_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// unread is a bus whose logs cannot be read, and how often that was tried.
type unread struct {
	bus.Bus
	tries *atomic.Int64
}

func (b unread) After(context.Context, string, bus.ID, int, int) (bus.Page, error) {
	b.tries.Add(1)
	return bus.Page{}, bus.ErrUnavailable
}

func (b unread) Before(context.Context, string, bus.ID, int, int) (bus.Page, error) {
	b.tries.Add(1)
	return bus.Page{}, bus.ErrUnavailable
}

// While logs cannot be read those who come back are refused at once, and do not try it each by himself.
func TestALogThatCannotBeReadIsNotTriedByEach(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus = unread{cfg.Bus, &tries} })
	n := c.Nodes[0]
	said := make(chan error, 1)
	n.Bus.Publish("tea", bus.Draft{Body: []byte("x")}, func(_ bus.ID, err error) { said <- err })
	if err := <-said; err != nil {
		t.Fatal(err)
	}
	there := nodetest.Dial(t, n.URL("/"))
	there.Join("tea", `"limit":0`) // so the room is there
	began := time.Now()
	for range 30 {
		p := nodetest.Dial(t, n.URL("/"))
		p.Say(`{"op":"join","room":"tea","since":"5-0"}`)
		p.WantError(wire.Unavailable)
		p.Cut()
	}
	newcomer := nodetest.Dial(t, n.URL("/"))
	for _, limit := range []string{"", `,"limit":5`} {
		newcomer.Say(`{"op":"join","room":"tea"%s}`, limit)
		if e := newcomer.WantError(wire.Unavailable); e.RetryAfter == 0 {
			t.Errorf("a newcomer is told %+v", e)
		}
	}
	newcomer.Join("tea", `"limit":0`) // which asks for nothing of the log
	if most := 2 + int64(time.Since(began)/time.Second); tries.Load() < 1 || tries.Load() > most {
		t.Errorf("the log was tried %d times in %v", tries.Load(), time.Since(began))
	}
}
