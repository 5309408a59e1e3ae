package bustest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/bus"
)

// movedFaults are those where who is there must be right on every node, and for all whom a node has given a list, whatever came
// between: users who move from node to node, keys that vanish, a server that is full.
var movedFaults = []promise{
	{name: "who moves while the server stands still is listed everywhere", test: func(c *cluster) { moves(c, 3*time.Second) }},
	{name: "nor does it matter if all leases run out meanwhile", test: func(c *cluster) { moves(c, 9*time.Second) }},
	{name: "keys of a room that vanish are made anew, and nobody leaves", test: keysVanish},
	{name: "who leaves once the key that has him has vanished is gone for all", test: leavesVanished},
	{name: "who has left a room leaves it again when the server is what it was", test: leftBeforeGoingBack},
	{name: "rooms are listed again once what lists them has vanished", test: listVanished},
	{name: "who left while the server was away is gone once it is back", test: leftMeanwhile},
	{name: "a full server takes leaves at once and enters later", test: fullServer},
	{name: "a node stays ready though a full server gives it no lease", test: fullPastLease},
	{name: "a version that comes again after a failover hides nothing", test: versionsCoincide},
}

// A witness is somebody whom a node has given a list, and tells what follows.
type witness struct {
	version uint64
	listed  []string
	seen    *Recorder
}

// knows is whom the witness takes to be there.
func (w witness) knows() []string {
	now := map[string]bool{}
	for _, user := range w.listed {
		now[user] = true
	}
	for _, ch := range w.seen.Seen().Changes {
		switch {
		case ch.Version <= w.version:
		case ch.Kind == bus.Left:
			delete(now, ch.Member.ID)
		default:
			now[ch.Member.ID] = true
		}
	}
	return sorted(now)
}

// moves has the connections of 18 users break one after the other while the server stands still; each comes back over the
// next node, and is given a list there.
func moves(c *cluster, outage time.Duration) {
	var subs []bus.Subscription
	var told []*Recorder
	for range 3 {
		sub, r := c.open().subscribe(room)
		subs, told = append(subs, sub), append(told, r)
	}
	all := numbered("u", 18)
	for i, user := range all {
		subs[i%3].Enter(bus.Member{ID: user})
	}
	until(c.t, "all to be there", func() bool {
		return !slices.ContainsFunc(subs, func(s bus.Subscription) bool { return s.Roster().Count != len(all) })
	})
	c.server.Pause()
	var witnesses []witness
	for i, user := range all {
		subs[i%3].Leave(user)
		time.Sleep(outage / time.Duration(2*len(all)))
		at := (i + 1) % 3
		subs[at].Enter(bus.Member{ID: user})
		roster := subs[at].Roster()
		witnesses = append(witnesses, witness{roster.Version, users(roster), told[at]})
		time.Sleep(outage / time.Duration(2*len(all)))
	}
	c.server.Resume()
	reader := c.nodes[0]
	back := time.Now()
	until(c.t, "everybody to list everybody", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		read, err := reader.Roster(ctx, room)
		return err == nil && slices.Equal(users(read), sorted(set(all))) &&
			!slices.ContainsFunc(subs, func(s bus.Subscription) bool { return !slices.Equal(users(s.Roster()), users(read)) }) &&
			!slices.ContainsFunc(witnesses, func(w witness) bool { return !slices.Equal(w.knows(), users(read)) })
	})
	c.within(10*time.Second, back, "listing everybody")
}

func set(all []string) map[string]bool {
	out := map[string]bool{}
	for _, s := range all {
		out[s] = true
	}
	return out
}

// keysVanish deletes the keys that a room's members have in Redis, one after the other, and all at once.
func keysVanish(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann", "amy")
	enterAll(c, subB, atA, "bob", "ben")
	all := []string{"amy", "ann", "ben", "bob"}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	client := c.server.Client()
	keys := func() (out []string) {
		c.t.Helper()
		found, err := client.Keys(ctx, "*").Result()
		if err != nil {
			c.t.Fatal(err)
		}
		for _, key := range found {
			if kind := client.Type(ctx, key).Val(); strings.Contains(key, room) && kind == "hash" {
				out = append(out, key)
			}
		}
		slices.Sort(out)
		return out
	}
	first := keys()
	check(c.t, "keys of members", len(first), 3)
	for _, gone := range append(slices.Collect(slices.Chunk(first, 1)), first) {
		if err := client.Del(ctx, gone...).Err(); err != nil {
			c.t.Fatal(err)
		}
		since := time.Now()
		until(c.t, "them to be there again", func() bool { return slices.Equal(keys(), first) && slices.Equal(users(a.roster(room)), all) })
		c.within(10*time.Second, since, fmt.Sprint("making up for ", len(gone), " of the keys"))
	}
	enterAll(c, subA, atB, "end")
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "the end", changed(bus.Joined, "end", 1))
		check(c.t, "changes", len(s.Changes), 5)
	}
}

// leavesVanished deletes what a room's members have in Redis before they leave it, and before all leave with their subscription.
func leavesVanished(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subB, atA, "bob")
	for _, all := range []bool{true, false} { // the subscription ends too, or does not
		enterAll(c, subA, atB, fmt.Sprint("ann", all), fmt.Sprint("amy", all))
		ctx, cancel := patient()
		client := c.server.Client()
		keys, err := client.Keys(ctx, "*{"+room+"}:of:*").Result()
		if err == nil {
			err = client.Del(ctx, keys...).Err()
		}
		cancel()
		if err != nil {
			c.t.Fatal(err)
		}
		subA.Leave(fmt.Sprint("ann", all))
		if subA.Leave(fmt.Sprint("amy", all)); all {
			subA.Close()
			subA, _ = a.subscribe(room)
		}
		since := time.Now()
		until(c.t, "bob alone to be there", func() bool {
			return slices.Equal(users(subB.Roster()), []string{"bob"}) && slices.Equal(users(a.roster(room)), []string{"bob"})
		})
		c.within(10*time.Second, since, "leaving")
	}
}

// leftBeforeGoingBack has a server have again whom a room has lost with the last of its node's subscriptions. Nobody watches one of the
// rooms, and the node lives.
func leftBeforeGoingBack(c *cluster) {
	a, b := c.open(), c.open()
	_, atB := b.subscribe(room)
	var subs []bus.Subscription
	all := []string{room, "unwatched", "in which somebody stays"}
	for _, name := range all {
		sub, atA := a.subscribe(name)
		enterAll(c, sub, atA, "ann")
		subs = append(subs, sub)
	}
	atB.Wait(c.t, "ann to join", changed(bus.Joined, "ann", 1))
	before := c.snapshot()
	for _, sub := range subs[:2] {
		sub.Close()
	}
	until(c.t, "ann to have left", func() bool { return b.roster(all[0]).Count+b.roster(all[1]).Count == 0 })
	c.rewind(before)
	check(c.t, "those who are there again", b.roster("unwatched").Count, 1)
	back := time.Now()
	until(c.t, "ann to have left again", func() bool { return b.roster(all[0]).Count+b.roster(all[1]).Count == 0 })
	c.within(leaseOver, back, "leaving again")
	check(c.t, "those who stay", b.roster(all[2]).Count, 1)
	rooms, err := b.Rooms(context.Background())
	must(c, err)
	check(c.t, "rooms", rooms, all[2:])
}

// listVanished deletes what lists a node's rooms.
func listVanished(c *cluster) {
	a, b := c.open(), c.open()
	all := numbered("room", 3)
	for _, name := range all {
		sub, atA := a.subscribe(name)
		enterAll(c, sub, atA, "ann")
	}
	c.deleteSets()
	since := time.Now()
	until(c.t, "the rooms to be listed", func() bool {
		rooms, err := b.Rooms(context.Background())
		must(c, err)
		slices.Sort(rooms)
		return slices.Equal(rooms, all)
	})
	c.within(10*time.Second, since, "listing them again")
}

// leftMeanwhile has somebody leave while all leases run out: nothing of his node's earlier life keeps him.
func leftMeanwhile(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann", "leaves")
	enterAll(c, subB, atA, "bob")
	c.server.Pause()
	time.Sleep(8 * time.Second)
	subA.Leave("leaves")
	c.server.Resume()
	since := time.Now()
	for _, r := range []*Recorder{atA, atB} {
		r.Wait(c.t, "the leave", changed(bus.Left, "leaves", 1))
	}
	c.within(6*time.Second, since, "leaving")
	enterAll(c, subA, atB, "end")
	atA.Wait(c.t, "the end", changed(bus.Joined, "end", 1))
	for _, r := range []*Recorder{atA, atB} {
		check(c.t, "changes", len(r.Seen().Changes), 5)
	}
}

func fullServer(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann", "bob")
	c.configure("maxmemory", "1")
	subA.Enter(bus.Member{ID: "cay"})
	subA.Leave("ann")
	since := time.Now()
	for _, r := range []*Recorder{atA, atB} {
		r.Wait(c.t, "ann to leave", changed(bus.Left, "ann", 1))
	}
	c.within(3*time.Second, since, "a leave that a full server takes")
	time.Sleep(7 * time.Second) // more than a lease
	for _, n := range []*node{a, b} {
		check(c.t, "ready", n.Ready(), nil)
	}
	for _, roster := range []bus.Roster{subA.Roster(), b.roster(room)} {
		check(c.t, "who is there", users(roster), []string{"bob"})
	}
	c.configure("maxmemory", "0")
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "cay to join", changed(bus.Joined, "cay", 1))
		check(c.t, "who is there by the changes", follow(c.t, s.Changes), []string{"bob", "cay"})
		check(c.t, "changes", len(s.Changes), 4)
	}
}

// fullPastLease has a node stand still past its lease while the server is full. It is back as soon as there is memory.
func fullPastLease(c *cluster) {
	a, b := c.openProxied(), c.open()
	subA, _ := a.subscribe(room)
	_, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	c.configure("maxmemory", "1")
	a.wire.freeze()
	atB.Wait(c.t, "ann to leave", changed(bus.Left, "ann", 1))
	a.wire.thaw()
	until(c.t, "the node to be ready", func() bool { return a.Ready() == nil })
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err := a.Ready(); err != nil {
			c.t.Fatalf("the node is not ready any more: %v", err)
		}
	}
	if _, err := a.Before(context.Background(), room, bus.ID{}, 1, 0); err != nil {
		c.t.Errorf("the node reads no more: %v", err)
	}
	if o := a.await(a.start(room, bus.Draft{Body: []byte("m")})); !errors.Is(o.err, bus.ErrUnavailable) {
		c.t.Errorf("publishing while the server is full: %v", o.err)
	}
	c.configure("maxmemory", "0")
	since := time.Now()
	s := atB.Wait(c.t, "ann to be back", changed(bus.Joined, "ann", 2))
	c.within(6*time.Second, since, "coming back")
	check(c.t, "who is there by the changes", follow(c.t, s.Changes), []string{"ann"})
}

// versionsCoincide has the server lose changes, and as many others follow: an observer who saw the former must not take them
// for the latter.
func versionsCoincide(c *cluster) {
	a, b := c.openProxied(), c.open()
	subA, _ := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	ctx, cancel := patient()
	defer cancel()
	if err := c.server.Client().Save(ctx).Err(); err != nil {
		c.t.Fatal(err)
	}
	enterAll(c, subA, atB, "lost1", "lost2")
	a.wire.freeze()
	c.server.Restart() // with what it had saved
	subA.Leave("lost1")
	subA.Leave("lost2")
	subA.Enter(bus.Member{ID: "new1"})
	subA.Enter(bus.Member{ID: "new2"})
	a.wire.thaw()
	back := time.Now()
	want := []string{"ann", "new1", "new2"}
	until(c.t, "all to list the same", func() bool {
		return slices.Equal(users(subA.Roster()), want) && slices.Equal(users(subB.Roster()), want) && slices.Equal(users(b.roster(room)), want)
	})
	c.within(15*time.Second, back, "listing the same")
	check(c.t, "leaves of ann", changes(atB.Seen(), bus.Left, "ann"), 0)
}
