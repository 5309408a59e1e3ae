package node_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// A roll is who is in a room by what a client was told.
type roll struct {
	members map[string]bool
	count   int
	told    []string // the presence events, such as "join 3"
}

func (r *roll) take(f wire.Frame) {
	if f.Op == "presence" {
		r.told = append(r.told, fmt.Sprint(f.Event, " ", f.Count))
	}
	switch {
	case f.Op == "ok" && f.Members != nil, f.Op == "presence" && f.Event == "sync":
		r.members = make(map[string]bool)
		for _, m := range f.Members {
			r.members[m.ID] = true
		}
	case f.Op == "presence" && f.Event == "join":
		r.members[f.User.ID] = true
	case f.Op == "presence" && f.Event == "leave":
		delete(r.members, f.User.ID)
	}
	if f.Op == "ok" && f.Members != nil || f.Op == "presence" {
		r.count = f.Count
	}
}

func (r *roll) is(peers ...*nodetest.Peer) bool {
	want := make(map[string]bool)
	for _, p := range peers {
		want[p.Welcome.User.ID] = true
	}
	return r.count == len(peers) && maps.Equal(r.members, want)
}

// present gives a roll of a room's members.
func present(peers ...*nodetest.Peer) *roll {
	r := &roll{members: make(map[string]bool), count: len(peers)}
	for _, p := range peers {
		r.members[p.Welcome.User.ID] = true
	}
	return r
}

// nextPresence gives a peer's next presence event, as "event count".
func nextPresence(p *nodetest.Peer) (wire.Frame, string) {
	f := p.Until("presence")
	return f, fmt.Sprint(f.Event, " ", f.Count)
}

func joined(t *testing.T, nd *nodetest.Node, extra ...string) *nodetest.Peer {
	t.Helper()
	p := nodetest.Dial(t, nd.URL("/"))
	p.Join("lobby", extra...)
	return p
}

func leave(p *nodetest.Peer) {
	p.Say(`{"op":"leave","room":"lobby"}`)
	p.Until("ok")
}

// Up to the limit each is told, past it only how many there are, and back at it who is left.
func TestSinglePresenceIsToldUpToTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 3
	c := nodetest.Start(t, 2, func(cfg *node.Config) { cfg.PresenceLimit = limit })
	a := joined(t, c.Nodes[0])
	if _, told := nextPresence(a); told != "join 1" {
		t.Errorf("its own coming was told as %q", told)
	}
	var others []*nodetest.Peer
	come := func(want string) {
		t.Helper()
		p := joined(t, c.Nodes[len(others)%2])
		others = append(others, p)
		f, told := nextPresence(a)
		if told != want || f.Event == "join" && f.User.ID != p.Welcome.User.ID {
			t.Errorf("with %d members: got %s, want %s", len(others)+1, nodetest.Show(f), want)
		}
	}
	goes := func(want string) {
		t.Helper()
		p := others[len(others)-1]
		others = others[:len(others)-1]
		leave(p)
		p.Cut()
		f, told := nextPresence(a)
		if told != want || f.Event == "leave" && f.User.ID != p.Welcome.User.ID {
			t.Errorf("with %d members left: got %s, want %s", len(others)+1, nodetest.Show(f), want)
		}
		if f.Event == "sync" {
			r := present()
			if r.take(f); !r.is(append(others, a)...) {
				t.Errorf("of %d members: got %s", len(others)+1, nodetest.Show(f))
			}
		}
	}
	come("join 2")
	come("join 3")
	come("count 4")
	goes("sync 3")
	goes("leave 2")
	come("join 3")
	come("count 4")
	come("count 5")
	goes("count 4")
	goes("sync 3")
	goes("leave 2")
	goes("leave 1")
}

// The answer to a join has the list, so it is not told again once the newcomer is live.
func TestWhoJoinsIsToldTheListOnce(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	for range 3 {
		p := joined(t, c.Nodes[0])
		p.Say(`{"op":"ping","req":"last"}`)
		for f := p.Next(); f.Op != "ok"; f = p.Next() {
			if f.Event == wire.EventSync {
				t.Errorf("after the answer it was told %s", nodetest.Show(f))
			}
		}
	}
}

// Whoever was too slow for what happened meanwhile is told who is there once it has caught up.
func TestWhoCaughtUpKnowsWhoIsThere(t *testing.T) {
	t.Parallel()
	// Each gives who a client is that reads nothing for now, and what it is told.
	for name, freeze := range map[string]func(*testing.T, *nodetest.Node) (me string, next func() wire.Frame){
		"WebSocket": func(t *testing.T, nd *nodetest.Node) (string, func() wire.Frame) {
			p := nodetest.Dial(t, nd.URL("/"))
			p.Narrow()
			p.Say(`{"op":"join","room":"lobby"}`)
			return p.Welcome.User.ID, p.Next
		},
		"event stream": func(t *testing.T, nd *nodetest.Node) (string, func() wire.Frame) {
			s := listen(t, nd.HTTP("/v1/rooms/lobby/events"))
			_, w := s.until("welcome")
			return w.User.ID, func() wire.Frame {
				f, err := wire.ParseFrame([]byte(s.next().data))
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
		},
	} {
		for _, limit := range []int{200, 3} {
			t.Run(fmt.Sprint(name, ", limit ", limit), func(t *testing.T) {
				t.Parallel()
				w := newWatch()
				c := nodetest.StartNarrow(t, 1, func(cfg *node.Config) {
					cfg.Observer, cfg.QueueBytes, cfg.PresenceLimit = w, 16<<10, limit
				})
				nd := c.Nodes[0]
				sender := joined(t, nd)
				goes := joined(t, nd)
				me, next := freeze(t, nd)
				for sender.Until("presence").User.ID != me { // until it is there
				}
				pad := strings.Repeat("x", 4000)
				w.overflow(t, func() {
					sender.SendText("lobby", pad)
					goes.Until("message") // so it is the frozen one that overflows
				})
				want := map[string]bool{me: true, sender.Welcome.User.ID: true}
				leave(goes)
				for range 2 {
					want[joined(t, nd).Welcome.User.ID] = true
				}
				sender.SendText("lobby", "the end")
				var r roll
				for f := next(); f.Op != "message" || f.Text != "the end"; f = next() {
					r.take(f)
				}
				for limit > 3 && !maps.Equal(r.members, want) || r.count != 4 {
					r.take(next())
				}
				for _, event := range r.told {
					if limit > 3 && event == "leave 2" || limit == 3 && strings.HasPrefix(event, "sync") || event == "join 4" {
						t.Errorf("was told %v", r.told)
					}
				}
			})
		}
	}
}

// The same for one who comes back, and takes its time over what it missed.
func TestWhoComesBackSlowlyKnowsWhoIsThere(t *testing.T) {
	t.Parallel()
	c := nodetest.StartNarrow(t, 2, func(cfg *node.Config) { cfg.QueueBytes = 16 << 10 })
	a := joined(t, c.Nodes[0])
	goes := joined(t, c.Nodes[0])
	pad := strings.Repeat("x", 4000)
	for range 400 { // more than fits between a node and a peer that reads nothing
		a.Say(`{"op":"send","room":"lobby","text":%q}`, pad)
		a.Until("ok")
	}
	back := nodetest.Dial(t, c.Nodes[1].URL("/"))
	back.Narrow()
	back.Say(`{"op":"join","room":"lobby","since":"0-0"}`)
	var r roll
	f := back.Until("ok")
	r.take(f)
	late := joined(t, c.Nodes[0])
	leave(goes)
	for f.Op != "live" {
		f = back.Next()
		r.take(f)
	}
	for !r.is(a, back, late) {
		r.take(back.Next())
	}
}

// missing is a bus that loses changes of who is there while it is told to, and then says that it did.
type missing struct {
	bus.Bus
	mu    sync.Mutex
	loses bool
	lost  int
}

func (b *missing) lose(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loses = on
}

func (b *missing) Subscribe(ctx context.Context, room string, s bus.Sink) (bus.Subscription, error) {
	return b.Bus.Subscribe(ctx, room, &missingSink{s, b})
}

type missingSink struct {
	bus.Sink
	bus *missing
}

func (s *missingSink) Presence(c bus.Change) {
	s.bus.mu.Lock()
	if s.bus.loses {
		s.bus.lost++
		s.bus.mu.Unlock()
		return
	}
	if s.bus.lost > 0 {
		s.bus.lost = 0
		c = bus.Change{Kind: bus.Synced, Count: c.Count, Version: c.Version}
	}
	s.bus.mu.Unlock()
	s.Sink.Presence(c)
}

// Changes that were missed, too many to be told one by one, are told as what came of them.
func TestChangesThatWereMissedAreToldAsTheListOrTheCount(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		limit int
		want  string
	}{{200, "sync 5"}, {5, "sync 5"}, {4, "count 5"}} {
		t.Run(fmt.Sprint("limit ", tc.limit), func(t *testing.T) {
			t.Parallel()
			m := &missing{}
			c := nodetest.Start(t, 1, func(cfg *node.Config) {
				m.Bus = cfg.Bus
				cfg.Bus, cfg.PresenceLimit = m, tc.limit
			})
			a := joined(t, c.Nodes[0])
			goes := joined(t, c.Nodes[0])
			for _, want := range []string{"join 1", "join 2"} {
				if _, told := nextPresence(a); told != want {
					t.Errorf("got %q, want %q", told, want)
				}
			}
			m.lose(true)
			var others []*nodetest.Peer
			for range 3 {
				others = append(others, joined(t, c.Nodes[0]))
			}
			leave(goes)
			m.lose(false)
			others = append(others, joined(t, c.Nodes[0]))
			f, told := nextPresence(a)
			if told != tc.want {
				t.Errorf("got %s, want %s", nodetest.Show(f), tc.want)
			}
			r := present()
			if r.take(f); f.Event == "sync" && !r.is(append(others, a)...) {
				t.Errorf("got %s", nodetest.Show(f))
			}
		})
	}
}

// onBoth runs a test on two nodes, over each bus.
func onBoth(t *testing.T, grace time.Duration, test func(t *testing.T, c *nodetest.Cluster, w *watch)) {
	t.Parallel()
	for _, kind := range []string{"memory", "Redis"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWatch()
			each := func(cfg *node.Config) { cfg.Grace, cfg.Observer = grace, w }
			if kind == "memory" {
				test(t, nodetest.Start(t, 2, each), w)
				return
			}
			c, _ := onRedis(t, 2, each)
			test(t, c, w)
		})
	}
}

// again is a peer for the same user, over another connection.
func again(t *testing.T, nd *nodetest.Node, of *nodetest.Peer) *nodetest.Peer {
	t.Helper()
	p := nodetest.Dial(t, nd.URL("/"))
	p.Say(`{"op":"hello","session":%q}`, of.Welcome.Session)
	p.Welcome = p.Until("welcome")
	p.Join("lobby")
	return p
}

// cut drops a peer's connection, and returns once its node knows.
func cut(t *testing.T, w *watch, p *nodetest.Peer) {
	t.Helper()
	n := w.count("closed 1006")
	p.Cut()
	w.wait(t, "closed 1006", n+1)
}

// untilPresence reads presence events up to one, and gives those before it.
func untilPresence(p *nodetest.Peer, event string, of *nodetest.Peer) (before []string) {
	for {
		f := p.Until("presence")
		if f.Event == event && f.User.ID == of.Welcome.User.ID {
			return before
		}
		before = append(before, f.Event+" "+f.User.ID)
	}
}

func TestAnExplicitLeaveIsToldWithoutGrace(t *testing.T) {
	onBoth(t, time.Hour, func(t *testing.T, c *nodetest.Cluster, _ *watch) {
		a, b := joined(t, c.Nodes[0]), joined(t, c.Nodes[1])
		untilPresence(a, "join", b)
		stays := joined(t, c.Nodes[1]) // and keeps the room there, whose end would be a leave too
		untilPresence(a, "join", stays)
		leave(b)
		untilPresence(a, "leave", b)
		b.Join("lobby")
		if before := untilPresence(a, "join", b); len(before) > 0 {
			t.Errorf("told %v", before)
		}
	})
}

func TestWhoReturnsLateHasLeftOnce(t *testing.T) {
	onBoth(t, 50*time.Millisecond, func(t *testing.T, c *nodetest.Cluster, w *watch) {
		a, b := joined(t, c.Nodes[0]), joined(t, c.Nodes[1])
		untilPresence(a, "join", b)
		cut(t, w, b)
		untilPresence(a, "leave", b)
		b2 := again(t, c.Nodes[1], b)
		if before := untilPresence(a, "join", b); len(before) > 0 {
			t.Errorf("told %v", before)
		}
		leave(b2)
		if before := untilPresence(a, "leave", b); len(before) > 0 {
			t.Errorf("told %v", before)
		}
	})
}

// Each of these returns before its grace is over, and so has never left. By the time another who dropped later has left, a
// grace that was not taken back would have ended.
func TestWhoReturnsInTimeHasNotLeft(t *testing.T) {
	onBoth(t, time.Second, func(t *testing.T, c *nodetest.Cluster, w *watch) {
		a := joined(t, c.Nodes[0])
		for name, where := range map[string]*nodetest.Node{"on the same node": c.Nodes[1], "on another node": c.Nodes[0]} {
			for try := 0; ; try++ {
				b, later := joined(t, c.Nodes[1]), joined(t, c.Nodes[1])
				began := time.Now()
				cut(t, w, b)
				b2 := again(t, where, b)
				tooLate := time.Since(began) > 900*time.Millisecond
				cut(t, w, later)
				before := untilPresence(a, "leave", later)
				leave(b2)
				if tooLate && try < 10 {
					continue // the machine is busy
				}
				if slices.Contains(before, "leave "+b.Welcome.User.ID) {
					t.Errorf("%s: told %v", name, before)
				}
				if before := untilPresence(a, "leave", b); len(before) > 0 {
					t.Errorf("%s: told %v", name, before)
				}
				break
			}
		}
	})
}

// A grace counts from the last drop.
func TestWhoDropsAgainHasTheWholeGraceAgain(t *testing.T) {
	const grace = 1500 * time.Millisecond
	onBoth(t, grace, func(t *testing.T, c *nodetest.Cluster, w *watch) {
		a := joined(t, c.Nodes[0])
		for try := 0; ; try++ {
			b, later := joined(t, c.Nodes[1]), joined(t, c.Nodes[1])
			first := time.Now()
			cut(t, w, b)
			b2 := again(t, c.Nodes[1], b)
			inTime := time.Since(first) < grace
			cut(t, w, later) // leaves after the first grace of b, and before the second
			time.Sleep(time.Until(first.Add(grace * 2 / 3)))
			second := time.Now()
			cut(t, w, b2)
			before := untilPresence(a, "leave", later)
			b3 := again(t, c.Nodes[1], b)
			inTime = inTime && time.Since(second) < grace
			leave(b3)
			if !inTime && try < 10 {
				continue // the machine is busy
			}
			if slices.Contains(before, "leave "+b.Welcome.User.ID) {
				t.Errorf("told %v", before)
			}
			if before := untilPresence(a, "leave", b); len(before) > 0 {
				t.Errorf("told %v", before)
			}
			return
		}
	})
}

// A user with a connection left, on whichever node, is there; with its last one it leaves, once.
func TestAUserLeavesWithItsLastConnection(t *testing.T) {
	onBoth(t, 50*time.Millisecond, func(t *testing.T, c *nodetest.Cluster, w *watch) {
		a := joined(t, c.Nodes[0])
		for _, other := range []*nodetest.Node{c.Nodes[1], c.Nodes[0]} {
			b := joined(t, c.Nodes[1])
			b2 := again(t, other, b)
			later := joined(t, other)
			untilPresence(a, "join", later) // behind b2, of which there is nothing to tell
			cut(t, w, b)
			cut(t, w, later)
			if before := untilPresence(a, "leave", later); len(before) > 0 {
				t.Errorf("told %v", before)
			}
			b3 := again(t, c.Nodes[1], b)
			leave(b3) // explicit, but not the last
			b2.Say(`{"op":"members","room":"lobby"}`)
			if m := b2.Until("ok"); m.Count != 2 {
				t.Errorf("members: %s", nodetest.Show(m))
			}
			cut(t, w, b2)
			if before := untilPresence(a, "leave", b); len(before) > 0 {
				t.Errorf("told %v", before)
			}
		}
	})
}
