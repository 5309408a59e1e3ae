package bustest

import (
	"slices"

	"parley/bus"
)

// namePromises are about users who have more than one name.
var namePromises = []promise{
	{name: "a new name is told, and counts everywhere", test: renamed},
	{name: "of two names over two handles the later counts, whoever leaves", test: laterName, settings: uncompared},
	{name: "of two names of one moment the same counts everywhere", test: sameMoment},
	{name: "who comes back with an old name undoes no new one", test: oldName},
}

// called reports whether all rosters list a user by that name.
func called(user, name string, subs ...bus.Subscription) func() bool {
	return func() bool {
		return !slices.ContainsFunc(subs, func(s bus.Subscription) bool {
			return !slices.Contains(s.Roster().Members, bus.Member{ID: user, Name: name})
		})
	}
}

func renamed(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	subA.Enter(bus.Member{ID: "ann", Name: "Anna"})
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "the new name", changed(bus.Renamed, "ann", 1))
		check(c.t, "who has a new name", s.Changes[1].Member, bus.Member{ID: "ann", Name: "Anna"})
		check(c.t, "count", s.Changes[1].Count, 1)
	}
	check(c.t, "listed by it", called("ann", "Anna", subA, subB)(), true)
	check(c.t, "members that are read", b.roster(room).Members, []bus.Member{{ID: "ann", Name: "Anna"}})
}

func laterName(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	subA.Enter(bus.Member{ID: "ann", Name: "Old", Named: 1000})
	atB.Wait(c.t, "ann to join", changed(bus.Joined, "ann", 1))
	subB.Enter(bus.Member{ID: "ann", Name: "New", Named: 2000})
	for _, r := range []*Recorder{atA, atB} {
		r.Wait(c.t, "the new name", changed(bus.Renamed, "ann", 1))
	}
	until(c.t, "all to list the later name", called("ann", "New", subA, subB))
	subB.Leave("ann")
	enterAll(c, subB, atA, "end")
	late, _ := c.open().subscribe(room)
	until(c.t, "all to list the later name, though who brought it has left", called("ann", "New", subA, subB, late))
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "the end", changed(bus.Joined, "end", 1))
		check(c.t, "changes", len(s.Changes), 3)
	}
}

func sameMoment(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	for user, names := range map[string][2]string{"ann": {"Anna", "Anne"}, "bob": {"Robert", "Bob"}} {
		subA.Enter(bus.Member{ID: user, Name: names[0], Named: 1000})
		for _, r := range []*Recorder{atA, atB} {
			r.Wait(c.t, "the first name", changed(bus.Joined, user, 1))
		}
		subB.Enter(bus.Member{ID: user, Name: names[1], Named: 1000})
	}
	until(c.t, "one of both to be listed", called("ann", "Anne", subA, subB))
	enterAll(c, subB, atA, "end")
	until(c.t, "the other to stay", called("bob", "Robert", subA, subB))
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "the end", changed(bus.Joined, "end", 1))
		check(c.t, "new names", changes(s, bus.Renamed, "ann")+changes(s, bus.Renamed, "bob"), 1)
	}
}

func oldName(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	subA.Enter(bus.Member{ID: "ann", Name: "New", Named: 2000})
	for _, r := range []*Recorder{atA, atB} {
		r.Wait(c.t, "ann to join", changed(bus.Joined, "ann", 1))
	}
	subA.Enter(bus.Member{ID: "ann", Name: "Old", Named: 1000})
	subB.Enter(bus.Member{ID: "ann", Name: "Old", Named: 1000})
	enterAll(c, subA, atB, "end A")
	enterAll(c, subB, atA, "end B")
	until(c.t, "the new name to stay", called("ann", "New", subA, subB))
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "the end", changed(bus.Joined, "end B", 1))
		check(c.t, "new names", changes(s, bus.Renamed, "ann"), 0)
	}
	subB.Enter(bus.Member{ID: "ann", Name: "Newer"}) // now
	until(c.t, "the newest name to be listed", called("ann", "Newer", subA, subB))
}
