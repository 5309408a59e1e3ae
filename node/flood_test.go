package node_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// What one client can make a node hold, or do, is bounded.

func TestTheRoomsOfAConnectionAreBoundedAndWelcomeTells(t *testing.T) {
	t.Parallel()
	const most = 20
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Limits.Rooms = most })
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	if told := p.Welcome.Limits.Rooms; told != most {
		t.Errorf("told %d, want %d", told, most)
	}
	for i := range most {
		p.Join(fmt.Sprint("room ", i))
	}
	p.Say(`{"op":"join","req":1,"room":"one more"}`)
	if f := p.UntilError(); f.Code != wire.Forbidden && f.Code != wire.RateLimited {
		t.Errorf("one more: %s", nodetest.Show(f))
	}
}

// All of its rooms catch up at once, and see that there is space.
func TestCatchingUpInManyRoomsStaysWithinTheQueue(t *testing.T) {
	eachNarrowWay(t, func(t *testing.T, start starter) {
		const rooms, limit = 40, 128 << 10
		pages := make(chan struct{})
		read := sync.OnceFunc(func() { close(pages) })
		c := start(t, 1, func(cfg *node.Config) { cfg.QueueBytes = limit; cfg.Bus = slowPages{cfg.Bus, new(sync.Map), pages} })
		t.Cleanup(read) // or the node would not end
		sender := nodetest.Dial(t, c.Nodes[0].URL("/"))
		sender.Join("lobby")
		for i := range rooms {
			room := fmt.Sprint("room ", i)
			sender.Join(room)
			for range 25 {
				sender.SendText(room, strings.Repeat("x", 4000))
			}
		}
		p := dialRaw(t, c.Nodes[0])
		for i := range rooms { // from the beginning, which only the log has
			p.Write(masked(wire.OpText, fmt.Sprintf(`{"op":"join","room":"room %d","since":"0-0"}`, i)))
		}
		for range rooms {
			p.want(wire.OpText, `"op":"ok"`)
		}
		read()
		most := 0
		for began := time.Now(); time.Since(began) < 1500*time.Millisecond; time.Sleep(time.Millisecond) {
			most = max(most, node.MostThatWaits(c.Nodes[0].Server)) // it reads nothing meanwhile
		}
		if most > limit {
			t.Errorf("%d bytes waited in a queue of %d", most, limit)
		}
		for live := 0; live < rooms; {
			p.SetReadDeadline(time.Now().Add(20 * time.Second))
			_, payload, err := p.next()
			if err != nil {
				t.Fatalf("after %d rooms: %v", live, err)
			}
			if strings.Contains(string(payload), `"op":"live"`) {
				live++
			}
		}
	})
}

// slowPages is a bus whose log is read on from its beginning once pages is closed.
type slowPages struct {
	bus.Bus
	joined *sync.Map // rooms of which a join has read the beginning
	pages  chan struct{}
}

func (b slowPages) After(ctx context.Context, room string, since bus.ID, limit, bytes int) (bus.Page, error) {
	if since.IsZero() {
		b.joined.Store(room, true)
	} else if _, joined := b.joined.Load(room); joined {
		<-b.pages
	}
	return b.Bus.After(ctx, room, since, limit, bytes)
}

// What comes faster than it can be flushed is in the log, and each member is served from there.
func TestWhatAFlushCannotHoldIsServedFromTheLog(t *testing.T) {
	t.Parallel()
	const messages = 1500
	w := newWatch()
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Observer = w })
	n := c.Nodes[0]
	p := nodetest.Dial(t, n.URL("/"))
	p.Join("lobby", `"limit":0`)
	plain := settled(t, n.URL("/"), "lobby", p)
	received := w.count("received")
	release := node.HoldFlushes(n.Server, "lobby")
	pad := strings.Repeat("x", 4000)
	for i := range messages {
		body := wire.Said{Room: "lobby", From: wire.Member{ID: "u"}, Text: fmt.Sprint(i, " ", pad)}.Body()
		n.Bus.Publish("lobby", bus.Draft{Body: body}, func(bus.ID, error) {})
	}
	plain.Say("what one says oneself does not come back")
	w.wait(t, "received", received+1)
	if waited := release(); waited > 4<<20 {
		t.Errorf("%d bytes waited for the flush", waited)
	}
	for i := 0; i < messages; {
		switch m := p.Until("message"); {
		case strings.HasPrefix(m.Text, fmt.Sprint(i, " ")):
			i++
		case !strings.HasPrefix(m.Text, "what one says"):
			t.Fatalf("heard %.20q, want %d", m.Text, i)
		}
	}
	for i := range messages {
		if text := plain.Read(); !strings.HasPrefix(text, fmt.Sprint(i, " ")) {
			t.Fatalf("in plain text, heard %.20q, want %d", text, i)
		}
	}
	if w.count("overflowed") < 2 || w.count("gap") > 0 {
		t.Errorf("noted: %v", w.all())
	}
	p.SendText("lobby", "live again")
	if text := plain.Read(); text != "live again" {
		t.Errorf("heard %.20q", text)
	}
}

func TestPresenceAtTheLimitDoesNotFlap(t *testing.T) {
	t.Parallel()
	const limit = 20
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.PresenceLimit = limit; cfg.Grace = 1 })
	watcher := nodetest.Dial(t, c.Nodes[0].URL("/"))
	watcher.Join("lobby")
	for range limit - 1 {
		nodetest.Dial(t, c.Nodes[0].URL("/")).Join("lobby")
	}
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	began := time.Now()
	for range 50 { // one more than the limit, and back
		p.Join("lobby", `"limit":0`)
		p.Say(`{"op":"leave","room":"lobby"}`)
		p.Until("ok")
	}
	took := time.Since(began)
	watcher.Say(`{"op":"ping","req":"last"}`)
	lists := 0
	for {
		f := watcher.Next()
		if f.Op == "presence" && f.Event == wire.EventSync {
			lists++
		}
		if f.Op == "ok" {
			break
		}
	}
	if most := 1 + int(took/time.Second); lists > most {
		t.Errorf("the list was told %d times in %v", lists, took)
	}
}
