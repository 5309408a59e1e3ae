package node_test

import (
	"sync/atomic"
	"testing"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// onceAway is a bus that does not answer its first Publish.
type onceAway struct {
	bus.Bus
	published atomic.Int32
}

func (b *onceAway) Publish(room string, d bus.Draft, done func(bus.ID, error)) {
	if b.published.Add(1) == 1 {
		done(bus.ID{}, bus.ErrUnavailable)
		return
	}
	b.Bus.Publish(room, d, done)
}

// What a client had sent before it knew of a refusal must not overtake what it is to repeat.
func TestASendBehindARefusedOneDoesNotOvertakeItsRepeat(t *testing.T) {
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus = &onceAway{Bus: cfg.Bus} })
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("tea", `"limit":0`)
	p.Say(`{"op":"send","room":"tea","text":"one","key":"1"}`)
	p.Say(`{"op":"send","room":"tea","text":"two","key":"2"}`)
	p.WantError(wire.Unavailable)
	p.WantError(wire.Unavailable)
	p.Say(`{"op":"send","room":"tea","text":"one","key":"1"}`)
	p.Say(`{"op":"send","room":"tea","text":"two","key":"2"}`)
	for _, text := range []string{"one", "two"} {
		if m := p.Until("message"); m.Text != text {
			t.Errorf("heard %q, want %q", m.Text, text)
		}
	}
}
