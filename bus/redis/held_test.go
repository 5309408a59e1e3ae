package redis_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// What arrives while logs can't be read is held, for a node as a whole within a bound. What is past it is read.
func TestRedisWhatANodeHoldsIsBounded(t *testing.T) {
	const rooms, each, most = 8, 40, 100_000
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	cfg := redis.Config{
		URL:             limitedURL(server),
		CompareInterval: 300 * time.Millisecond,
	}
	cfg.SetHeldBytes(most)
	r := openRedis(t, cfg)
	other := openRedis(t, redis.Config{URL: server.URL()})
	var told [rooms]*listener
	for i := range rooms {
		_, told[i] = subscribe(t, r, fmt.Sprint("room", i))
	}
	say := func(phase string) {
		t.Helper()
		for j := range each {
			for i := range rooms {
				appendTo(t, other, fmt.Sprint("room", i), fmt.Sprint(phase, j, strings.Repeat(".", 2000)), "")
			}
			if held := r.Held(); held > most {
				t.Fatalf("%d bytes are held", held)
			}
		}
	}
	allow(t, server, "allchannels", "-xrange", "-xrevrange")
	before := r.Sessions()
	r.Reconnect()
	eventually(t, "the links to come back", func() bool { return r.Sessions() >= before+2 })
	say("a")
	if held := r.Held(); held == 0 {
		t.Error("nothing is held")
	}
	allow(t, server, "allchannels")
	say("b")
	for i := range rooms {
		lines := told[i].until("all of it", func(lines []string) bool { return len(lines) >= 2*each })
		if slices.Contains(lines, "break") || len(lines) > 2*each {
			t.Errorf("room %d was told %d lines: %.100q", i, len(lines), lines)
		}
	}
	eventually(t, "nothing to be held", func() bool { return r.Held() == 0 })

	// Who is in a room is held too, and given back when the room is closed.
	allow(t, server, "allchannels", "-hgetall")
	again := r.Sessions()
	r.Reconnect()
	eventually(t, "the links to come back", func() bool { return r.Sessions() >= again+2 })
	sub, err := other.Subscribe(t.Context(), "room0", &nothing{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		sub.Enter(bus.Member{ID: fmt.Sprint("user", i), Name: strings.Repeat("n", 100)})
	}
	eventually(t, "changes to be held", func() bool { return r.Held() > 0 })
	allow(t, server, "allchannels")
	told[0].until("all", func(lines []string) bool { return slices.Contains(lines, "+user49") })
	eventually(t, "nothing to be held", func() bool { return r.Held() == 0 })
}

// What a room holds, messages and who is there, counts no more once the room is closed.
func TestRedisAClosedRoomHoldsNothing(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openRedis(t, redis.Config{URL: limitedURL(server)})
	other := openRedis(t, redis.Config{URL: server.URL()})
	from, _ := subscribe(t, other, "lobby")
	for _, c := range []struct {
		held   string
		denied []any
		say    func()
	}{
		{"messages", []any{"allchannels", "-xrange", "-xrevrange"}, func() { appendTo(t, other, "lobby", "m", "") }},
		{"who is there", []any{"allchannels", "-hgetall"}, func() { from.Enter(bus.Member{ID: "ann"}) }},
	} {
		allow(t, server, "allchannels")
		sub, _ := subscribe(t, r, "lobby")
		allow(t, server, c.denied...)
		before := r.Sessions()
		r.Reconnect()
		eventually(t, "the links to come back", func() bool { return r.Sessions() >= before+2 })
		c.say()
		eventually(t, c.held+" to be held", func() bool { return r.Held() > 0 })
		sub.Close()
		if n := r.Held(); n != 0 {
			t.Errorf("%s: %d bytes are held for a room that is closed", c.held, n)
		}
	}
}

// What waits for a slot that stays half moved is not held for ever: its sender is told, and may say it again.
func TestRedisClusterWhatASlotHalfMovedHoldsFailsInTime(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	slot := redis.SlotOf(room)
	n := openCluster(t, servers, room)
	appendTo(t, n, room, "before", "")
	servers.Begin(slot, 0, 1)
	servers.MoveKeys(slot, 0, 1, 1)
	if _, err := tryAppend(t, n, room, "held", "k"); !errors.Is(err, bus.ErrUnavailable) { // which waits for it
		t.Errorf("what was held got %v", err)
	}
	servers.MoveKeys(slot, 0, 1, 1<<30)
	servers.End(slot, 0, 1)
	eventually(t, "it to be said again", func() bool { _, err := tryAppend(t, n, room, "held", "k"); return err == nil })
	n.hears(room, "held", []string{"held"})
}
