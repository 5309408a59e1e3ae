package node_test

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/id"
	"parley/bus/memory"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// watch is an Observer that notes what the tests wait for.
type watch struct {
	node.NoObserver
	mu      sync.Mutex
	counts  map[string]int
	changed chan struct{}
}

func newWatch() *watch {
	return &watch{counts: make(map[string]int), changed: make(chan struct{})}
}

func (w *watch) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watch) Overflowed()               { w.note("overflowed") }
func (w *watch) CaughtUp()                 { w.note("caught up") }
func (w *watch) GapTold()                  { w.note("gap") }
func (w *watch) RoomOpened()               { w.note("room opened") }
func (w *watch) Limited(limit string)      { w.note("limited " + limit) }
func (w *watch) RoomClosed()               { w.note("room closed") }
func (w *watch) Received(string, int)      { w.note("received") }
func (w *watch) Closed(_ string, code int) { w.note(fmt.Sprint("closed ", code)) }

func (w *watch) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[what]
}

// all are the counts.
func (w *watch) all() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.counts)
}

// wait returns once something was noted at least n times.
func (w *watch) wait(t *testing.T, what string, n int) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		w.mu.Lock()
		got, changed := w.counts[what], w.changed
		w.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%q was noted %d times, want %d", what, got, n)
		}
	}
}

// overflow calls say until one more queue has overflowed: that of a client that reads nothing, and whose sockets are narrow.
func (w *watch) overflow(t *testing.T, say func()) {
	t.Helper()
	const most = 2000
	before, said := w.all(), 0
	for ; w.count("overflowed") == before["overflowed"]; said++ {
		for what, n := range w.all() {
			if n > before[what] && strings.HasPrefix(what, "closed") || said > most {
				t.Fatalf("after %d messages no queue has overflowed: %v", said, w.all())
			}
		}
		say()
		time.Sleep(100 * time.Microsecond) // the node's turn, where there is one processor: it skips what it can't hold
	}
}

type starter = func(testing.TB, int, ...func(*node.Config)) *nodetest.Cluster

// ways are those in which a node serves a connection: parked while it is idle, with TLS or without, or by a goroutine.
var ways = map[string]starter{
	"parked":    nodetest.Start,
	"TLS":       nodetest.StartTLS,
	"goroutine": nodetest.StartUnparked,
}

// eachWay runs a test for each of the ways, beside others.
func eachWay(t *testing.T, test func(t *testing.T, start starter)) {
	t.Parallel()
	for name, start := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start)
		})
	}
}

func TestAFrozenMemberDoesNotStallTheRoomAndLosesNothing(t *testing.T) {
	t.Parallel()
	for kind, start := range map[string]starter{
		"json": nodetest.StartNarrow, "plain": nodetest.StartNarrowTLS,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWatch()
			c := start(t, 2, func(cfg *node.Config) { cfg.Observer = w; cfg.QueueBytes = 128 << 10 })
			sender := nodetest.Dial(t, c.Nodes[0].URL("/"))
			sender.Join("lobby")
			var frozen *nodetest.Peer
			if kind == "json" {
				frozen = nodetest.Dial(t, c.Nodes[1].URL("/"))
				frozen.Narrow()
				frozen.Join("lobby")
			} else {
				frozen = settled(t, c.Nodes[1].URL("/"), "lobby", sender)
				frozen.Narrow()
			}
			quick := nodetest.Dial(t, c.Nodes[1].URL("/"))
			quick.Join("lobby")

			// Enough for the kernel's buffers to fill, and the queue behind them.
			pad := strings.Repeat("x", 4000)
			n := 0
			w.overflow(t, func() {
				n++
				sender.SendText("lobby", fmt.Sprintf("%d %s", n, pad))
				if got := quick.Until("message").Text; !strings.HasPrefix(got, fmt.Sprint(n, " ")) {
					t.Fatalf("the quick one got %.20q, want %d", got, n)
				}
			})
			for range 300 { // more than one page of the log
				n++
				sender.SendText("lobby", fmt.Sprint(n, " "))
				quick.Until("message")
			}
			next := func() string {
				if kind == "plain" {
					return frozen.Read()
				}
				return frozen.Until("message").Text
			}
			for i := 1; i <= n; i++ {
				if got := next(); !strings.HasPrefix(got, fmt.Sprint(i, " ")) {
					t.Fatalf("the frozen one got %.20q, want %d of %d", got, i, n)
				}
			}
			w.wait(t, "caught up", w.count("overflowed"))
			sender.SendText("lobby", "live again")
			if got := next(); got != "live again" {
				t.Fatalf("got %.20q", got)
			}
			if w.count("gap") != 0 {
				t.Error("a gap was told, though the log has everything")
			}
		})
	}
}

// A change of the roster for which a queue has no space is told later, though nothing changes after it.
func TestWhoIsTooSlowForAChangeOfTheRosterIsToldOfIt(t *testing.T) {
	t.Parallel()
	w := newWatch()
	c := nodetest.StartNarrow(t, 1, func(cfg *node.Config) { cfg.Observer, cfg.QueueBytes = w, 16<<10 })
	url := c.Nodes[0].URL("/")
	frozen := nodetest.Dial(t, url)
	frozen.Narrow()
	first, _ := frozen.Join("lobby")
	sees := nodetest.Dial(t, url) // after the frozen one is served
	sees.Join("lobby")
	comes := nodetest.Dial(t, url)
	sees.SendText("lobby", strings.Repeat("x", 4000))
	for range 500 { // answers that it does not read fill half of its queue
		frozen.Say(`{"op":"history","room":"lobby"}`)
	}
	for node.MostThatWaits(c.Nodes[0].Server) <= 8<<10 {
		time.Sleep(time.Millisecond)
	}
	there := 2
	w.overflow(t, func() {
		if there == 2 {
			comes.Join("lobby")
			there = 3
		} else {
			comes.Say(`{"op":"leave","room":"lobby"}`)
			comes.Until("ok")
			there = 2
		}
		for sees.Until("presence").Count != there {
		}
	})
	list := make(map[string]bool)
	take := func(members []wire.Member) {
		clear(list)
		for _, m := range members {
			list[m.ID] = true
		}
	}
	take(first.Members)
	until := func(end id.ID) {
		for f := (wire.Frame{}); f.ID != end || f.Op != "message"; {
			if f = frozen.Next(); f.Op != "presence" {
				continue
			}
			switch f.Event {
			case wire.EventJoin:
				list[f.User.ID] = true
			case wire.EventLeave:
				delete(list, f.User.ID)
			case wire.EventSync:
				take(f.Members)
			}
		}
	}
	until(sees.SendText("lobby", "reads on"))
	w.wait(t, "caught up", w.count("overflowed"))
	until(sees.SendText("lobby", "live again"))
	if len(list) != there {
		t.Errorf("it was told of %d members, of %d", len(list), there)
	}
}

func TestWhoFallsOutOfTheLogIsToldOfAGap(t *testing.T) {
	t.Parallel()
	w := newWatch()
	mem := memory.New(bus.Retention{Size: 20})
	c := nodetest.StartNarrowOn(t, 1, mem.Open, func(cfg *node.Config) { cfg.Observer = w; cfg.QueueBytes = 16 << 10 })
	sender := nodetest.Dial(t, c.Nodes[0].URL("/"))
	sender.Join("lobby")
	frozen := nodetest.Dial(t, c.Nodes[0].URL("/"))
	frozen.Narrow()
	frozen.Join("lobby")
	pad := strings.Repeat("x", 4000)
	n := 0
	send := func(text string) {
		n++
		sender.SendText("lobby", fmt.Sprint(n, " ", text))
		sender.Until("message")
	}
	w.overflow(t, func() { send(pad) })
	for range 400 { // past the log, and past what the node keeps in memory
		send("y")
	}
	last, gaps := 0, 0
	for last < n {
		f := frozen.Next()
		switch f.Op {
		case "gap":
			gaps++
		case "message":
			var i int
			fmt.Sscan(f.Text, &i)
			if i <= last || i != last+1 && gaps == 0 {
				t.Fatalf("%d after %d, and %d gaps", i, last, gaps)
			}
			last = i
		}
	}
	if gaps != 1 {
		t.Errorf("%d gaps were told", gaps)
	}
}

func TestWhoTakesNothingIsDropped(t *testing.T) {
	eachNarrowWay(t, func(t *testing.T, start starter) {
		w := newWatch()
		c := start(t, 1, func(cfg *node.Config) {
			cfg.Observer = w
			cfg.QueueBytes = 16 << 10
			cfg.StallTimeout = time.Second
		})
		sender := nodetest.Dial(t, c.Nodes[0].URL("/"))
		sender.Join("lobby")
		frozen := nodetest.Dial(t, c.Nodes[0].URL("/"))
		frozen.Narrow()
		frozen.Join("lobby")
		for began := time.Now(); w.count(fmt.Sprint("closed ", wire.StatusStalled)) == 0; {
			sender.SendText("lobby", strings.Repeat("x", 4000))
			if w.count("closed 1006") > 0 || time.Since(began) > time.Minute {
				t.Fatalf("it is not dropped as one who takes nothing: %v", w.all())
			}
		}
	})
}

func TestADeadPeerIsNoticed(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		w := newWatch()
		c := start(t, 1, func(cfg *node.Config) { cfg.Observer = w; cfg.PingInterval = 100 * time.Millisecond })
		p := nodetest.Dial(t, c.Nodes[0].URL("/")) // answers no pings, since it does not read
		w.wait(t, "closed 1006", 1)
		_ = p
	})
}

func TestALivingPeerStays(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		const ping = 2 * time.Second // within half of which it has to answer, on a busy machine too
		w := newWatch()
		c := start(t, 1, func(cfg *node.Config) { cfg.Observer = w; cfg.PingInterval = ping })
		idle := dialRaw(t, c.Nodes[0])
		for range 3 { // who said nothing would have been dropped before the third
			idle.want(wire.OpPing, "")
			idle.Write(masked(wire.OpPong, ""))
		}
		idle.Write(masked(wire.OpText, `{"op":"ping","req":"still here"}`))
		idle.want(wire.OpText, "still here")
	})
}

func TestRoomsWithoutMembersAreLeftAfterTheLinger(t *testing.T) {
	t.Parallel()
	w := newWatch()
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Observer = w; cfg.Linger = 10 * time.Millisecond; cfg.Grace = 1 })
	for n := 1; n <= 20; n++ {
		p := nodetest.Dial(t, c.Nodes[0].URL("/"))
		p.Join("lobby")
		id := p.SendText("lobby", fmt.Sprint(n))
		if n%2 == 0 {
			p.Cut()
		} else {
			p.Say(`{"op":"leave","room":"lobby"}`)
			p.Until("ok")
			if j, _ := p.Join("lobby", fmt.Sprintf(`"since":%q`, id)); !*j.Recovered || j.Last != id {
				t.Errorf("back at once: %s", nodetest.Show(j))
			}
			p.Cut()
		}
		w.wait(t, "room closed", w.count("room opened"))
	}
}
