package bustest

import (
	"slices"
	"testing"
	"time"

	"parley/bus"
)

// missedFaults are those where a node misses changes: many at once, while it reads who is there, or while its connections
// break; and where the server itself forgets them.
var missedFaults = []promise{
	{name: "more changes missed than are told one by one", test: massMissed},
	{name: "more changes than are held while the roster is read", test: massWhileReading},
	{name: "changes over connections that break at every moment", test: cutAtEveryMoment},
	{name: "a change that the server lost is told nobody", test: changeLost},
	{name: "who enters does it once, though the answer to that is lost", test: enterUnanswered},
	{name: "a name counts though who has the user missed it, and who brought it has left", test: nameMissed},
}

// miss has a node miss what is published while do runs.
func (n *node) miss(do func()) {
	n.wire.freeze()
	do()
	n.wire.cut()
	n.wire.thaw()
}

func massMissed(c *cluster) {
	a, b := c.open(), c.openProxied()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	enterAll(c, subB, atB, "bob")
	many := numbered("u", 300)
	b.miss(func() {
		enterAll(c, subA, atA, many...)
		subA.Leave("ann")
		atA.Wait(c.t, "ann to leave", changed(bus.Left, "ann", 1))
	})
	s := atB.Wait(c.t, "all to be told", func(s Seen) bool { return s.told(subA.Roster().Version) })
	last := s.Changes[len(s.Changes)-1]
	check(c.t, "the kind of change", last, bus.Change{Kind: bus.Synced, Count: 301, Version: subA.Roster().Version})
	check(c.t, "count", subB.Roster().Count, 301)
	check(c.t, "different members listed", len(slices.Compact(users(subB.Roster()))), bus.RosterMax)
	check(c.t, "those told one by one", len(s.Changes), 3)

	enterAll(c, subA, atB, "next") // from here on, each is told again
	atA.Wait(c.t, "next to be there", changed(bus.Joined, "next", 1))
	last = atB.Seen().Changes[3]
	check(c.t, "count after the next", last.Count, 302)
	until(c.t, "both to have one version", func() bool { return subA.Roster().Version == last.Version })

	gone := many[:60] // few enough
	b.miss(func() {
		for _, user := range gone {
			subA.Leave(user)
		}
		for _, user := range gone {
			atA.Wait(c.t, user+" to leave", changed(bus.Left, user, 1))
		}
	})
	for i, user := range gone {
		s := atB.Wait(c.t, user+" to leave", changed(bus.Left, user, 1))
		check(c.t, "count", s.Changes[4+i].Count, 301-i)
	}
	b.miss(func() {
		for _, user := range many[60:] {
			subA.Leave(user)
		}
		for _, user := range many[60:] {
			atA.Wait(c.t, user+" to leave", changed(bus.Left, user, 1))
		}
	})
	until(c.t, "all to have left", func() bool { return subB.Roster().Count == 2 })
	check(c.t, "roster", users(subB.Roster()), []string{"bob", "next"})
	enterAll(c, subB, atA, "end")
	check(c.t, "roster at a", users(subA.Roster()), []string{"bob", "end", "next"})
	rising(c.t, atB.Seen().Changes)
}

// rising fails the test where versions fall.
func rising(t testing.TB, changes []bus.Change) {
	t.Helper()
	version := uint64(0)
	for i, c := range changes {
		if c.Version < version {
			t.Errorf("change %d has version %d, the one before it %d", i, c.Version, version)
		}
		version = c.Version
	}
}

func massWhileReading(c *cluster) {
	const n = 1500
	a, b := c.open(), c.openProxied()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	b.wire.hush() // b's questions do not arrive, what others publish does
	dropped := b.wire.dropMessage("user-lost")
	enterAll(c, subA, atA, "user-lost")
	c.await(dropped, "the event to be dropped")
	for _, user := range numbered("u", n) {
		subA.Enter(bus.Member{ID: user})
	}
	atA.Wait(c.t, "all to join", func(s Seen) bool { return len(s.Changes) == n+2 })
	a.publish(room, "after all")
	atB.WaitBody(c.t, "after all") // and all changes before it
	check(c.t, "changes told out of order", len(atB.Seen().Changes), 1)
	b.wire.thaw()
	until(c.t, "all to be there", func() bool { return subB.Roster().Count == n+2 })
	check(c.t, "version", subB.Roster().Version, subA.Roster().Version)
	enterAll(c, subA, atB, "next")
	s := atB.Seen()
	check(c.t, "count after the next", s.Changes[len(s.Changes)-1].Count, n+3)
	rising(c.t, s.Changes)
}

// cutAtEveryMoment breaks a node's connections while its rosters are in each state: right, in doubt, being read.
func cutAtEveryMoment(c *cluster) {
	a, b := c.open(), c.openProxied()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	there := map[string]bool{}
	change := func(user string) {
		if there[user] {
			subA.Leave(user)
			delete(there, user)
			return
		}
		subA.Enter(bus.Member{ID: user})
		there[user] = true
	}
	marks := numbered("mark", 12)
	for i, mark := range marks {
		change("user-x")
		switch i % 4 {
		case 0:
			b.wire.cut()
		case 1: // a change is missed, and the read that makes up for it breaks
			b.wire.hush()
			dropped := b.wire.dropMessage("user-y")
			change("user-y")
			c.await(dropped, "the event to be dropped")
			change("user-z")
			b.wire.cut()
			b.wire.thaw()
		case 2: // twice in a row
			b.wire.cut()
			change("user-y")
			b.wire.cut()
		case 3: // it takes the change, but is not answered
			b.wire.deafen()
			subB.Enter(bus.Member{ID: mark + " at b"})
			there[mark+" at b"] = true
			change("user-z")
			b.wire.cut()
			b.wire.thaw()
		}
		enterAll(c, subA, atA, mark)
		there[mark] = true
		atB.Wait(c.t, mark+" to join", changed(bus.Joined, mark, 1))
	}
	want := sorted(there)
	until(c.t, "all to know all", func() bool {
		return slices.Equal(users(subA.Roster()), want) && slices.Equal(users(subB.Roster()), want) &&
			slices.Equal(users(a.roster(room)), want)
	})
	check(c.t, "count", subB.Roster().Count, len(want))
	for _, r := range []*Recorder{atA, atB} {
		r.Wait(c.t, "the sink to be told", func(s Seen) bool { return s.told(subA.Roster().Version) })
		now := map[string]bool{}
		for _, ch := range r.Seen().Changes {
			if now[ch.Member.ID] == (ch.Kind == bus.Joined) {
				c.t.Errorf("told twice: %v", ch)
			}
			now[ch.Member.ID] = ch.Kind == bus.Joined
			if ch.Kind == bus.Left {
				delete(now, ch.Member.ID)
			}
			check(c.t, "count with a change", ch.Count, len(now))
		}
		check(c.t, "who is there by the changes", sorted(now), want)
		rising(c.t, r.Seen().Changes)
	}
}

// changeLost has a node hold a change that it can't place yet, when the server loses it: what is held is no news then.
func changeLost(c *cluster) {
	a, b := c.openProxied(), c.openProxied()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "user-ann")
	ctx, cancel := patient()
	defer cancel()
	dropped := b.wire.dropMessage("user-missed")
	b.wire.hush()
	enterAll(c, subA, atA, "user-missed")
	c.await(dropped, "the event to be dropped")
	if err := c.server.Client().Save(ctx).Err(); err != nil {
		c.t.Fatal(err)
	}
	enterAll(c, subA, atA, "user-lost")
	a.publish(room, "after")
	atB.WaitBody(c.t, "after") // and the change before it
	a.wire.freeze()            // a cannot write the lost change again
	c.server.Restart()         // with what it had saved
	b.wire.thaw()
	atB.Wait(c.t, "a missed change to be made up for", changed(bus.Joined, "user-missed", 1))
	since := time.Now()
	for _, user := range []string{"user-ann", "user-missed"} {
		atB.Wait(c.t, user+" to leave", changed(bus.Left, user, 1))
	}
	c.within(leaseOver, since, "the leaves of a dead node's members")
	check(c.t, "roster", users(subB.Roster()), []string{})
	check(c.t, "count", subB.Roster().Count, 0)
	check(c.t, "told of who was lost", changes(atB.Seen(), bus.Joined, "user-lost"), 0)
	a.wire.thaw() // closing a handle waits for its connections
}

// enterUnanswered has the connection break between what enters somebody and the answer: first or later in the room.
func enterUnanswered(c *cluster) {
	a, b := c.openProxied(), c.open()
	subA, _ := a.subscribe(room)
	_, atB := b.subscribe(room)
	for _, user := range []string{"ann", "bob"} {
		held, release := a.wire.holdRequest("called " + user)
		subA.Enter(bus.Member{ID: user, Name: "called " + user})
		c.await(held, user+" to be entered")
		a.wire.deafen()
		release()
		atB.Wait(c.t, user+" to join", changed(bus.Joined, user, 1))
		a.wire.cut()
		a.wire.thaw()
	}
	enterAll(c, subA, atB, "end")
	s := atB.Seen()
	check(c.t, "who is there by the changes", follow(c.t, s.Changes), []string{"ann", "bob", "end"})
	check(c.t, "changes", len(s.Changes), 3)
}

func nameMissed(c *cluster) {
	a, b, other := c.openProxied(), c.open(), c.open()
	subA, _ := a.subscribe(room)
	subB, atB := b.subscribe(room)
	subOther, atOther := other.subscribe(room)
	subA.Enter(bus.Member{ID: "ann", Name: "Old", Named: 1000})
	atB.Wait(c.t, "ann to join", changed(bus.Joined, "ann", 1))
	a.miss(func() {
		subB.Enter(bus.Member{ID: "ann", Name: "New", Named: 2000})
		atOther.Wait(c.t, "the new name", changed(bus.Renamed, "ann", 1))
		subB.Leave("ann")
		enterAll(c, subB, atOther, "end")
	})
	since := time.Now()
	late, _ := c.open().subscribe(room)
	until(c.t, "all to list the later name", called("ann", "New", subA, subB, subOther, late))
	c.within(10*time.Second, since, "making up for a name that was missed")
	check(c.t, "new names told", changes(atOther.Seen(), bus.Renamed, "ann"), 1)
}
