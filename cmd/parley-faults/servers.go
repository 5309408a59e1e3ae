package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"parley/bus/bustest"
)

// succeed waits for another primary than the one of the beginning, and for nodes to have left that.
func (tr *trial) succeed(before int) {
	tr.Helper()
	tr.redis = tr.watched.Succeeds(tr.redis)
	tr.pass()
	tr.broke(tr.reconnects() - before)
}

func sentinelFailover(tr *trial) {
	before := tr.reconnects()
	tr.watched.Failover()
	tr.succeed(before)
}

func sentinelKill(tr *trial) {
	before := tr.reconnects()
	tr.redis.Kill()
	tr.succeed(before)
}

// sentinelPause stops the primary until it is replaced. Continued, it takes itself for one.
func sentinelPause(tr *trial) {
	before, old := tr.reconnects(), tr.redis
	old.Pause()
	tr.redis = tr.watched.Succeeds(old)
	old.Resume()
	tr.pass()
	tr.broke(tr.reconnects() - before)
}

func sentinelTail(tr *trial) {
	before := tr.reconnects()
	tr.across(tr.watched.CutReplicas, func() {
		tr.see(tr.admin(), nil)
		tr.redis.Kill()
		tr.succeed(before)
	})
}

// sentinelSplit cuts the primary off from all but the nodes, which say there what will be lost.
func sentinelSplit(tr *trial) {
	old := tr.redis
	tr.across(tr.watched.CutReplicas, func() {
		tr.watched.Split()
		now := tr.watched.Succeeds(old)
		if !old.IsPrimary() {
			tr.Error("the old primary is none any more")
		}
		tr.redis = now
		tr.meanwhile(failoverWithin)
		tr.see(old.Client(), nil)
	})
}

// failoverWithin is how long after a promotion nodes may still be at the old primary.
const failoverWithin = 10 * time.Second

func noSentinel(tr *trial) {
	for _, s := range tr.watched.Sentinels {
		s.Kill()
	}
	killClients("pubsub")(tr)
}

// roomAt is the server of a Cluster that has a room.
func (tr *trial) roomAt(room string) int {
	tr.Helper()
	for i := range tr.cluster.Servers {
		if said, err := tr.cluster.Try(i, "cluster", "keyslot", logKey(room)); err == nil {
			var slot int
			fmt.Sscan(said, &slot)
			if owner := tr.cluster.Owner(i, slot); owner >= 0 {
				return owner
			}
		}
	}
	tr.Fatalf("no server says who has %s", room)
	return -1
}

func (tr *trial) readCluster(ctx context.Context, logs map[string]*redis.XMessageSliceCmd) {
	tr.Helper()
	for _, room := range tr.roomNames {
		c := tr.cluster.Servers[tr.roomAt(room)].Client()
		if logs[room] = c.XRange(ctx, logKey(room), "-", "+"); logs[room].Err() != nil {
			tr.Fatalf("read what Redis has: %v", logs[room].Err())
		}
	}
}

// takesOver waits until a server is primary, and all others that live know.
func (tr *trial) takesOver(replica int) {
	tr.Helper()
	for deadline := time.Now().Add(tr.patience); !tr.cluster.Servers[replica].IsPrimary(); {
		if time.Now().After(deadline) {
			tr.Fatal("no replica takes over")
		}
		tr.meanwhile(50 * time.Millisecond)
	}
	tr.pass()
}

func shardKilled(tr *trial) {
	victim := tr.roomAt(tr.roomNames[0])
	tr.cluster.Servers[victim].Kill()
	tr.takesOver(victim + 3)
}

func shardsFailOver(tr *trial) {
	before := tr.reconnects()
	for i := range 3 {
		tr.cluster.FailOver(3 + i)
		tr.pass()
	}
	tr.broke(tr.reconnects() - before)
}

// shardTail kills a primary whose replica was cut off before.
func shardTail(tr *trial) {
	victim := tr.roomAt(tr.roomNames[0])
	tr.across(func() {
		tr.cluster.Do(victim, "acl", "setuser", "default", "-psync", "-sync")
		tr.cluster.Do(victim, "client", "kill", "type", "replica")
	}, func() {
		tr.see(tr.admin(), nil)
		tr.cluster.Servers[victim].Kill()
		tr.takesOver(victim + 3)
	})
}

func slotsMove(tr *trial) {
	keys := 0
	for range 2 {
		for _, room := range tr.roomNames {
			from := tr.roomAt(room)
			var slot int
			fmt.Sscan(tr.cluster.Do(from, "cluster", "keyslot", logKey(room)), &slot)
			tr.urge()
			keys += tr.cluster.Move(slot, from, (from+1)%3)
			tr.meanwhile(tr.traffic / 4)
		}
	}
	tr.effect(fmt.Sprint(keys), "keys moved")
}

// slotHeld leaves a slot half moved for 10 s, as a tool that died would: its rooms wait, and those of other slots go on.
func slotHeld(tr *trial) {
	room := tr.roomNames[0]
	from := tr.roomAt(room)
	to := (from + 1) % 3
	var slot int
	fmt.Sscan(tr.cluster.Do(from, "cluster", "keyslot", logKey(room)), &slot)
	tr.urge()
	tr.cluster.Begin(slot, from, to)
	keys := tr.cluster.MoveKeys(slot, from, to, 1)
	tr.urge()
	tr.goOn(tr.roomNames[1:], 10*time.Second)
	keys += tr.cluster.MoveKeys(slot, from, to, 1<<30)
	tr.cluster.End(slot, from, to)
	tr.pass()
	tr.effect(fmt.Sprint(keys), "keys moved")
}

// goOn lets time pass, in the second half of which something must be acknowledged in each of these rooms.
func (tr *trial) goOn(rooms []string, d time.Duration) {
	tr.Helper()
	tr.meanwhile(d / 2)
	before := tr.ackedIn(rooms)
	tr.meanwhile(d / 2)
	for room, n := range before {
		if tr.ackedIn([]string{room})[room] == n {
			tr.Errorf("nothing is acknowledged in %s, which nothing was done to", room)
		}
	}
}

// shardAway stops a primary and its replica: the rooms of the others go on.
func shardAway(tr *trial) {
	victim := tr.roomAt(tr.roomNames[0])
	spared := slices.DeleteFunc(slices.Clone(tr.roomNames), func(room string) bool { return tr.roomAt(room) == victim })
	away := []*bustest.RedisServer{tr.cluster.Servers[victim], tr.cluster.Servers[victim+3]}
	for _, s := range away {
		s.Pause()
	}
	tr.goOn(spared, tr.long)
	if _, said, err := tr.stations[0].get("/readyz"); err != nil || !strings.Contains(string(said), "away: ") {
		tr.Errorf("/readyz does not say which part is away: %s, %v", said, err)
	}
	for _, s := range away {
		s.Resume()
	}
	tr.pass()
}

func shardsClientKill(tr *trial) {
	for range 5 {
		tr.urge()
		for i := range 3 {
			for _, kind := range []string{"pubsub", "normal"} {
				n := 0
				fmt.Sscan(tr.cluster.Do(i, "client", "kill", "type", kind), &n)
				tr.broke(n)
			}
		}
		tr.meanwhile(tr.traffic / 2)
	}
}
