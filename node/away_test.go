package node_test

import (
	"context"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// noRooms is a bus that cannot subscribe, and takes longer than it is given to say so.
type noRooms struct{ bus.Bus }

func (noRooms) Subscribe(ctx context.Context, _ string, _ bus.Sink) (bus.Subscription, error) {
	<-ctx.Done()
	time.Sleep(50 * time.Millisecond)
	return nil, bus.ErrUnavailable
}

// Whoever joins gives up before the room does. Its linger, over before and after that, must find nothing to close.
func TestANodeOutlivesARoomThatItCouldNotOpen(t *testing.T) {
	for _, linger := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond} {
		t.Run(linger.String(), func(t *testing.T) {
			t.Parallel()
			c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus, cfg.Linger = noRooms{cfg.Bus}, linger })
			p := nodetest.Dial(t, c.Nodes[0].URL("/"))
			p.Say(`{"op":"join","room":"tea"}`)
			p.WantError(wire.Unavailable)
			time.Sleep(200 * time.Millisecond)
			p.Say(`{"op":"ping"}`)
			p.Want("ok")
		})
	}
}
