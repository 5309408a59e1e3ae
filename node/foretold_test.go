package node_test

import (
	"context"
	"fmt"
	"math"
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

	read  func(bus.Page) // static; called before what was read of the log is given
	first []bus.Message  // static; what the node hears while it subscribes
}

func (b *handLog) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	if room == "lobby" {
		b.mu.Lock()
		b.sink = sink
		b.mu.Unlock()
		for _, m := range b.first {
			sink.Deliver(m)
		}
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
	p := bus.Page{Complete: len(b.log) == 0 || !since.Less(b.log[0].Prev)}
	for _, m := range b.log {
		if m.Break {
			p.LastBreak = m.Marker
		}
		if p.Last = m.ID; since.Less(m.ID) && len(p.Messages) < limit {
			p.Messages = append(p.Messages, m)
		}
	}
	return p
}

func (b *handLog) Before(ctx context.Context, room string, before bus.ID, limit, bytes int) (bus.Page, error) {
	if room != "lobby" {
		return b.Bus.Before(ctx, room, before, limit, bytes)
	}
	p := b.after(bus.ID{}, math.MaxInt) // of all, as no test has asked for less
	p.Messages = p.Messages[max(0, len(p.Messages)-limit):]
	return p, nil
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

// Who comes back to just where a log broke misses what was lost there, also while the break's own entry is still to come by; so does who
// may not read what was said before. Who is there, and asks, is told the same.
func TestWhoComesBackToWhereALogBrokeIsToldBeforeItsEntryComes(t *testing.T) {
	t.Parallel()
	before, marker := id.ID{Ms: 1}, id.ID{Ms: 1_000_000}
	told := bus.Message{Break: true, ID: before, Lost: before, Marker: marker}
	entry := bus.Message{Break: true, ID: marker, Prev: before, Lost: before, Marker: marker}
	for name, token := range map[string]string{"all": "bob", "may not read the history": "bob/lobby:join"} {
		b := new(handLog)
		n := b.start(t, nodetest.Start, withGrants)
		stays := nodetest.Dial(t, n.URL("/"))
		hello(stays, "ada")
		stays.Join("lobby", `"limit":0`)
		b.write(saidAt(before.Ms, "before"))
		stays.Until("message")
		b.mu.Lock()
		b.log = append(b.log, entry)
		b.mu.Unlock()
		b.deliver(told)
		stays.Until("gap")
		stays.Say(`{"op":"join","room":"lobby","since":%q}`, before)
		if ok := stays.Until("ok"); ok.Recovered == nil || *ok.Recovered {
			t.Errorf("%s: who asks for what followed, and was there, is told %s", name, nodetest.Show(ok))
		}

		back := nodetest.Dial(t, n.URL("/"))
		hello(back, token)
		back.Say(`{"op":"join","room":"lobby","since":%q}`, before)
		if ok := back.Until("ok"); ok.Recovered == nil || *ok.Recovered {
			t.Errorf("%s: it is told %s", name, nodetest.Show(ok))
			continue
		}
		b.deliver(entry)
		if gap := back.Until("gap"); gap.After != before {
			t.Errorf("%s: it is told of a gap after %v, want %v", name, gap.After, before)
		}
		back.Until("live")
		b.write(saidAt(marker.Ms+1, "after"))
		stays.Say(`{"op":"join","room":"lobby","since":%q}`, stays.Until("message").ID)
		if ok := stays.Until("ok"); ok.Recovered == nil || !*ok.Recovered {
			t.Errorf("%s: who asks for what followed the newest is told %s", name, nodetest.Show(ok))
		}
	}
}

// A bus may tell of a break while a room is being subscribed to, also of one before which the log has nothing.
func TestABreakThatIsToldAsARoomIsSubscribedToIsKeptInMind(t *testing.T) {
	t.Parallel()
	marker := id.ID{Ms: 5}
	entry := bus.Message{Break: true, ID: marker, Marker: marker}
	b := &handLog{log: []bus.Message{entry}, first: []bus.Message{{Break: true, Marker: marker}}}
	n := b.start(t, nodetest.Start)
	back := nodetest.Dial(t, n.URL("/"))
	back.Say(`{"op":"join","room":"lobby","since":"0-0"}`)
	if ok := back.Until("ok"); ok.Recovered == nil || *ok.Recovered {
		t.Fatalf("it is told %s", nodetest.Show(ok))
	}
	b.deliver(entry)
	back.Until("gap")
	back.Until("live")
}

// Who was away for longer than the log reaches is told so, and of each break behind which it goes on too: what it is given has no other
// hole.
func TestABreakIsToldToWhoWasAwayForLongerThanTheLogReaches(t *testing.T) {
	t.Parallel()
	b := new(handLog)
	n := b.start(t, nodetest.Start)
	stays := nodetest.Dial(t, n.URL("/"))
	stays.Join("lobby", `"limit":0`)
	want := []string{"gap"}
	for i := uint64(1); i <= 20; i++ {
		m := saidAt(i, fmt.Sprint(i))
		switch i {
		case 11: // is lost
			continue
		case 12:
			m = bus.Message{Break: true, ID: m.ID, Lost: id.ID{Ms: 10}, Marker: m.ID}
			want = append(want, "gap")
		default:
			if i > 4 {
				want = append(want, fmt.Sprint(i))
			}
		}
		b.write(m)
	}
	for stays.Until("message").ID.Ms < 20 {
	}
	b.mu.Lock()
	b.log = b.log[4:]
	b.mu.Unlock()
	back := nodetest.Dial(t, n.URL("/"))
	_, backlog := back.Join("lobby", `"since":"2-0"`)
	if got := texts(backlog); !slices.Equal(got, want) {
		t.Errorf("it is given %v, want %v", got, want)
	}
}
