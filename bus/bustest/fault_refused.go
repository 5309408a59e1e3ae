package bustest

import (
	"context"
	"slices"
	"time"

	"parley/bus"
)

// refusedFaults are those where who enters, leaves and changes the name can't be written for a while.
var refusedFaults = []promise{
	{name: "members over a server that is full", test: madeUpFor(
		func(c *cluster, _ *node) { c.configure("maxmemory", "1") },
		func(c *cluster, _ *node) { c.configure("maxmemory", "0") },
	)},
	{name: "members over a server that is a replica for a while", test: madeUpFor(
		func(c *cluster, _ *node) { c.replicaOf("127.0.0.1", "1") },
		func(c *cluster, _ *node) { c.replicaOf("NO", "ONE") },
	)},
	{name: "members over a server that misses its replicas", test: madeUpFor(
		func(c *cluster, _ *node) { c.configure("min-replicas-to-write", "1") },
		func(c *cluster, _ *node) { c.configure("min-replicas-to-write", "0") },
	)},
	{name: "members over a paused server", test: madeUpFor(
		func(c *cluster, _ *node) { c.server.Pause() },
		func(c *cluster, _ *node) { c.server.Resume() },
	)},
	{name: "members over a server that is gone for a while", conf: durable, test: madeUpFor(
		func(c *cluster, _ *node) { c.server.Kill() },
		func(c *cluster, _ *node) { c.server.Restart() },
	)},
	{name: "members over connections that break and are made in vain", test: madeUpFor(
		func(_ *cluster, n *node) { n.wire.freeze(); n.wire.cut() },
		func(_ *cluster, n *node) { n.wire.thaw() },
	)},
	{name: "members over answers that do not arrive", test: madeUpFor(
		func(_ *cluster, n *node) { n.wire.deafen() },
		func(_ *cluster, n *node) { n.wire.cut(); n.wire.thaw() },
	)},
}

func (c *cluster) replicaOf(host, port string) {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	if err := c.server.Client().ReplicaOf(ctx, host, port).Err(); err != nil {
		c.t.Fatal(err)
	}
}

// madeUpFor has users enter, leave and change the name while that can't be written, for less than a lease. All are told
// afterwards, each change once.
func madeUpFor(refuse, allow func(*cluster, *node)) func(*cluster) {
	return func(c *cluster) {
		a, b := c.openProxied(), c.open()
		subA, atA := a.subscribe(room)
		subB, atB := b.subscribe(room)
		empty, _ := a.subscribe("unwatched")
		enterAll(c, subA, atB, "leaves", "renames", "stays")
		for _, user := range []string{"leaves", "renames", "stays"} {
			atA.Wait(c.t, user+" to join", changed(bus.Joined, user, 1))
		}
		refuse(c, a)
		subA.Enter(bus.Member{ID: "enters", Name: "enters"})
		subA.Leave("leaves")
		subA.Enter(bus.Member{ID: "renames", Name: "Renamed"})
		empty.Enter(bus.Member{ID: "unwatched"})
		want := []bus.Member{{ID: "enters", Name: "enters"}, {ID: "renames", Name: "Renamed"}, {ID: "stays", Name: "stays"}}
		time.Sleep(2500 * time.Millisecond) // time enough for a try that fails
		allow(c, a)

		atB.Wait(c.t, "the one to enter", changed(bus.Joined, "enters", 1))
		atB.Wait(c.t, "the other to leave", changed(bus.Left, "leaves", 1))
		until(c.t, "all to know all", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			read, err := b.Roster(ctx, room)
			other, err2 := b.Roster(ctx, "unwatched")
			return err == nil && err2 == nil && other.Count == 1 && read.Count == 3 && slices.Equal(members(read), want) &&
				slices.Equal(members(subA.Roster()), want) && slices.Equal(members(subB.Roster()), want)
		})
		enterAll(c, subB, atA, "end")
		for _, r := range []*Recorder{atA, atB} {
			s := r.Wait(c.t, "the end", changed(bus.Joined, "end", 1))
			check(c.t, "changes", len(s.Changes), 7)
			check(c.t, "count", s.Changes[6].Count, 4)
			check(c.t, "version", s.Changes[6].Version, subA.Roster().Version)
		}
	}
}

// members are those that a roster lists, by id.
func members(r bus.Roster) []bus.Member {
	r.Members = slices.Clone(r.Members)
	slices.SortFunc(r.Members, func(a, b bus.Member) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return r.Members
}
