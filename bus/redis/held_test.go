package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
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

// halfMoved gives a cluster with a node in a room of which a key has moved.
func halfMoved(t *testing.T) (servers *bustest.RedisCluster, n *clusterNode, room string) {
	t.Helper()
	servers = bustest.StartRedisCluster(t, 2, 0)
	room = roomsOf(servers, 0, 1)[0]
	slot := redis.SlotOf(room)
	n = openCluster(t, servers, room)
	appendTo(t, n, room, "before", "")
	servers.Begin(slot, 0, 1)
	servers.MoveKeys(slot, 0, 1, 1)
	return servers, n, room
}

// What waits for a slot that stays half moved is not held for ever: its sender is told, and may say it again.
func TestRedisClusterWhatASlotHalfMovedHoldsFailsInTime(t *testing.T) {
	t.Parallel()
	servers, n, room := halfMoved(t)
	slot := redis.SlotOf(room)
	if _, err := tryAppend(t, n, room, "held", "k"); !errors.Is(err, bus.ErrUnavailable) { // which waits for it
		t.Errorf("what was held got %v", err)
	}
	servers.MoveKeys(slot, 0, 1, 1<<30)
	servers.End(slot, 0, 1)
	eventually(t, "it to be said again", func() bool { _, err := tryAppend(t, n, room, "held", "k"); return err == nil })
	n.hears(room, "held", []string{"held"})
}

// A slot that is held half moved has its rooms wait, and no others. What was said meanwhile comes in order.
func TestRedisClusterASlotHalfMovedIsWaitedOut(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	rooms := roomsOf(servers, 0, 2)
	a, b := openCluster(t, servers, rooms...), openCluster(t, servers, rooms...)
	moving, other := a.chat(rooms[0], "a"), a.chat(rooms[1], "a")
	a.told[rooms[0]].until("some", func(lines []string) bool { return len(lines) > 10 })
	slot := redis.SlotOf(rooms[0])
	servers.Begin(slot, 0, 1)
	if n := servers.MoveKeys(slot, 0, 1, 1); n != 1 {
		t.Fatalf("%d keys moved", n)
	}
	heard := len(a.told[rooms[1]].heard())
	time.Sleep(3 * time.Second) // which an operator's tool may take
	a.told[rooms[1]].until("the room that stays to go on meanwhile", func(lines []string) bool { return len(lines) > heard+50 })
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := b.After(ctx, rooms[0], bus.ID{}, 10, 0); err != nil {
		t.Errorf("reading the room that moves: %v", err)
	}
	if err := b.subs[rooms[0]].Sync(ctx); err != nil {
		t.Errorf("Sync of the room that moves: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("reading took %v", took)
	}
	servers.MoveKeys(slot, 0, 1, 1<<30)
	servers.End(slot, 0, 1)
	a.told[rooms[0]].until("more", func(lines []string) bool { return len(lines) > 40 })
	for i, c := range []*chatter{moving, other} {
		said := c.end()
		a.hears(rooms[i], "a", said)
		b.hears(rooms[i], "a", said)
	}
	if moving.late < 3*time.Second {
		t.Errorf("the longest wait was %v: it did not have to wait", moving.late)
	}
}

// fill publishes large messages, whose bodies begin so, until one is refused since too much is waiting, and gives the bodies and
// outcomes of the others.
func (n *clusterNode) fill(room, prefix string) (bodies []string, outcomes chan error) {
	outcomes = make(chan error, 1000)
	for i := 0; ; i++ {
		body, refused := fmt.Sprint(prefix, i, strings.Repeat(" ", 20_000)), make(chan error, 1)
		n.Publish(room, bus.Draft{Body: []byte(body)}, func(_ bus.ID, err error) {
			if err != nil && strings.Contains(err.Error(), "too much is waiting") {
				refused <- err
				return
			}
			outcomes <- err
		})
		if len(refused) > 0 { // at once
			return bodies, outcomes
		}
		if bodies = append(bodies, body); len(bodies) == cap(outcomes) {
			n.t.Fatal("nothing is refused")
		}
	}
}

// What waits behind something that is refused while a slot moves is held behind it.
func TestRedisClusterWhatFollowsWhatIsHeldStaysBehindIt(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	slot := redis.SlotOf(room)
	b, n := openBraked(t, servers, "said first", room)
	appendTo(t, n, room, "before", "")
	servers.Begin(slot, 0, 1)
	servers.MoveKeys(slot, 0, 1, 1)
	said, outcomes := sayTen(n, room, b)
	refusals := func() string { return servers.Do(0, "info", "errorstats") }
	before := refusals()
	close(b.release)
	for range 3 { // and so once more after all that there is was
		eventually(t, "a refusal", func() bool { return refusals() != before })
		before = refusals()
	}
	servers.MoveKeys(slot, 0, 1, 1<<30)
	servers.End(slot, 0, 1)
	for range cap(outcomes) {
		if err := <-outcomes; err != nil {
			t.Error(err)
		}
	}
	n.hears(room, "said", said)
}

// What is refused while a slot moves is held within bounds, and acknowledged without a repeat. What fails, and what moves on, frees them.
func TestRedisClusterHoldsWhatIsRefusedWhileASlotMoves(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	slot := redis.SlotOf(room)
	const fit = 10 // of 20 KB at least, into 256 KiB that are free; more where some are on their way meanwhile
	n := openClusterNode(t, redis.Config{URL: servers.URL(), Timeout: 5 * time.Second, QueueBytes: 256 << 10}, room)
	appendTo(t, n, room, "before", "")
	halfMove := func() {
		servers.Begin(slot, 0, 1)
		servers.MoveKeys(slot, 0, 1, 1)
	}
	refused := func() { // by the primary, once more
		before := servers.Do(0, "info", "errorstats")
		eventually(t, "a refusal", func() bool { return servers.Do(0, "info", "errorstats") != before })
	}
	moveOn := func(prefix string, bodies []string, outcomes chan error) {
		servers.MoveKeys(slot, 0, 1, 1<<30)
		refused()
		servers.End(slot, 0, 1)
		for range bodies {
			if err := <-outcomes; err != nil {
				t.Errorf("what was held: %v", err)
			}
		}
		n.hears(room, prefix, bodies)
	}

	halfMove()
	bodies, outcomes := n.fill(room, "a")
	prefix, attempt := "", 0
	refused()
	refused() // and so held in between
	eventually(t, "the bound to be free once what was held has failed", func() bool {
		servers.Do(0, "client", "kill", "type", "pubsub")
		for range bodies {
			if err := <-outcomes; !errors.Is(err, bus.ErrUnavailable) {
				t.Errorf("what was held when the connection broke: %v", err)
			}
		}
		attempt++
		prefix = fmt.Sprint("b", attempt, " ")
		bodies, outcomes = n.fill(room, prefix)
		return len(bodies) >= fit
	})
	moveOn(prefix, bodies, outcomes)

	servers.Move(slot, 1, 0)
	appendTo(t, n, room, "it is back", "")
	halfMove()
	bodies, outcomes = n.fill(room, "c")
	if len(bodies) < fit {
		t.Errorf("once it was back %d large messages filled it", len(bodies))
	}
	moveOn("c", bodies, outcomes)
}

// A node that closes while a slot is half moved does not wait for the rest of the move: what is held fails.
func TestRedisClusterCloseDoesNotWaitForASlotHalfMoved(t *testing.T) {
	const quick = 5 * time.Second
	t.Parallel()
	servers, n, room := halfMoved(t)
	before := servers.Do(0, "info", "errorstats")
	outcomes := make(chan error, 10)
	for range cap(outcomes) {
		n.Publish(room, bus.Draft{Body: []byte("held")}, func(_ bus.ID, err error) { outcomes <- err })
	}
	eventually(t, "a refusal", func() bool { return servers.Do(0, "info", "errorstats") != before })
	began := time.Now()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > quick {
		t.Errorf("it took %v to close", took)
	}
	for range cap(outcomes) {
		if err := <-outcomes; !errors.Is(err, bus.ErrUnavailable) && !errors.Is(err, bus.ErrClosed) {
			t.Errorf("what was held got %v", err)
		}
	}
}

// Who is in a room whose slot is half moved can be read, whichever of the room's keys have moved first.
func TestRedisClusterARosterIsReadThoughItsSlotIsHalfMoved(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	rooms := roomsOf(servers, 0, 2)
	a, b := openCluster(t, servers, rooms...), openCluster(t, servers)
	host, port, _ := net.SplitHostPort(servers.Servers[1].Addr())
	for i, room := range rooms {
		a.subs[room].Enter(bus.Member{ID: "ann", Name: "Ann"})
		a.told[room].change(bus.Joined, "ann")
		users := a.UsersIn(room)
		keys := []string{redis.KeysOf(room).Incarnations, users}
		if i > 0 {
			slices.Reverse(keys)
		}
		servers.Begin(redis.SlotOf(room), 0, 1)
		for _, key := range keys {
			servers.Do(0, "migrate", host, port, key, 0, 5000)
			r, err := b.Cluster.Roster(t.Context(), room)
			if want := []bus.Member{{ID: "ann", Name: "Ann"}}; err != nil || r.Count != 1 || !slices.Equal(r.Members, want) {
				t.Errorf("with %s moved it reads %v, %v", key, r, err)
			}
		}
	}
}

// A page of a log says whether there is more, also where no script may read it.
func TestRedisClusterALogIsReadByPagesThoughItsSlotIsHalfMoved(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	n := openClusterNode(t, redis.Config{URL: servers.URL(), HeartbeatInterval: time.Minute})
	const messages = 3
	for i := range messages {
		appendTo(t, n, room, fmt.Sprint("m", i), "")
	}
	host, port, _ := net.SplitHostPort(servers.Servers[1].Addr())
	servers.Begin(redis.SlotOf(room), 0, 1)
	servers.Do(0, "migrate", host, port, redis.KeysOf(room).Last, 0, 5000)
	for limit := 1; limit <= messages; limit++ {
		after, err := n.After(t.Context(), room, bus.ID{}, limit, 0)
		before, err2 := n.Before(t.Context(), room, bus.ID{}, limit, 0)
		for _, p := range []bus.Page{after, before} {
			if err != nil || err2 != nil || len(p.Messages) != limit || p.More != (limit < messages) {
				t.Errorf("a page of %d of %d has %d, and says %v of more, %v, %v", limit, messages, len(p.Messages), p.More, err, err2)
			}
		}
	}
}
