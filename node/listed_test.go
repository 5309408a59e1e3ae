package node_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// The list of a large room is kept for those who come next, until somebody else is in the room: here over another node, so
// that nobody has asked for it meanwhile.
func TestTheListOfALargeRoomNamesWhoIsThere(t *testing.T) {
	t.Parallel()
	const many = 70
	c, _ := onRedis(t, 2)
	n, other := c.Nodes[0], c.Nodes[1]
	watcher := nodetest.Dial(t, n.URL("/"))
	watcher.Join("lobby")
	goes := nodetest.Dial(t, other.URL("/"))
	goes.Join("lobby")
	for range many {
		nodetest.Dial(t, n.URL("/")).Join("lobby")
	}
	lists := func(user string) bool {
		watcher.Say(`{"op":"members","req":"list","room":"lobby"}`)
		f := watcher.Until("ok")
		return slices.ContainsFunc(f.Members, func(m wire.Member) bool { return m.ID == user })
	}
	for watcher.Until("presence").Count < many+2 {
	}
	if !lists(goes.Welcome.User.ID) {
		t.Fatal("a member is not listed")
	}
	goes.Say(`{"op":"leave","room":"lobby"}`)
	goes.Until("ok")
	comes := nodetest.Dial(t, other.URL("/"))
	comes.Join("lobby")
	for left, came := false, false; !left || !came; {
		f := watcher.Until("presence")
		left = left || f.Event == wire.EventLeave
		came = came || f.Event == wire.EventJoin && f.User.ID == comes.Welcome.User.ID
	}
	if lists(goes.Welcome.User.ID) || !lists(comes.Welcome.User.ID) {
		t.Error("the list is that of before")
	}
}

// nobody hears nothing of a room.
type nobody struct{}

func (nobody) Deliver(bus.Message) {}

func (nobody) Presence(bus.Change) {}

func (nobody) Signal([]byte) {}

// enters has so many users be in a room, who have long names.
func enters(t *testing.T, b bus.Bus, room string, users int) {
	t.Helper()
	sub, err := b.Subscribe(t.Context(), room, nobody{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Close)
	for i := range users {
		sub.Enter(bus.Member{ID: fmt.Sprintf("user-%058d", i), Name: strings.Repeat("é", 32)})
	}
}

// A list has so many members at most, and the count is of all: who asks is counted once, though it may not be on the list.
func TestAListOfSomeCountsWhoAsksOnce(t *testing.T) {
	t.Parallel()
	const users = 4 * bus.RosterMax
	c := nodetest.Start(t, 2)
	enters(t, c.Nodes[1].Bus, "lobby", users)
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	joined, _ := p.Join("lobby")
	lists := []wire.Frame{joined}
	for range 20 { // each may be of others
		p.Say(`{"op":"members","req":"list","room":"lobby"}`)
		lists = append(lists, p.Until("ok"))
	}
	for _, f := range lists {
		if len(f.Members) != bus.RosterMax || f.Count != users+1 {
			t.Errorf("%d members are listed, of %d", len(f.Members), f.Count)
		}
	}
	for _, f := range lists[1:] {
		if !slices.IsSortedFunc(f.Members, func(a, b wire.Member) int { return strings.Compare(a.ID, b.ID) }) {
			t.Error("a list is not in the order of ids")
		}
	}
}

// lateRoster is a bus that takes a while to take somebody into a room.
type lateRoster struct{ bus.Bus }

func (b lateRoster) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	s, err := b.Bus.Subscribe(ctx, room, sink)
	return notYet{s}, err
}

type notYet struct{ bus.Subscription }

func (notYet) Enter(bus.Member) {}

// Who joins is on the list before the bus has taken it in, but on no list that is full.
func TestWhoJoinsIsListedAtOnceWhereThereIsSpace(t *testing.T) {
	t.Parallel()
	for users, listed := range map[int]int{0: 1, bus.RosterMax - 1: bus.RosterMax, bus.RosterMax: bus.RosterMax} {
		c := nodetest.Start(t, 2, func(cfg *node.Config) { cfg.Bus = lateRoster{cfg.Bus} })
		enters(t, c.Nodes[1].Bus, "lobby", users)
		p := nodetest.Dial(t, c.Nodes[0].URL("/"))
		if f, _ := p.Join("lobby"); len(f.Members) != listed || f.Count != users+1 {
			t.Errorf("beside %d others, %d members are listed, of %d", users, len(f.Members), f.Count)
		}
	}
}
