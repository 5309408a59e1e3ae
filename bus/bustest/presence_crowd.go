package bustest

import (
	"fmt"
	"time"

	"parley/bus"
)

// A crowd is more than a bus takes out of a room at a time.
const crowd = 350

var (
	crowdPromises = []promise{
		{name: "a crowd leaves with its handle", test: crowdLeaves},
		{name: "a crowd is counted from outside, however large", test: crowdCounted},
	}
	crowdFaults = []promise{{name: "a crowd leaves a room that nobody watches with its dead node", test: crowdDies}}
)

// crowdCounted has more in a room than are read of it by a handle that is not subscribed.
func crowdCounted(c *cluster) {
	const many = 1200
	a, b := c.open(), c.open()
	sub, _ := a.subscribe(room)
	for i := range many {
		sub.Enter(bus.Member{ID: fmt.Sprint("user ", i)})
	}
	until(c.t, "all to be counted by who is there", func() bool { return sub.Roster().Count == many })
	r := b.roster(room)
	check(c.t, "members, counted from outside", r.Count, many)
	check(c.t, "members that are listed", len(r.Members), bus.RosterMax)
}

func enterCrowd(c *cluster, n *node, name string) {
	c.t.Helper()
	sub, _ := n.subscribe(name)
	for i := range crowd {
		sub.Enter(bus.Member{ID: fmt.Sprint("user ", i)})
	}
	until(c.t, "all to be in the room", func() bool { return n.roster(name).Count == crowd })
}

func crowdLeaves(c *cluster) {
	a, b := c.open(), c.open()
	_, atB := b.subscribe("watched")
	for _, name := range []string{"watched", "unwatched"} {
		enterCrowd(c, a, name)
	}
	a.close()
	for _, name := range []string{"watched", "unwatched"} {
		check(c.t, "members of a room that was "+name, b.roster(name).Count, 0)
	}
	s := atB.Wait(c.t, "all to leave", func(s Seen) bool {
		return len(s.Changes) > 0 && s.Changes[len(s.Changes)-1].Count == 0 && s.Changes[len(s.Changes)-1].Kind != bus.Joined
	})
	check(c.t, "who is there by the changes", len(follow(c.t, s.Changes)), 0)
}

func crowdDies(c *cluster) {
	a, dead := c.open(), c.openProxied()
	enterCrowd(c, dead, room)
	dead.die()
	since := time.Now()
	until(c.t, "all to leave", func() bool { return a.roster(room).Count == 0 })
	c.within(leaseOver, since, "leaving")
}
