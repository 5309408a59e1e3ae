package bustest

import (
	"fmt"
	"slices"
	"testing"

	"parley/bus"
)

var presencePromises = []promise{
	{name: "entering and leaving reach all", test: enterAndLeave},
	{name: "many who enter at once are all told", test: enterMany},
	{name: "who subscribes later knows who is there", test: rosterOfLatecomer},
	{name: "a user over two handles counts once", test: userOverTwoHandles},
	{name: "entering again changes the name only", test: enterAgain},
	{name: "closing leaves", test: closingLeaves},
	{name: "a large room lists some and counts all", test: largeRoom},
	{name: "coming and going settles", test: comingAndGoing},
}

// follow applies changes to nobody being there, and fails the test where their counts or versions don't fit.
func follow(t testing.TB, changes []bus.Change) []string {
	t.Helper()
	there := map[string]bool{}
	version := uint64(0)
	for i, c := range changes {
		switch c.Kind {
		case bus.Joined:
			there[c.Member.ID] = true
		case bus.Renamed:
			if !there[c.Member.ID] {
				t.Errorf("change %d: %s has a new name, but was not there", i, c.Member.ID)
			}
		case bus.Left:
			if !there[c.Member.ID] {
				t.Errorf("change %d: %s left, but was not there", i, c.Member.ID)
			}
			delete(there, c.Member.ID)
		default:
			t.Errorf("change %d is of kind %d", i, c.Kind)
		}
		if c.Count != len(there) {
			t.Errorf("change %d (%v) counts %d, %d are there", i, c, c.Count, len(there))
		}
		if c.Version <= version {
			t.Errorf("change %d has version %d, the one before it %d", i, c.Version, version)
		}
		version = c.Version
	}
	return sorted(there)
}

// there is who is in a room after the changes.
func there(changes []bus.Change) []string {
	set := map[string]bool{}
	for _, c := range changes {
		if c.Kind == bus.Left {
			delete(set, c.Member.ID)
		} else {
			set[c.Member.ID] = true
		}
	}
	return sorted(set)
}

func sorted(set map[string]bool) []string {
	out := make([]string, 0, len(set))
	for s := range set {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// users are those that a roster lists.
func users(r bus.Roster) []string {
	out := make([]string, 0, len(r.Members))
	for _, m := range r.Members {
		out = append(out, m.ID)
	}
	slices.Sort(out)
	return out
}

func changed(kind bus.ChangeKind, user string, times int) func(Seen) bool {
	return func(s Seen) bool { return changes(s, kind, user) >= times }
}

// changes counts a user's changes of one kind.
func changes(s Seen, kind bus.ChangeKind, user string) int {
	n := 0
	for _, c := range s.Changes {
		if c.Kind == kind && c.Member.ID == user {
			n++
		}
	}
	return n
}

func enterAndLeave(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	check(c.t, "roster of an empty room", len(users(a.roster(room))), 0)
	ann, bob := bus.Member{ID: "ann", Name: "Ann Ä"}, bus.Member{ID: "bob", Name: ""}

	subA.Enter(ann)
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "ann to join", changed(bus.Joined, "ann", 1))
		check(c.t, "who joined", s.Changes[0].Member, ann)
		check(c.t, "count", s.Changes[0].Count, 1)
	}
	subB.Enter(bob)
	for _, r := range []*Recorder{atA, atB} {
		r.Wait(c.t, "bob to join", changed(bus.Joined, "bob", 1))
	}
	for _, roster := range []bus.Roster{subA.Roster(), subB.Roster(), a.roster(room), c.open().roster(room)} {
		check(c.t, "roster", users(roster), []string{"ann", "bob"})
		check(c.t, "count", roster.Count, 2)
		i := slices.IndexFunc(roster.Members, func(m bus.Member) bool { return m.ID == "ann" })
		check(c.t, "name", roster.Members[i].Name, ann.Name)
	}
	subA.Leave("nobody") // changes nothing
	subA.Leave("bob")    // nor does this: he did not enter here
	subA.Leave("ann")
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "ann to leave", changed(bus.Left, "ann", 1))
		check(c.t, "who is there by the changes", follow(c.t, s.Changes), []string{"bob"})
		check(c.t, "changes", len(s.Changes), 3)
	}
	check(c.t, "versions", subA.Roster().Version, atB.Seen().Changes[2].Version)
	check(c.t, "roster", users(subB.Roster()), []string{"bob"})
}

func enterMany(c *cluster) {
	a := c.open()
	sub, r := a.subscribe(room)
	for i := range 50 {
		sub.Enter(bus.Member{ID: fmt.Sprint("u", i)})
	}
	r.Wait(c.t, "all to join", func(s Seen) bool { return len(s.Changes) >= 50 })
	check(c.t, "roster", sub.Roster().Count, 50)
}

func rosterOfLatecomer(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	for _, user := range []string{"ann", "bob", "cay"} {
		subA.Enter(bus.Member{ID: user})
		atA.Wait(c.t, user+" to join", changed(bus.Joined, user, 1))
	}
	subA.Leave("cay")
	atA.Wait(c.t, "cay to leave", changed(bus.Left, "cay", 1))
	subB, atB := b.subscribe(room)
	roster := subB.Roster()
	check(c.t, "roster of who comes later", users(roster), []string{"ann", "bob"})
	check(c.t, "its version", roster.Version, subA.Roster().Version)
	subA.Leave("bob")
	s := atB.Wait(c.t, "bob to leave", changed(bus.Left, "bob", 1))
	check(c.t, "changes that who comes later sees", len(s.Changes), 1)
	check(c.t, "count", s.Changes[0].Count, 1)
}

func userOverTwoHandles(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	subA.Enter(bus.Member{ID: "ann"})
	atB.Wait(c.t, "ann to join", changed(bus.Joined, "ann", 1))
	subB.Enter(bus.Member{ID: "ann"})
	subB.Enter(bus.Member{ID: "bob"}) // comes after
	atA.Wait(c.t, "bob to join", changed(bus.Joined, "bob", 1))
	check(c.t, "count", subA.Roster().Count, 2)
	subA.Leave("ann") // she is still there over b
	subA.Enter(bus.Member{ID: "cay"})
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "cay to join", changed(bus.Joined, "cay", 1))
		check(c.t, "ann's leaves", changes(s, bus.Left, "ann"), 0)
	}
	check(c.t, "roster", users(a.roster(room)), []string{"ann", "bob", "cay"})
	subB.Leave("ann")
	for _, r := range []*Recorder{atA, atB} {
		s := r.Wait(c.t, "ann to leave", changed(bus.Left, "ann", 1))
		check(c.t, "ann's joins", changes(s, bus.Joined, "ann"), 1)
		check(c.t, "who is there by the changes", follow(c.t, s.Changes), []string{"bob", "cay"})
	}
}

func enterAgain(c *cluster) {
	a, b := c.open(), c.open()
	subA, _ := a.subscribe(room)
	subB, atB := b.subscribe(room)
	named := func(name string) func() bool {
		return func() bool {
			r := subB.Roster()
			return r.Count == 1 && len(r.Members) == 1 && r.Members[0] == bus.Member{ID: "ann", Name: name}
		}
	}
	subA.Enter(bus.Member{ID: "ann", Name: "Ann"})
	until(c.t, "ann to be there", named("Ann"))
	subA.Enter(bus.Member{ID: "ann", Name: "Ann"})
	subA.Enter(bus.Member{ID: "ann", Name: "Anna"})
	until(c.t, "ann to be called Anna", named("Anna"))
	check(c.t, "roster", a.roster(room).Members, []bus.Member{{ID: "ann", Name: "Anna"}})
	check(c.t, "joins", changes(atB.Seen(), bus.Joined, "ann"), 1)
	subA.Leave("ann") // undoes all of them
	s := atB.Wait(c.t, "ann to leave", changed(bus.Left, "ann", 1))
	check(c.t, "roster", subB.Roster().Count, 0)
	check(c.t, "leaves", changes(s, bus.Left, "ann"), 1)
	subA.Enter(bus.Member{ID: "ann", Name: "Ann"})
	until(c.t, "ann to be back", named("Ann"))
}

func closingLeaves(c *cluster) {
	a, b, watch := c.open(), c.open(), c.open()
	_, r := watch.subscribe(room)
	subA, _ := a.subscribe(room)
	subB, _ := b.subscribe(room)
	subA.Enter(bus.Member{ID: "ann"})
	subA.Enter(bus.Member{ID: "both"})
	r.Wait(c.t, "them to join", func(s Seen) bool { return len(s.Changes) >= 2 })
	subB.Enter(bus.Member{ID: "both"})
	subB.Enter(bus.Member{ID: "bob"})
	r.Wait(c.t, "bob to join", changed(bus.Joined, "bob", 1))
	subA.Close()
	s := r.Wait(c.t, "ann to leave", changed(bus.Left, "ann", 1))
	check(c.t, "leaves of who is there over another", changes(s, bus.Left, "both"), 0)
	b.close()
	check(c.t, "members once Close has returned", watch.roster(room).Count, 0)
	s = r.Wait(c.t, "the others to leave", func(s Seen) bool { return len(s.Changes) >= 6 })
	check(c.t, "who is there by the changes", follow(c.t, s.Changes), []string{})
}

func largeRoom(c *cluster) {
	const n = bus.RosterMax + 50
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	for i := range n {
		subA.Enter(bus.Member{ID: fmt.Sprint("u", i)})
	}
	all := func(s Seen) bool { return len(s.Changes) >= n }
	atA.Wait(c.t, "all to join", all)
	s := atB.Wait(c.t, "all to join", all)
	check(c.t, "members by the changes", len(follow(c.t, s.Changes)), n)
	for _, roster := range []bus.Roster{subA.Roster(), subB.Roster(), c.open().roster(room)} {
		check(c.t, "count", roster.Count, n)
		check(c.t, "different members listed", len(slices.Compact(users(roster))), bus.RosterMax)
	}
}

// comingAndGoing lets users enter and leave over two handles in a muddle; in the end all know the same.
func comingAndGoing(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	want := map[string]bool{}
	for i := range 200 {
		sub, user := []bus.Subscription{subA, subB}[i/7%2], fmt.Sprint("u", i*i%11)
		if i%3 == 0 {
			sub.Leave(user)
		} else {
			sub.Enter(bus.Member{ID: user, Name: user})
		}
	}
	inA, inB := map[string]bool{}, map[string]bool{}
	for i := range 200 {
		in, user := []map[string]bool{inA, inB}[i/7%2], fmt.Sprint("u", i*i%11)
		in[user] = i%3 != 0
	}
	for u := range inA {
		want[u] = want[u] || inA[u]
	}
	for u := range inB {
		want[u] = want[u] || inB[u]
	}
	for u, in := range want {
		if !in {
			delete(want, u)
		}
	}
	subA.Enter(bus.Member{ID: "end A"})
	subB.Enter(bus.Member{ID: "end B"})
	want["end A"], want["end B"] = true, true
	until(c.t, "all to be told at both, in whatever order they are written", func() bool {
		return slices.Equal(there(atA.Seen().Changes), sorted(want)) && slices.Equal(there(atB.Seen().Changes), sorted(want)) &&
			slices.Equal(users(a.roster(room)), sorted(want))
	})
	for _, r := range []*Recorder{atA, atB} {
		check(c.t, "who is there by the changes", follow(c.t, r.Seen().Changes), sorted(want))
	}
	check(c.t, "changes at b, as at a", atB.Seen().Changes, atA.Seen().Changes)
	check(c.t, "roster at a", users(subA.Roster()), sorted(want))
	check(c.t, "roster at b", users(subB.Roster()), sorted(want))
}
