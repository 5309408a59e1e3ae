package redis_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// A part that is away is told, and a node may start meanwhile. It takes part there once it is back.
func TestRedisClusterStartsThoughAPartIsAway(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 3, 0)
	rooms := append(roomsOf(servers, 0, 1), roomsOf(servers, 1, 1)...)
	servers.Servers[0].Kill()
	a := openCluster(t, servers, rooms[1])
	appendTo(t, a, rooms[1], "hello", "")
	a.told[rooms[1]].expect("hello")
	if err := a.Ready(); err != nil {
		t.Errorf("the node is not ready: %v", err)
	}
	if _, err := tryAppend(t, a, rooms[0], "away", "k"); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("published where nobody is: %v", err)
	}
	eventually(t, "it to be told which part is away", func() bool {
		away := a.Away()
		return len(away) == 1 && strings.HasPrefix(away[0], servers.Servers[0].Addr())
	})
	servers.Servers[0].Restart()
	eventually(t, "the part to work", func() bool {
		_, err := tryAppend(t, a, rooms[0], "back", "k2")
		return err == nil && len(a.Away()) == 0
	})
	sub, told := subscribe(t, a, rooms[0])
	sub.Enter(bus.Member{ID: "ann"})
	told.change(bus.Joined, "ann")
}

// What one part will never let the node do ends the start, though others would.
func TestRedisClusterDoesNotStartWhereAPartLacksRights(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	allow(t, servers.Servers[0], "allchannels")
	allow(t, servers.Servers[1], "allchannels", "-xadd")
	c, err := redis.OpenCluster(t.Context(), redis.Config{URL: strings.Replace(servers.URL(), "://", "://node:secret@", 1), Timeout: 5 * time.Second})
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, redis.ErrMisconfigured) || !strings.Contains(err.Error(), "XADD") {
		t.Errorf("says %v", err)
	}
}

// A node may start while the first slot of a part moves, whose tag is in the names of what it keeps there of itself.
func TestRedisClusterStartsThoughTheFirstSlotOfAPartMoves(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	cfg := redis.Config{URL: servers.URL(), Timeout: 5 * time.Second}
	servers.Begin(0, 0, 1)
	a := openClusterNode(t, cfg, room)
	a.subs[room].Enter(bus.Member{ID: "ann"})
	a.told[room].change(bus.Joined, "ann")
	servers.MoveKeys(0, 0, 1, 1<<30)
	b := openClusterNode(t, cfg)
	for _, n := range []*clusterNode{a, b} {
		if away := n.Away(); len(away) > 0 {
			t.Errorf("away is %q", away)
		}
		if rooms, err := n.Rooms(t.Context()); err != nil || !slices.Equal(rooms, []string{room}) {
			t.Errorf("listed are %q, %v", rooms, err)
		}
	}
	servers.End(0, 0, 1)
	c := openClusterNode(t, cfg, room)
	c.subs[room].Enter(bus.Member{ID: "cay"})
	a.told[room].change(bus.Joined, "cay")
}

// A part hears its heartbeats though the slot of their channel moves away, whatever else it hears.
func TestRedisClusterAPartHearsItselfThoughTheSlotOfItsHeartbeatsMoves(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	n := openClusterNode(t, redis.Config{URL: servers.URL(), Links: 1, Timeout: 5 * time.Second, HeartbeatInterval: time.Second}, room)
	beats := func() string { return servers.Do(0, "pubsub", "shardchannels", "parley:beat:*") }
	before := beats()
	chat := n.chat(room, "a")
	servers.Move(0, 0, 1)
	eventually(t, "heartbeats in another channel", func() bool {
		if away := n.Away(); len(away) > 0 {
			t.Fatalf("away is %q", away)
		}
		now := beats()
		return now != before && strings.Contains(now, "beat")
	})
	n.hears(room, "a", chat.end())
}

// A primary that has slots for the first time is a part from then on, and one that has none any more is no part: nobody misses it.
func TestRedisClusterPartsComeAndGo(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	servers.GiveAll(0, 1)
	cfg := redis.Config{URL: servers.URL(), Timeout: 5 * time.Second, HeartbeatInterval: 500 * time.Millisecond}
	a, b := openClusterNode(t, cfg, "lobby"), openClusterNode(t, cfg, "lobby")
	a.subs["lobby"].Enter(bus.Member{ID: "ann"})
	b.told["lobby"].change(bus.Joined, "ann")
	before := incarnationsIn(t, servers.Servers[1], "lobby")
	servers.Move(redis.SlotOf("lobby"), 1, 0)
	says := func(body string) {
		eventually(t, "an acknowledgement", func() bool { _, err := tryAppend(t, a, "lobby", body, body); return err == nil })
	}
	says("to the new part") // which has not let the node in at first
	eventually(t, "the node to be there where the room is", func() bool {
		there := incarnationsIn(t, servers.Servers[0], "lobby")
		return len(there) == 1 && there[0] != before[0]
	})
	servers.GiveAll(1, 0)
	for _, n := range []*clusterNode{a, b} {
		eventually(t, "the old part to be left", func() bool { return n.Part(servers.Servers[1].Addr()) == nil })
	}
	servers.Servers[1].Kill()
	says("without the old part")
	for _, n := range []*clusterNode{a, b} {
		if away := n.Away(); len(away) > 0 {
			t.Errorf("away is %q", away)
		}
	}
	b.told["lobby"].expect("+ann", "to the new part", "without the old part")
}

// What is in slots that no primary has is away, and not taken for empty, until one has them. Without any primary the node is not ready.
func TestRedisClusterSlotsThatNobodyHasAreAway(t *testing.T) {
	t.Parallel()
	s := aloneInCluster(t, 1, "cluster-require-full-coverage no")
	ctx, c := t.Context(), s.Client()
	if err := c.ClusterDelSlotsRange(ctx, 1, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	n := openClusterNode(t, redis.Config{URL: "redis+cluster://" + s.Addr(), HeartbeatInterval: 300 * time.Millisecond, LeaseTTL: 20 * time.Second})
	for what, do := range map[string]func() error{
		"publish":   func() error { _, err := tryAppend(t, n, "lobby", "m", ""); return err },
		"subscribe": func() error { _, err := n.Subscribe(ctx, "lobby", &nothing{}); return err },
		"after":     func() error { _, err := n.After(ctx, "lobby", bus.ID{}, 1, 0); return err },
		"before":    func() error { _, err := n.Before(ctx, "lobby", bus.ID{}, 1, 0); return err },
		"roster":    func() error { _, err := n.Cluster.Roster(ctx, "lobby"); return err },
		"post":      func() error { return n.Post(ctx, "text", time.Now().Add(time.Hour)) },
		"posted":    func() error { _, _, err := n.Posted(ctx, ""); return err },
		"draw":      func() error { _, err := n.Draw(ctx, "ann", 1, 1, 1); return err },
		"count":     func() error { _, err := n.Count(ctx, "ann", "node", 1, time.Hour); return err },
		"signal": func() error {
			told := make(chan error, 1)
			n.Signal("lobby", nil, func(err error) { told <- err })
			return <-told
		},
	} {
		if err := do(); !errors.Is(err, bus.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if places := n.Places(); places != 0 {
		t.Errorf("%d places are known, of no room in use", places)
	}
	if err := c.ClusterAddSlotsRange(ctx, 1, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an acknowledgement", func() bool { _, err := tryAppend(t, n, "lobby", "m", "m"); return err == nil })
	s.Kill()
	eventually(t, "the node not to be ready", func() bool { return n.Ready() != nil && n.HeartbeatAge() > 300*time.Millisecond })
}
