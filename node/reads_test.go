package node_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
)

// What is read of a log is what clients are given of it, however large messages are: not a page of 200 for each piece.
func TestNoMoreIsReadOfALogThanIsGiven(t *testing.T) {
	t.Parallel()
	const said, size = 300, 4000
	counted := &countedReads{}
	c := nodetest.Start(t, 1, func(cfg *node.Config) { counted.Bus = cfg.Bus; cfg.Bus = counted })
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	a.Join("lobby")
	first := a.SendText("lobby", "first")
	for i := range said {
		a.SendText("lobby", fmt.Sprint(i, strings.Repeat("x", size)))
	}
	counted.bytes.Store(0)
	back := nodetest.Dial(t, c.Nodes[0].URL("/"))
	if _, missed := back.Join("lobby", fmt.Sprintf(`"since":%q`, first)); len(missed) != said {
		t.Fatalf("%d were missed, of %d", len(missed), said)
	}
	if read := counted.bytes.Load(); read > said*size*3/2 {
		t.Errorf("%d bytes were read for a resume of %d", read, said*size)
	}
	counted.bytes.Store(0)
	back.Say(`{"op":"history","room":"lobby","limit":200}`)
	if got := len(back.Until("ok").Messages); got == 0 || got > 20 {
		t.Errorf("%d messages fit into a page", got)
	}
	if read := counted.bytes.Load(); read > 70<<10 {
		t.Errorf("%d bytes were read for a page of history", read)
	}
}

// All who lose their node come to another one, where nobody has been in the room, each with an id of its own.
func TestAllWhoComeBackShareOneReadOfTheLog(t *testing.T) {
	t.Parallel()
	const crowd = 40
	var there *countedReads
	c := nodetest.Start(t, 2, func(cfg *node.Config) { there = &countedReads{Bus: cfg.Bus}; cfg.Bus = there })
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	a.Join("lobby")
	var ids []string
	for i := range crowd {
		ids = append(ids, a.SendText("lobby", fmt.Sprint(i)).String())
	}
	there.reads.Store(0)
	var back []*nodetest.Peer
	for range crowd {
		back = append(back, nodetest.Dial(t, c.Nodes[1].URL("/")))
	}
	for i, p := range back {
		p.Say(`{"op":"join","room":"lobby","since":%q}`, ids[i])
	}
	for i, p := range back {
		if f := p.Until("ok"); f.Recovered == nil || !*f.Recovered {
			t.Errorf("from %s: %s", ids[i], nodetest.Show(f))
		}
		heard := 0
		for f := p.Next(); f.Op != "live"; f = p.Next() {
			if f.Op == "message" {
				heard++
			}
		}
		if heard != crowd-1-i {
			t.Errorf("from message %d of %d it heard %d", i, crowd, heard)
		}
	}
	if n := there.reads.Load(); n != 1 {
		t.Errorf("%d clients made %d reads of the log", crowd, n)
	}
}

// countedReads is a bus that counts what is read of its logs.
type countedReads struct {
	bus.Bus
	reads, bytes atomic.Int64
}

func (b *countedReads) count(p bus.Page, err error) (bus.Page, error) {
	b.reads.Add(1)
	for _, m := range p.Messages {
		b.bytes.Add(int64(len(m.Body)))
	}
	return p, err
}

func (b *countedReads) After(ctx context.Context, room string, since bus.ID, limit, bytes int) (bus.Page, error) {
	return b.count(b.Bus.After(ctx, room, since, limit, bytes))
}

func (b *countedReads) Before(ctx context.Context, room string, before bus.ID, limit, bytes int) (bus.Page, error) {
	return b.count(b.Bus.Before(ctx, room, before, limit, bytes))
}
