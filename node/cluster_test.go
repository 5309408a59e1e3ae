package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// onRedis runs n nodes on a Redis of their own. What their clients do not read soon waits in its queue.
func onRedis(t *testing.T, n int, each ...func(*node.Config)) (*nodetest.Cluster, *bustest.RedisServer) {
	t.Helper()
	return onRedisAs(t, redis.Config{}, n, each...)
}

// onRedisAs is onRedis with a bus that is configured so.
func onRedisAs(t *testing.T, cfg redis.Config, n int, each ...func(*node.Config)) (*nodetest.Cluster, *bustest.RedisServer) {
	t.Helper()
	server := bustest.StartRedis(t)
	open := func(o bus.Observer) bus.Bus {
		cfg := cfg
		cfg.URL, cfg.Observer, cfg.Log = server.URL(), o, slog.New(slog.DiscardHandler)
		b, err := redis.Open(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return nodetest.StartNarrowOn(t, n, open, each...), server
}

func TestNodesOnRedisShareRooms(t *testing.T) {
	t.Parallel()
	c, _ := onRedis(t, 3)
	var peers []*nodetest.Peer
	for _, nd := range c.Nodes {
		p := nodetest.Dial(t, nd.URL("/"))
		p.Join("lobby")
		peers = append(peers, p)
	}
	for i, from := range peers {
		sent := from.SendText("lobby", string(rune('a'+i)))
		for _, p := range peers {
			if m := p.Until("message"); m.ID != sent || m.From.ID != from.Welcome.User.ID {
				t.Errorf("got %s", nodetest.Show(m))
			}
		}
	}
	if j, backlog := nodetest.Dial(t, c.Nodes[1].URL("/")).Join("lobby"); j.Count != 4 || len(backlog) != 3 {
		t.Errorf("%d messages, %s", len(backlog), nodetest.Show(j))
	}
}

// What is to be on a replica is not acknowledged by its having come back from the bus: that is before any replica has it.
func TestWhatNoReplicaHasIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	c, _ := onRedisAs(t, redis.Config{Replicas: 1, Timeout: 500 * time.Millisecond}, 1)
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("lobby")
	heard := false
	for n := range 3 {
		p.Say(`{"op":"send","req":%d,"room":"lobby","text":"hi","key":"1"}`, n)
		f := p.Next()
		for ; f.Op != "ok" && f.Op != "error"; f = p.Next() {
			heard = heard || f.Op == "message"
		}
		if f.Code != wire.Unavailable {
			t.Fatalf("a message that is on no replica is answered %s", nodetest.Show(f))
		}
	}
	if !heard { // but it is said
		p.Until("message")
	}
}

func TestALostLogIsToldAsAGapToThoseWhoAreThereAndThoseWhoComeBack(t *testing.T) {
	t.Parallel()
	c, redis := onRedis(t, 2)
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	a.Join("lobby")
	plain := settled(t, c.Nodes[1].URL("/"), "lobby", a)
	early := a.SendText("lobby", "early")
	late := a.SendText("lobby", "late")
	plain.Read()
	plain.Read()
	if err := redis.Client().FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	gap := a.Until("gap") // the node notices by itself
	if late.Less(gap.After) {
		t.Errorf("got %s", nodetest.Show(gap))
	}
	plain.WantClose(wire.StatusOverload)
	next := a.SendText("lobby", "next")
	if !late.Less(next) {
		t.Errorf("after the loss the ids go on from %v, before it from %v", next, late)
	}
	heard(t, c, "lobby", next)
	for _, since := range []bus.ID{early, late} {
		for _, nd := range c.Nodes {
			back := nodetest.Dial(t, nd.URL("/"))
			j, backlog := back.Join("lobby", fmt.Sprintf(`"since":%q`, since))
			if got := texts(backlog); j.Recovered == nil || *j.Recovered || len(got) == 0 || got[0] != "gap" || got[len(got)-1] != "next" {
				t.Errorf("back since %v: recovered %v, %v", since, j.Recovered, got)
			}
		}
	}
}

// A putBack is a bus whose logs have lost what follows an id, which nobody has noticed yet.
type putBack struct {
	bus.Bus
	to *atomic.Pointer[bus.ID] // nil for now
}

func (b putBack) After(ctx context.Context, room string, since bus.ID, limit, bytes int) (bus.Page, error) {
	if to := b.to.Load(); to != nil && to.Less(since) {
		return bus.Page{Last: *to}, nil
	}
	return b.Bus.After(ctx, room, since, limit, bytes)
}

// Who knows more than the log has, since it lost the newest, has all that it has: nothing of it is heard again.
func TestWhoKnowsMoreThanTheLogHearsNothingTwice(t *testing.T) {
	t.Parallel()
	var to atomic.Pointer[bus.ID]
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus = putBack{cfg.Bus, &to} })
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	a.Join("lobby")
	one := a.SendText("lobby", "one")
	two := a.SendText("lobby", "two")
	for two.Ms == one.Ms {
		two = a.SendText("lobby", "two")
	}
	heard(t, c, "lobby", two)
	to.Store(&one)
	lost := bus.ID{Ms: one.Ms, Seq: one.Seq + 99999} // which the node does not have in memory
	back := nodetest.Dial(t, c.Nodes[0].URL("/"))
	j, backlog := back.Join("lobby", fmt.Sprintf(`"since":%q`, lost))
	if j.Recovered == nil || *j.Recovered || len(backlog) == 0 || backlog[0].Op != "gap" || backlog[0].After != one || slices.Contains(texts(backlog), "one") {
		t.Errorf("recovered %v, and then %v", j.Recovered, texts(backlog))
	}
}

// A forgotten is a bus whose logs are empty by now. Of each it may know yet which message was the last.
type forgotten struct {
	bus.Bus
	all bool
}

func (b forgotten) page(p bus.Page, since bus.ID, err error) (bus.Page, error) {
	if p = (bus.Page{Last: p.Last, Complete: since == p.Last}); b.all {
		p = bus.Page{}
	}
	return p, err
}

func (b forgotten) After(ctx context.Context, room string, since bus.ID, limit, bytes int) (bus.Page, error) {
	p, err := b.Bus.After(ctx, room, since, limit, bytes)
	return b.page(p, since, err)
}

func (b forgotten) Before(ctx context.Context, room string, before bus.ID, limit, bytes int) (bus.Page, error) {
	p, err := b.Bus.Before(ctx, room, before, limit, bytes)
	return b.page(p, before, err)
}

// Who comes back when all that followed is too old for the log is told of a gap after what it saw last, and goes on from the newest.
func TestWhoComesBackToALogThatIsEmptyByNowIsToldOfAGap(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{false, true} {
		nodes := 0
		c := nodetest.Start(t, 2, func(cfg *node.Config) {
			if nodes++; nodes == 2 {
				cfg.Bus = forgotten{cfg.Bus, all}
			}
		})
		a := nodetest.Dial(t, c.Nodes[0].URL("/"))
		a.Join("lobby")
		one := a.SendText("lobby", "one")
		a.SendText("lobby", "two")
		three := a.SendText("lobby", "three")
		back := nodetest.Dial(t, c.Nodes[1].URL("/"))
		j, backlog := back.Join("lobby", fmt.Sprintf(`"since":%q`, one))
		if j.Recovered == nil || *j.Recovered || len(backlog) != 1 || backlog[0].Op != "gap" || backlog[0].After != one || backlog[0].Last != three {
			t.Errorf("all forgotten %v: recovered %v, then %v, want a gap from %v to %v", all, j.Recovered, backlog, one, three)
		}
		a.SendText("lobby", "four")
		if m := back.Until("message"); m.Text != "four" {
			t.Errorf("then comes %s", nodetest.Show(m))
		}
	}
}

// A replica that was promoted without the newest message: the log has a break in its middle.
func TestABreakInTheLogIsToldInItsPlaceToWhoComesBack(t *testing.T) {
	t.Parallel()
	c, redis := onRedis(t, 2)
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	a.Join("lobby")
	one := a.SendText("lobby", "one")
	two := a.SendText("lobby", "two")
	three := a.SendText("lobby", "three")
	ctx, client := context.Background(), redis.Client()
	if n, err := client.XDel(ctx, "parley:{lobby}:log", three.String()).Result(); n != 1 {
		t.Fatal(n, err)
	}
	if err := client.Set(ctx, "parley:{lobby}:last", two.String(), 0).Err(); err != nil {
		t.Fatal(err)
	}
	gap := a.Until("gap") // the node notices by itself
	heard(t, c, "lobby", a.SendText("lobby", "four"))
	_, backlog := nodetest.Dial(t, c.Nodes[1].URL("/")).Join("lobby", fmt.Sprintf(`"since":%q`, one))
	if got := texts(backlog); !slices.Equal(got, []string{"two", "gap", "four"}) {
		t.Fatalf("got %v", got)
	}
	for _, told := range []wire.Frame{gap, backlog[1]} { // who is cut off then has heard of it
		for _, nd := range c.Nodes {
			j, backlog := nodetest.Dial(t, nd.URL("/")).Join("lobby", fmt.Sprintf(`"since":%q`, told.Last))
			if got := texts(backlog); told.After != two || j.Recovered == nil || !*j.Recovered || !slices.Equal(got, []string{"four"}) {
				t.Errorf("after %s: recovered %v, %v", nodetest.Show(told), j.Recovered, got)
			}
		}
	}
}

func TestWithoutRedisSendsAreUnavailableAndNobodyIsDropped(t *testing.T) {
	t.Parallel()
	c, redis := onRedis(t, 2)
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	b := nodetest.Dial(t, c.Nodes[1].URL("/"))
	a.Join("lobby")
	b.Join("lobby")
	redis.Pause()
	a.Say(`{"op":"send","req":1,"room":"lobby","text":"x","key":"k"}`)
	if f := a.UntilError(); f.Code != wire.Unavailable || f.RetryAfter == 0 {
		t.Errorf("got %s", nodetest.Show(f))
	}
	late := nodetest.Dial(t, c.Nodes[0].URL("/"))
	late.Say(`{"op":"join","req":1,"room":"elsewhere"}`)
	late.WantError(wire.Unavailable)
	redis.Resume()
	for {
		a.Say(`{"op":"send","req":2,"room":"lobby","text":"x","key":"k"}`)
		if f := a.Next(); f.Op == "ok" && string(f.Req) == "2" {
			break
		}
	}
	b.Until("message")
	a.SendText("lobby", "y")
	if m := b.Until("message"); m.Text != "y" {
		t.Errorf("the repeats came through too: %s", nodetest.Show(m))
	}
}

func TestAnAnswerComesBeforeTheMessageItIsFor(t *testing.T) {
	t.Parallel()
	c, _ := onRedis(t, 1)
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("lobby", `"limit":0`)
	p.Until("presence") // its own coming: from here on all is ours
	for n := range 200 {
		p.Say(`{"op":"send","room":"lobby","text":"hello"}`)
		if first := p.Next(); first.Op != "ok" {
			t.Fatalf("message %d: first came %s", n, nodetest.Show(first))
		}
		p.Want("message")
	}
}
