package bustest

import (
	"fmt"
	"slices"
	"time"

	"parley/bus"
)

// presenceFaults are what members must not notice, or must notice once.
var presenceFaults = []promise{
	{name: "the members of a dead node leave, each once", test: deadNode},
	{name: "those of a dead node do not count, though nobody watches", test: deadNodeUnwatched},
	{name: "they leave, though what says where they were has vanished", test: deadNodeForgotten},
	{name: "who is there over another node stays", test: deadNodeOfTwo},
	{name: "the members of a paused node leave once, and return once", test: pausedNode},
	{name: "who enters and leaves while the server is away", test: enterWhileAway},
	{name: "a change that arrives late undoes nothing", test: lateChange},
	{name: "a lost presence event is made up for", test: presenceDropped},
	{name: "nobody leaves because the server paused", test: presencePaused},
	{name: "members survive a flush", test: presenceFlushed},
	{name: "members survive reconnects", test: presenceReconnects},
}

// leaseOver is how long the members of a node that was killed may stay: 10 s.
const leaseOver = 10 * time.Second

// die ends a node's connections for good, without a goodbye.
func (n *node) die() { n.wire.close() }

func enterAll(c *cluster, sub bus.Subscription, r *Recorder, all ...string) {
	c.t.Helper()
	for _, user := range all {
		sub.Enter(bus.Member{ID: user, Name: user})
	}
	for _, user := range all {
		r.Wait(c.t, user+" to join", changed(bus.Joined, user, 1))
	}
}

func deadNode(c *cluster) {
	// Two that survive, of which both may reap.
	a, b, dead := c.open(), c.open(), c.openProxied()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	sub, _ := dead.subscribe(room)
	enterAll(c, subA, atB, "ann")
	gone := numbered("gone", 20)
	enterAll(c, sub, atA, gone...)
	dead.die()
	since := time.Now()
	for _, r := range []*Recorder{atA, atB} {
		for _, user := range gone {
			r.Wait(c.t, user+" to leave", changed(bus.Left, user, 1))
		}
	}
	c.within(leaseOver, since, "the leaves of a dead node's members")
	enterAll(c, subB, atA, "end")
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "the end", changed(bus.Joined, "end", 1))
		check(c.t, "who is there by the changes", follow(c.t, s.Changes), []string{"ann", "end"})
		for _, user := range gone {
			check(c.t, "leaves of "+user, changes(s, bus.Left, user), 1)
		}
	}
	check(c.t, "roster", users(a.roster(room)), []string{"ann", "end"})
}

func deadNodeUnwatched(c *cluster) {
	a, dead := c.open(), c.openProxied()
	rooms := numbered("room", 5)
	for _, name := range rooms {
		sub, r := dead.subscribe(name)
		enterAll(c, sub, r, "ann")
		check(c.t, "roster of "+name, a.roster(name).Count, 1)
	}
	dead.die()
	since := time.Now()
	for _, name := range rooms {
		until(c.t, name+" to be empty", func() bool { return a.roster(name).Count == 0 })
	}
	c.within(leaseOver, since, "leaving")
	sub, r := a.subscribe(rooms[0])
	check(c.t, "roster of who comes later", sub.Roster().Count, 0)
	enterAll(c, sub, r, "bob")
	check(c.t, "count", r.Seen().Changes[0].Count, 1)
}

// deadNodeForgotten deletes all that the server has of a dead node but its members: whoever looks at a room finds them there.
func deadNodeForgotten(c *cluster) {
	a, dead := c.open(), c.openProxied()
	const unwatched = "unwatched"
	sub, atA := a.subscribe(room)
	enterAll(c, sub, atA, "bob")
	for _, name := range []string{room, unwatched} {
		sub, r := dead.subscribe(name)
		enterAll(c, sub, r, "ann")
	}
	atA.Wait(c.t, "ann", changed(bus.Joined, "ann", 1))
	dead.die()
	since := time.Now()
	c.deleteSets()
	until(c.t, "the room that nobody watches to be empty", func() bool { return a.roster(unwatched).Count == 0 })
	atA.Wait(c.t, "ann's leave", changed(bus.Left, "ann", 1))
	c.within(leaseOver+10*time.Second, since, "leaving")
	until(c.t, "bob alone to be there", func() bool { return slices.Equal(users(a.roster(room)), []string{"bob"}) })
}

// deleteSets deletes what the server has of nodes, and of where they are.
func (c *cluster) deleteSets() {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	client := c.server.Client()
	var sets []string
	for _, key := range client.Keys(ctx, "*").Val() {
		if client.Type(ctx, key).Val() == "set" {
			sets = append(sets, key)
		}
	}
	check(c.t, "sets", len(sets) >= 2, true)
	if err := client.Del(ctx, sets...).Err(); err != nil {
		c.t.Fatal(err)
	}
}

func deadNodeOfTwo(c *cluster) {
	a, dead := c.open(), c.openProxied()
	subA, atA := a.subscribe(room)
	sub, _ := dead.subscribe(room)
	enterAll(c, subA, atA, "both")
	enterAll(c, sub, atA, "gone")
	sub.Enter(bus.Member{ID: "both", Name: "both"})
	enterAll(c, sub, atA, "after both")
	dead.die()
	atA.Wait(c.t, "gone to leave", changed(bus.Left, "gone", 1))
	s := atA.Wait(c.t, "after both to leave", changed(bus.Left, "after both", 1))
	check(c.t, "who is there by the changes", follow(c.t, s.Changes), []string{"both"})
	subA.Leave("both") // it was the last
	s = atA.Wait(c.t, "both to leave", changed(bus.Left, "both", 1))
	check(c.t, "who is there by the changes", follow(c.t, s.Changes), []string{})
	check(c.t, "joins", changes(s, bus.Joined, "both"), 1)
}

func pausedNode(c *cluster) {
	a, b := c.open(), c.openProxied()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	enterAll(c, subB, atA, "bob")
	atB.Wait(c.t, "bob to join", changed(bus.Joined, "bob", 1))
	b.wire.freeze()
	frozen := time.Now()
	atA.Wait(c.t, "bob to leave", changed(bus.Left, "bob", 1))
	c.within(leaseOver, frozen, "the leave of a paused node's member")
	check(c.t, "bob is there for his own node", slices.Contains(users(subB.Roster()), "bob"), true)
	b.wire.thaw()
	s := atA.Wait(c.t, "bob to return", changed(bus.Joined, "bob", 2))
	check(c.t, "leaves", changes(s, bus.Left, "bob"), 1)
	check(c.t, "who is there by the changes", follow(c.t, s.Changes), []string{"ann", "bob"})
	for i, n := range []*node{a, b, c.open()} {
		check(c.t, fmt.Sprint("roster that handle ", i, " reads"), users(n.roster(room)), []string{"ann", "bob"})
	}
	until(c.t, "both to know the same", func() bool { return subA.Roster().Version == subB.Roster().Version })
	check(c.t, "roster at b", users(subB.Roster()), []string{"ann", "bob"})
	subB.Leave("bob")
	atA.Wait(c.t, "bob to leave", changed(bus.Left, "bob", 2))
	check(c.t, "roster at a", users(subA.Roster()), []string{"ann"})
}

func enterWhileAway(c *cluster) {
	a, b := c.openProxied(), c.open()
	subA, _ := a.subscribe(room)
	_, atB := b.subscribe(room)
	enterAll(c, subA, atB, "leaves")
	a.wire.freeze()
	subA.Enter(bus.Member{ID: "enters"})
	subA.Enter(bus.Member{ID: "shortly"})
	subA.Leave("shortly")
	subA.Leave("leaves")
	until(c.t, "the node to be deaf", func() bool { return a.Ready() != nil })
	a.wire.thaw()
	atB.Wait(c.t, "enters to join", changed(bus.Joined, "enters", 1))
	s := atB.Wait(c.t, "leaves to leave", changed(bus.Left, "leaves", 1))
	until(c.t, "the roster to be right", func() bool { return slices.Equal(users(b.roster(room)), []string{"enters"}) })
	check(c.t, "leaves", changes(s, bus.Left, "leaves"), 1)
}

func lateChange(c *cluster) {
	a, b := c.openProxied(), c.open()
	subA, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	enterAll(c, subA, atB, "user-ann")
	held, release := a.wire.holdRequest("user-late")
	subA.Enter(bus.Member{ID: "user-late"})
	c.await(held, "the change to be sent")
	subA.Leave("user-late")
	enterAll(c, subA, atB, "user-next") // the change was given up, and made up for
	release()
	c.roundTrips()
	enterAll(c, subA, atB, "user-end")
	want := []string{"user-ann", "user-end", "user-next"}
	check(c.t, "roster", users(b.roster(room)), want)
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "the end", changed(bus.Joined, "user-end", 1))
		check(c.t, "who is there by the changes", follow(c.t, s.Changes), want)
		check(c.t, "joins of who came too late", changes(s, bus.Joined, "user-late"), 0)
	}
}

func presenceDropped(c *cluster) {
	a, b := c.open(), c.openProxied()
	subA, _ := a.subscribe(room)
	subB, atB := b.subscribe(room)
	// knows waits until b's sink was told, be it in another way, and its roster is right.
	knows := func(what string, want ...string) {
		c.t.Helper()
		since := time.Now()
		until(c.t, what, func() bool { return slices.Equal(users(subB.Roster()), want) })
		c.within(10*time.Second, since, "making up for a lost presence event")
		atB.Wait(c.t, "the sink to be told", func(s Seen) bool {
			return s.told(subB.Roster().Version)
		})
	}
	dropped := b.wire.dropMessage("user-ann")
	subA.Enter(bus.Member{ID: "user-ann"})
	c.await(dropped, "the event to be dropped")
	knows("ann to be there", "user-ann") // though nothing follows

	dropped = b.wire.dropMessage("user-bob")
	subA.Enter(bus.Member{ID: "user-bob"})
	c.await(dropped, "the event to be dropped")
	subA.Enter(bus.Member{ID: "user-cay"}) // something follows at once
	knows("bob and cay to be there", "user-ann", "user-bob", "user-cay")

	dropped = b.wire.dropMessage("user-ann")
	subA.Leave("user-ann")
	c.await(dropped, "the event to be dropped")
	knows("ann to be gone", "user-bob", "user-cay")
}

// told reports whether the changes reach up to a version.
func (s Seen) told(version uint64) bool {
	return len(s.Changes) > 0 && s.Changes[len(s.Changes)-1].Version == version
}

func presencePaused(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	enterAll(c, subB, atA, "bob")
	c.server.Pause()
	time.Sleep(8 * time.Second) // all leases run out
	c.server.Resume()
	a.publish(room, "after")
	atB.WaitBody(c.t, "after")
	time.Sleep(3 * time.Second) // time enough to take somebody for dead by mistake
	enterAll(c, subA, atB, "cay")
	enterAll(c, subB, atA, "dan")
	all := []string{"ann", "bob", "cay", "dan"}
	for _, r := range []*Recorder{atA, atB} {
		r.Wait(c.t, "dan to join", changed(bus.Joined, "dan", 1))
		check(c.t, "who is there by the changes", follow(c.t, r.Seen().Changes), all)
		check(c.t, "changes", len(r.Seen().Changes), len(all))
	}
	check(c.t, "roster", users(a.roster(room)), all)
}

func presenceFlushed(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	enterAll(c, subB, atA, "bob")
	c.flush()
	both := []string{"ann", "bob"}
	fresh := c.open()
	since := time.Now()
	until(c.t, "all to be registered again", func() bool { return slices.Equal(users(fresh.roster(room)), both) })
	c.within(10*time.Second, since, "registering again")
	subA.Enter(bus.Member{ID: "cay"})
	all := []string{"ann", "bob", "cay"}
	until(c.t, "all to know all", func() bool {
		for _, r := range []bus.Roster{subA.Roster(), subB.Roster(), fresh.roster(room)} {
			if !slices.Equal(users(r), all) {
				return false
			}
		}
		return true
	})
}

func presenceReconnects(c *cluster) {
	a, b := c.openProxied(), c.open()
	subA, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	for i, user := range numbered("u", 10) {
		subA.Enter(bus.Member{ID: user})
		if i%3 == 0 {
			a.wire.cut()
		}
	}
	for _, r := range []*Recorder{atA, atB} {
		r.Wait(c.t, "all to be there", func(s Seen) bool {
			return len(s.Changes) > 0 && s.Changes[len(s.Changes)-1].Count == 10
		})
	}
	check(c.t, "roster", users(b.roster(room)), numbered("u", 10))
	for _, r := range []*Recorder{atA, atB} {
		for _, ch := range r.Seen().Changes {
			check(c.t, fmt.Sprint("a change when all had only entered: ", ch), ch.Kind == bus.Left, false)
		}
	}
}
