package bustest

import (
	"fmt"
	"slices"

	"parley/bus"
)

// countPromises are about rosters at every moment, not only once all has settled.
var countPromises = []promise{
	{name: "who leaves is out of the roster at once", test: leaveAtOnce},
	{name: "who leaves here and is there over another handle stays listed", test: leaveOneOfTwo},
	{name: "counts and lists agree at every moment", test: countsAgree},
}

func leaveAtOnce(c *cluster) {
	a := c.open()
	sub, r := a.subscribe(room)
	enterAll(c, sub, r, numbered("u", 30)...)
	for i, user := range numbered("u", 30) {
		sub.Leave(user)
		roster := sub.Roster()
		check(c.t, "count at once", roster.Count, 29-i)
		check(c.t, "members listed at once", len(roster.Members), 29-i)
		check(c.t, user+" is listed", slices.Contains(users(roster), user), false)
	}
	sub.Enter(bus.Member{ID: "u0"}) // while the leaves may be on their way
	check(c.t, "roster at once", users(sub.Roster()), []string{"u0"})
	check(c.t, "count at once", sub.Roster().Count, 1)
}

func leaveOneOfTwo(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	subB.Enter(bus.Member{ID: "ann"})
	enterAll(c, subB, atA, "bob") // after ann did
	subA.Leave("ann")
	until(c.t, "it to be known that ann is there still", func() bool { return subA.Roster().Count == 2 })
	check(c.t, "roster", users(subA.Roster()), []string{"ann", "bob"})
	enterAll(c, subA, atB, "cay")
	check(c.t, "leaves of ann", changes(atB.Seen(), bus.Left, "ann"), 0)
}

func countsAgree(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	version := map[bus.Subscription]uint64{}
	own := map[bus.Subscription]map[string]bool{subA: {}, subB: {}}
	look := func(sub bus.Subscription) {
		r := sub.Roster()
		listed := users(r)
		check(c.t, "members listed, as counted", len(listed), r.Count)
		check(c.t, "members listed, each once", len(slices.Compact(listed)), r.Count)
		if r.Version < version[sub] {
			c.t.Errorf("version %d after %d", r.Version, version[sub])
		}
		version[sub] = r.Version
		for user, in := range own[sub] {
			if slices.Contains(listed, user) != in {
				c.t.Errorf("%s is in the room by the last call: %v; listed: %v", user, in, listed)
			}
		}
	}
	for i := range 600 {
		sub, user := subA, fmt.Sprint("a", i*i%13)
		if i/5%2 == 1 {
			sub, user = subB, fmt.Sprint("b", i*i%13)
		}
		own[sub][user] = i%3 != 0
		if own[sub][user] {
			sub.Enter(bus.Member{ID: user, Name: fmt.Sprint("name ", i%2)})
		} else {
			sub.Leave(user)
		}
		look(subA)
		look(subB)
	}
	want := map[string]bool{}
	for _, users := range own {
		for user, in := range users {
			if in {
				want[user] = true
			}
		}
	}
	enterAll(c, subA, atB, "end A")
	enterAll(c, subB, atA, "end B")
	want["end A"], want["end B"] = true, true
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "both ends", func(s Seen) bool {
			return changes(s, bus.Joined, "end A") == 1 && changes(s, bus.Joined, "end B") == 1
		})
		check(c.t, "who is there by the changes", follow(c.t, s.Changes), sorted(want))
	}
	look(subA)
	look(subB)
	check(c.t, "roster", users(subB.Roster()), sorted(want))
}
