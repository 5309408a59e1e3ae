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
	there := nodetest.Dial(t, n.URL("/"))
	there.Join("tea", `"limit":0`) // so the room is there
	began := time.Now()
	for range 30 {
		p := nodetest.Dial(t, n.URL("/"))
		p.Say(`{"op":"join","room":"tea","since":"5-0"}`)
		p.WantError(wire.Unavailable)
		p.Cut()
	}
	if most := 2 + int64(time.Since(began)/time.Second); tries.Load() < 1 || tries.Load() > most {
		t.Errorf("the log was tried %d times in %v", tries.Load(), time.Since(began))
	}
}

// firstReading is a bus whose board is read only once it may be.
type firstReading struct {
	bus.Bus
	may chan struct{}
}

func (b firstReading) Posted(ctx context.Context, known string) ([]string, string, error) {
	select {
	case <-b.may:
		return b.Bus.Posted(ctx, known)
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
}

// What an operator did before a node came, is done: it ends nobody's connection who has come back since.
func TestANodeThatStartsDisconnectsNobody(t *testing.T) {
	t.Parallel()
	b := firstReading{may: make(chan struct{})}
	c := nodetest.Start(t, 1, withGrants, func(cfg *node.Config) {
		b.Bus = cfg.Bus
		cfg.Bus, cfg.Guests = b, true
	})
	n := c.Nodes[0]
	back := nodetest.Dial(t, n.URL("/"))
	if err := b.Post(t.Context(), `notice {"disconnect":"`+back.Welcome.User.ID+`","at":1}`, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	close(b.may)
	hello(nodetest.Dial(t, n.URL("/")), "ada") // which waits for the reading
	back.Say(`{"op":"ping"}`)
	back.Want("ok")
}
