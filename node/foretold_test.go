package node_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"parley/bus"
	"parley/bus/id"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// handLog is a bus whose log, and what a node hears of it, the test writes by hand.
type handLog struct {
	bus.Bus

	mu   sync.Mutex
	sink bus.Sink
	log  []bus.Message
}

func (b *handLog) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	b.mu.Lock()
	b.sink = sink
	b.mu.Unlock()
	return b.Bus.Subscribe(ctx, room, sink)
}

func (b *handLog) After(_ context.Context, _ string, since bus.ID, limit, _ int) (bus.Page, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := bus.Page{Complete: true}
	for _, m := range b.log {
		if m.Break {
			p.LastBreak = m.Marker
		}
		if since.Less(m.ID) && len(p.Messages) < limit {
			p.Messages = append(p.Messages, m)
		}
	}
	return p, nil
}

// deliver has a node hear of an entry.
func (b *handLog) deliver(m bus.Message) {
	b.mu.Lock()
	sink := b.sink
	b.mu.Unlock()
	sink.Deliver(m)
}

// write has an entry in the log, and a node hear of it.
func (b *handLog) write(m bus.Message) {
	b.mu.Lock()
	if n := len(b.log); n > 0 {
		m.Prev = b.log[n-1].ID
	}
	b.log = append(b.log, m)
	b.mu.Unlock()
	b.deliver(m)
}

// A bus may tell of a break before the break's own entry comes by. Who was told, and falls behind before that comes, is not told again.
func TestABreakIsToldOnceToWhoFallsBehindBeforeItsEntryComes(t *testing.T) {
	t.Parallel()
	w, b := newWatch(), new(handLog)
	c := nodetest.StartNarrow(t, 1, func(cfg *node.Config) {
		b.Bus = cfg.Bus
		cfg.Bus, cfg.Observer, cfg.QueueBytes = b, w, 16<<10
	})
	frozen := nodetest.Dial(t, c.Nodes[0].URL("/"))
	frozen.Narrow()
	frozen.Join("lobby", `"limit":0`)
	var want []string
	at := uint64(0)
	say := func(text string) {
		at++
		want = append(want, text)
		b.write(bus.Message{ID: id.ID{Ms: at}, Body: wire.Said{Room: "lobby", From: wire.Member{ID: "ada"}, Text: text}.Body()})
	}
	say("before")
	lost, marker := id.ID{Ms: at}, id.ID{Ms: 1_000_000}
	b.deliver(bus.Message{Break: true, ID: lost, Lost: lost, Marker: marker})
	want = append(want, "gap")
	pad := strings.Repeat("x", 4000)
	w.overflow(t, func() { say(fmt.Sprint(at, " ", pad)) })
	b.write(bus.Message{Break: true, ID: marker, Lost: lost, Marker: marker})
	at = marker.Ms
	say("last")
	var got []string
	for len(got) == 0 || got[len(got)-1] != "last" {
		switch f := frozen.Next(); f.Op {
		case "message":
			got = append(got, f.Text)
		case "gap":
			got = append(got, "gap")
		}
	}
	if !slices.Equal(got, want) {
		gaps := len(got) - len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s == "gap" }))
		t.Errorf("it heard %d things, %d of them gaps, and should have heard %d, one of them a gap", len(got), gaps, len(want))
	}
}

// Who comes back to just where a log broke misses what was lost there, also while the break's own entry is still to come by.
func TestWhoComesBackToWhereALogBrokeIsToldBeforeItsEntryComes(t *testing.T) {
	t.Parallel()
	b := new(handLog)
	c := nodetest.Start(t, 1, func(cfg *node.Config) {
		b.Bus = cfg.Bus
		cfg.Bus = b
	})
	stays := nodetest.Dial(t, c.Nodes[0].URL("/"))
	stays.Join("lobby", `"limit":0`)
	before, marker := id.ID{Ms: 1}, id.ID{Ms: 1_000_000}
	b.write(bus.Message{ID: before, Body: wire.Said{Room: "lobby", From: wire.Member{ID: "ada"}, Text: "before"}.Body()})
	stays.Until("message")
	entry := bus.Message{Break: true, ID: marker, Prev: before, Lost: before, Marker: marker}
	b.mu.Lock()
	b.log = append(b.log, entry)
	b.mu.Unlock()
	b.deliver(bus.Message{Break: true, ID: before, Lost: before, Marker: marker})
	stays.Until("gap")

	back := nodetest.Dial(t, c.Nodes[0].URL("/"))
	back.Say(`{"op":"join","room":"lobby","since":%q}`, before)
	if ok := back.Until("ok"); ok.Recovered == nil || *ok.Recovered {
		t.Errorf("it is told %s", nodetest.Show(ok))
	}
	b.deliver(entry)
	if gap := back.Until("gap"); gap.After != before {
		t.Errorf("it is told of a gap after %v, want %v", gap.After, before)
	}
	back.Until("live")
}
