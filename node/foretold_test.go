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

// handLog is a bus on which the test writes by hand the log of the lobby, and what a node hears of it.
type handLog struct {
	bus.Bus

	mu   sync.Mutex
	sink bus.Sink
	log  []bus.Message

	read func(bus.Page) // static; called before what was read of the log is given
}

func (b *handLog) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	if room == "lobby" {
		b.mu.Lock()
		b.sink = sink
		b.mu.Unlock()
	}
	return b.Bus.Subscribe(ctx, room, sink)
}

func (b *handLog) After(ctx context.Context, room string, since bus.ID, limit, bytes int) (bus.Page, error) {
	if room != "lobby" {
		return b.Bus.After(ctx, room, since, limit, bytes)
	}
	p := b.after(since, limit)
	if b.read != nil {
		b.read(p)
	}
	return p, nil
}

func (b *handLog) after(since bus.ID, limit int) bus.Page {
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
	return p
}

// start runs a node on the bus.
func (b *handLog) start(t *testing.T, start starter, each ...func(*node.Config)) *nodetest.Node {
	take := func(cfg *node.Config) { b.Bus, cfg.Bus = cfg.Bus, b }
	return start(t, 1, append(each, take)...).Nodes[0]
}

// startNarrow runs a node on the bus, in which little waits for a client.
func (b *handLog) startNarrow(t *testing.T) (*watch, *nodetest.Node) {
	w := newWatch()
	return w, b.start(t, nodetest.StartNarrow, func(cfg *node.Config) { cfg.Observer, cfg.QueueBytes = w, 16<<10 })
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

// saidAt is what Ada says in the lobby at that time.
func saidAt(ms uint64, text string) bus.Message {
	return bus.Message{ID: id.ID{Ms: ms}, Body: wire.Said{Room: "lobby", From: wire.Member{ID: "ada"}, Text: text}.Body()}
}

// A bus may tell of a break before the break's own entry comes by. Who was told, and falls behind before that comes, is not told again.
func TestABreakIsToldOnceToWhoFallsBehindBeforeItsEntryComes(t *testing.T) {
	t.Parallel()
	b := new(handLog)
	w, n := b.startNarrow(t)
	frozen := nodetest.Dial(t, n.URL("/"))
	frozen.Narrow()
	frozen.Join("lobby", `"limit":0`)
	var want []string
	at := uint64(0)
	say := func(text string) {
		at++
		want = append(want, text)
		b.write(saidAt(at, text))
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

// Plain text has no words for a gap: who is behind when messages are lost is served what came before, and then the connection closes.
func TestAGapClosesThePlainConnectionOfWhoIsBehind(t *testing.T) {
	t.Parallel()
	b := new(handLog)
	w, n := b.startNarrow(t)
	watcher := joined(t, n, `"limit":0`)
	slow := nodetest.DialPlain(t, n.URL("/"))
	slow.Narrow()
	for watcher.Until("presence").Count < 2 { // until it is there
	}
	leave(watcher)
	at := uint64(0)
	say := func(text string) {
		at++
		b.write(saidAt(at, text))
	}
	pad := strings.Repeat("x", 4000)
	w.overflow(t, func() { say(pad) })
	before := int(at)
	lost, marker := id.ID{Ms: at}, id.ID{Ms: at + 1}
	b.write(bus.Message{Break: true, ID: marker, Lost: lost, Marker: marker})
	at++
	say("after it")
	for i := range before {
		if text := slow.Read(); text != pad {
			t.Fatalf("message %d of %d is %.20q", i, before, text)
		}
	}
	slow.WantClose(wire.StatusOverload)
}

// Who leaves a room while it is served from the log hears nothing of it once that is answered: neither what was being read for it, nor
// that there is a gap.
func TestNothingOfARoomComesOnceItWasLeft(t *testing.T) {
	t.Parallel()
	const said, broken = 300, 250 // more than a page, and behind it
	for name, breaks := range map[string]bool{"messages": false, "a gap": true} {
		b := new(handLog)
		reading, left := make(chan struct{}), make(chan struct{})
		var once sync.Once
		b.read = func(p bus.Page) { // the first page is for the answer to the join
			if len(p.Messages) > 0 && p.Messages[0].ID.Ms > wire.MaxPage && p.Messages[0].Break == breaks {
				once.Do(func() { close(reading) })
				<-left
			}
		}
		n := b.start(t, nodetest.Start)
		stays := joined(t, n, `"limit":0`)
		for i := uint64(1); i <= said; i++ {
			m := saidAt(i, strings.Repeat("x", 400))
			if breaks && i == broken {
				m = bus.Message{ID: m.ID, Break: true, Lost: id.ID{Ms: i - 1}, Marker: m.ID}
			}
			b.write(m)
		}
		for stays.Until("message").ID.Ms < said {
		}
		p := nodetest.Dial(t, n.URL("/"))
		p.Say(`{"op":"join","room":"lobby","since":%q}`, id.ID{Ms: 1})
		<-reading
		p.Say(`{"op":"leave","req":"leave","room":"lobby"}`)
		for string(p.Until("ok").Req) != `"leave"` {
		}
		close(left)
		for range 20 {
			p.Say(`{"op":"ping"}`)
			if f := p.Next(); f.Op != "ok" {
				t.Fatalf("%s: once it was left comes %s", name, nodetest.Show(f))
			}
		}
	}
}

// A log that has not come as far as the room is read again, until it has: what a room was told is not lost to who is behind.
func TestALogThatIsBehindTheRoomIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := new(handLog)
	nothing := make(chan struct{})
	var once sync.Once
	b.read = func(p bus.Page) {
		if len(p.Messages) == 0 {
			once.Do(func() { close(nothing) })
		}
	}
	w, n := b.startNarrow(t)
	slow := nodetest.Dial(t, n.URL("/"))
	slow.Narrow()
	slow.Join("lobby", `"limit":0`)
	at := uint64(0)
	next := func(text string) bus.Message {
		at++
		m := saidAt(at, text)
		m.Prev = id.ID{Ms: at - 1}
		return m
	}
	pad := strings.Repeat("x", 4000)
	w.overflow(t, func() { b.write(next(pad)) })
	before := at
	var late []bus.Message
	for range 50 { // more than the node has in memory
		late = append(late, next(pad))
		b.deliver(late[len(late)-1])
	}
	for range before {
		slow.Until("message")
	}
	<-nothing
	b.mu.Lock()
	b.log = append(b.log, late...)
	b.mu.Unlock()
	for i := range late {
		if m := slow.Until("message"); m.ID != late[i].ID {
			t.Fatalf("heard %v, want %v", m.ID, late[i].ID)
		}
	}
}

// Who comes back to just where a log broke misses what was lost there, also while the break's own entry is still to come by.
func TestWhoComesBackToWhereALogBrokeIsToldBeforeItsEntryComes(t *testing.T) {
	t.Parallel()
	b := new(handLog)
	n := b.start(t, nodetest.Start)
	stays := nodetest.Dial(t, n.URL("/"))
	stays.Join("lobby", `"limit":0`)
	before, marker := id.ID{Ms: 1}, id.ID{Ms: 1_000_000}
	b.write(saidAt(before.Ms, "before"))
	stays.Until("message")
	entry := bus.Message{Break: true, ID: marker, Prev: before, Lost: before, Marker: marker}
	b.mu.Lock()
	b.log = append(b.log, entry)
	b.mu.Unlock()
	b.deliver(bus.Message{Break: true, ID: before, Lost: before, Marker: marker})
	stays.Until("gap")

	back := nodetest.Dial(t, n.URL("/"))
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
