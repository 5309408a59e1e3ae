package node_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"parley/bus"
	"parley/bus/memory"
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

// A generous bus gives as many messages as were asked for, however many bytes they have.
type generous struct{ bus.Bus }

func (b generous) Before(ctx context.Context, room string, before bus.ID, limit, _ int) (bus.Page, error) {
	return b.Bus.Before(ctx, room, before, limit, 0)
}

// A page of history has a bound in bytes, whatever the bus gives, and says that there is more: nothing is passed over.
func TestAPageOfHistoryThatIsCutSaysThatThereIsMore(t *testing.T) {
	t.Parallel()
	const most, said = 64 << 10, 40
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus = generous{cfg.Bus} })
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("lobby")
	pad := strings.Repeat("x", 4000)
	for i := range said {
		p.SendText("lobby", fmt.Sprint(i, " ", pad))
	}
	var all []string
	for before, more := "", true; more; {
		p.Say(`{"op":"history","room":"lobby","limit":100%s}`, before)
		h := p.Until("ok")
		bytes, page := 0, []string{}
		for _, m := range h.Messages {
			bytes += len(m.Text)
			page = append(page, strings.TrimSuffix(m.Text, " "+pad))
		}
		if bytes > most || len(page) == 0 {
			t.Fatalf("a page has %d messages of %d bytes", len(page), bytes)
		}
		all, more = append(page, all...), h.More
		before = fmt.Sprintf(`,"before":%q`, h.Messages[0].ID)
	}
	if !slices.Equal(all, numbers(0, said-1)) {
		t.Errorf("the pages have %v", all)
	}
}

// What was read of a log for one who came is not given to another who comes later: by then more was said, and more is gone.
func TestWhatWasReadOfALogIsReadAnewForWhoComesLater(t *testing.T) {
	t.Parallel()
	c := nodetest.StartOn(t, 1, memory.New(bus.Retention{Size: 100}).Open)
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("lobby")
	pad := strings.Repeat("x", 4000) // so that the log has more than the node keeps in memory
	var first bus.ID
	n := 0
	for _, said := range []int{60, 150} {
		for ; n < said; n++ {
			if id := p.SendText("lobby", fmt.Sprint(n, " ", pad)); n == 0 {
				first = id
			}
		}
		newcomer := nodetest.Dial(t, c.Nodes[0].URL("/"))
		_, backlog := newcomer.Join("lobby")
		newest := texts(backlog)
		for i := range newest {
			newest[i] = strings.TrimSuffix(newest[i], " "+pad)
		}
		if want := numbers(said-50, said-1); !slices.Equal(newest, want) {
			t.Errorf("after %d messages a newcomer is given %v", said, newest)
		}
		back := nodetest.Dial(t, c.Nodes[0].URL("/"))
		back.Say(`{"op":"join","room":"lobby","since":%q}`, first)
		if ok := back.Until("ok"); ok.Recovered == nil || *ok.Recovered != (said <= 100) {
			t.Errorf("after %d messages who has seen the first is told %s", said, nodetest.Show(ok))
		}
	}
}
