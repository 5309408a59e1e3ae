package bustest

import (
	"fmt"
	"slices"
	"time"

	"parley/bus"
)

// countPromises are about rosters at every moment, not only once all has settled.
var countPromises = []promise{
	{name: "a roster and what is told after it agree", test: snapshotsAgree},
	{name: "who leaves here and is there over another handle stays listed", test: leaveOneOfTwo},
	{name: "counts and lists agree at every moment", test: countsAgree},
}

// snapshotsAgree takes rosters while users come and go over both handles, some over both at once: with the changes of later
// versions, each is the last one. So who is given a roster and told what follows is right, at whatever moment that was.
func snapshotsAgree(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	var snapshots [2][]bus.Roster
	for i := range 600 {
		user := fmt.Sprint("u", i*i%17)
		from, to := subA, subB
		if i/17%2 == 1 {
			from, to = to, from
		}
		from.Leave(user)
		to.Enter(bus.Member{ID: user})
		if i%5 == 0 {
			to.Leave(user)
		}
		if i%20 == 0 {
			time.Sleep(time.Millisecond) // some of it is written by then
		}
		snapshots[0] = append(snapshots[0], subA.Roster())
		snapshots[1] = append(snapshots[1], subB.Roster())
	}
	until(c.t, "all to settle", func() bool {
		ra, rb := subA.Roster(), subB.Roster()
		return slices.Equal(users(ra), users(rb)) && slices.Equal(users(ra), users(a.roster(room))) &&
			slices.Equal(users(ra), there(atA.Seen().Changes)) && slices.Equal(users(rb), there(atB.Seen().Changes))
	})
	for i, sub := range []bus.Subscription{subA, subB} {
		seen := []*Recorder{atA, atB}[i].Seen()
		want := users(sub.Roster())
		for _, roster := range snapshots[i] {
			now := map[string]bool{}
			for _, user := range users(roster) {
				now[user] = true
			}
			for _, ch := range seen.Changes {
				switch {
				case ch.Version <= roster.Version:
				case ch.Kind == bus.Left:
					delete(now, ch.Member.ID)
				default:
					now[ch.Member.ID] = true
				}
			}
			if got := sorted(now); !slices.Equal(got, want) {
				c.t.Fatalf("a roster of version %d and what followed make %v, want %v", roster.Version, got, want)
			}
		}
	}
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
