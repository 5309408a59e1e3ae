package bustest

import "parley/bus"

// Rosters while what a node wants is on its way to the server, or the answer to it on its way back: they are what was told.
var underwayFaults = []promise{
	{name: "who leaves while their entering is on its way is out of the roster", test: leaveWhileEntering},
	{name: "who comes back while their leaving is on its way is in it", test: enterWhileLeaving},
}

func leaveWhileEntering(c *cluster) {
	a, b := c.openProxied(), c.open()
	sub, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	entering, enter := a.wire.holdRequest("ann")
	sub.Enter(bus.Member{ID: "ann"})
	c.await(entering, "the entering")
	sub.Leave("ann")
	check(c.t, "roster at once", users(sub.Roster()), []string{})
	leaving, leave := a.wire.holdRequest("ann")
	enter()
	atA.Wait(c.t, "ann to join", changed(bus.Joined, "ann", 1))
	c.await(leaving, "the leaving")
	check(c.t, "roster", users(sub.Roster()), []string{"ann"})
	leave()
	for _, r := range []*Recorder{atA, atB} {
		r.Wait(c.t, "ann to leave", changed(bus.Left, "ann", 1))
	}
	check(c.t, "roster after all", users(sub.Roster()), []string{})
}

func enterWhileLeaving(c *cluster) {
	a, b := c.openProxied(), c.open()
	sub, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	enterAll(c, sub, atB, "ann")
	atA.Wait(c.t, "ann to join", changed(bus.Joined, "ann", 1))
	leaving, leave := a.wire.holdRequest("ann")
	sub.Leave("ann")
	c.await(leaving, "the leaving")
	sub.Enter(bus.Member{ID: "ann"})
	check(c.t, "roster at once", users(sub.Roster()), []string{"ann"})
	entering, enter := a.wire.holdRequest("ann")
	leave()
	atA.Wait(c.t, "ann to leave", changed(bus.Left, "ann", 1))
	c.await(entering, "the entering")
	check(c.t, "roster", users(sub.Roster()), []string{})
	enter()
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "ann to be back", changed(bus.Joined, "ann", 2))
		check(c.t, "changes", len(s.Changes), 3)
	}
	check(c.t, "roster after all", users(sub.Roster()), []string{"ann"})
}
