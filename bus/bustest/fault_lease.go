package bustest

import (
	"slices"
	"time"

	"parley/bus"
)

// leaseFaults are those at the edges of a node's lease: members are in a room as long as their node holds one.
var leaseFaults = []promise{
	{name: "a change held up past its lease is not made", test: func(c *cluster) { heldPastLease(c, room) }},
	{name: "nor is one in a room that nobody watches", test: func(c *cluster) { heldPastLease(c, "unwatched") }},
	{name: "nobody leaves a node that is back late after an outage", test: func(c *cluster) { backLate(c, 8*time.Second) }},
	{name: "nor after an outage that some leases outlive", test: func(c *cluster) { backLate(c, 5*time.Second) }},
	{name: "who entered before a flush was noticed leaves no ghost", test: enteredAfterFlush},
	{name: "nor does who did so over a node that died before it noticed", test: diedAfterFlush},
	{name: "nor one in a room that nobody is in any more", test: ghostUnwatched},
}

// heldPastLease holds up that somebody enters a room until the lease of his node has run out and its members are gone. If he
// were entered then, he would be taken out again as of a dead node, and entered once more when that is back.
func heldPastLease(c *cluster, into string) {
	a, b := c.openProxied(), c.open()
	subA, _ := a.subscribe(room)
	_, atB := b.subscribe(room)
	late := subA
	if into != room {
		late, _ = a.subscribe(into)
	}
	enterAll(c, subA, atB, "user-ann")
	held, release := a.wire.holdRequest("user-late")
	late.Enter(bus.Member{ID: "user-late"})
	c.await(held, "the change to be sent")
	a.wire.freeze()
	atB.Wait(c.t, "ann to leave", changed(bus.Left, "user-ann", 1))
	release()
	c.roundTrips()
	check(c.t, "who is there of a node without a lease", users(b.roster(into)), []string{})

	a.wire.thaw()
	until(c.t, "who was late to be there", func() bool { return slices.Contains(users(b.roster(into)), "user-late") })
	s := atB.Wait(c.t, "ann to be back", changed(bus.Joined, "user-ann", 2))
	if into == room {
		s = atB.Wait(c.t, "who was late", changed(bus.Joined, "user-late", 1))
	}
	late.Leave("user-late")
	until(c.t, "who was late to have left", func() bool { return !slices.Contains(users(b.roster(into)), "user-late") })
	enterAll(c, subA, atB, "user-end")
	s = atB.Seen()
	check(c.t, "who is there by the changes", follow(c.t, s.Changes), []string{"user-ann", "user-end"})
	if into == room {
		check(c.t, "joins of who was late", changes(s, bus.Joined, "user-late"), 1)
		check(c.t, "leaves of who was late", changes(s, bus.Left, "user-late"), 1)
	}
}

// roundTrips has the server take in what was sent to it before.
func (c *cluster) roundTrips() {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	for range 3 {
		if err := c.server.Client().Ping(ctx).Err(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// backLate has a server pause, and one of two nodes be back a little later than the other. By then its lease has run out, but
// nobody is to draw conclusions from that: it may need a moment to take a new one.
func backLate(c *cluster, outage time.Duration) {
	a := c.open()
	time.Sleep(time.Second) // makes b's lease the older one
	b := c.openProxied()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	enterAll(c, subB, atA, "bob")
	until(c.t, "a to have renewed its lease lately", func() bool { // a heartbeat renews it
		age := a.HeartbeatAge()
		return age > 300*time.Millisecond && age < 500*time.Millisecond
	})
	b.wire.freeze()
	c.server.Pause()
	time.Sleep(outage)
	c.server.Resume()
	a.publish(room, "after")
	time.Sleep(1300 * time.Millisecond) // time enough to take b for dead by mistake
	b.wire.thaw()
	enterAll(c, subA, atB, "cay")
	enterAll(c, subB, atA, "dan")
	subB.Leave("bob") // nothing of his former lives keeps him
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "bob to leave", changed(bus.Left, "bob", 1))
		for _, user := range []string{"ann", "bob", "cay", "dan"} {
			check(c.t, "joins of "+user, changes(s, bus.Joined, user), 1)
		}
		check(c.t, "changes", len(s.Changes), 5)
		check(c.t, "count", s.Changes[4].Count, 3)
	}
	check(c.t, "roster", users(a.roster(room)), []string{"ann", "cay", "dan"})
}

// enteredAfterFlush has somebody enter when the server has forgotten the node's lease, which the node does not know yet.
func enteredAfterFlush(c *cluster) {
	a, b := c.open(), c.open()
	subA, _ := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	c.flush()
	enterAll(c, subA, atB, "bob")
	time.Sleep(leaseNoticed)
	until(c.t, "all to be registered again", func() bool { return b.roster(room).Count == 2 })
	subA.Leave("bob")
	left := time.Now()
	until(c.t, "bob to be gone", func() bool {
		return slices.Equal(users(subB.Roster()), []string{"ann"}) && slices.Equal(users(b.roster(room)), []string{"ann"})
	})
	c.within(leaseOver, left, "leaving")
	atB.Wait(c.t, "bob to leave", changed(bus.Left, "bob", 1))
	s := atB.Seen().Changes
	check(c.t, "count after the changes", s[len(s)-1].Count, 1)
}

// leaseNoticed is time enough for a node to notice that its lease is gone, and to enter its members anew: a heartbeat and some.
const leaseNoticed = 2500 * time.Millisecond

// diedAfterFlush has a node die when only the room itself tells that it was in it.
func diedAfterFlush(c *cluster) {
	a, b := c.openProxied(), c.open()
	subA, _ := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	c.flush()
	enterAll(c, subA, atB, "bob")
	a.wire.freeze()
	died := time.Now()
	atB.Wait(c.t, "bob to leave", changed(bus.Left, "bob", 1))
	until(c.t, "the room to be empty", func() bool { return subB.Roster().Count == 0 && b.roster(room).Count == 0 })
	c.within(leaseOver, died, "the leaves of a dead node's members")
	a.wire.thaw() // closing a handle waits for its connections
}

func ghostUnwatched(c *cluster) {
	a, b := c.open(), c.open()
	sub, r := a.subscribe(room)
	enterAll(c, sub, r, "ann")
	c.flush()
	enterAll(c, sub, r, "bob")
	time.Sleep(leaseNoticed)
	until(c.t, "all to be registered again", func() bool { return b.roster(room).Count == 2 })
	sub.Close()
	closed := time.Now()
	until(c.t, "the room to be empty", func() bool { return b.roster(room).Count == 0 })
	c.within(leaseOver, closed, "leaving")
}
