package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// What was acknowledged and did not arrive is told as lost, too, where the room has moved before that is noticed.
func TestRedisClusterWhatIsLostAsItsRoomMovesIsTold(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 1, 0)
	server := servers.Servers[0]
	allow(t, server, "allchannels")
	n := openClusterNode(t, redis.Config{
		URL:             strings.Replace(servers.URL(), "://", "://node:secret@", 1),
		CompareInterval: time.Hour, HeartbeatInterval: 20 * time.Second,
	}, "lobby")
	appendTo(t, n, "lobby", "kept", "")
	n.told["lobby"].expect("kept")
	allow(t, server, "allchannels", "-spublish")
	appendTo(t, n, "lobby", "lost", "") // and nobody is told
	ctx, k, c := t.Context(), redis.KeysOf("lobby"), server.Client()
	entries, err := c.XRange(ctx, k.Log, "-", "+").Result()
	if err != nil || len(entries) != 2 {
		t.Fatalf("the log has %v, %v", entries, err)
	}
	p := c.TxPipeline()
	p.XDel(ctx, k.Log, entries[1].ID)
	p.Set(ctx, k.Last, entries[0].ID, time.Hour)
	if _, err := p.Exec(ctx); err != nil && !errors.Is(err, goredis.Nil) {
		t.Fatal(err)
	}
	n.MoveAway("lobby")
	n.told["lobby"].expect("kept", "break")
}

// It is noted too where this node has nobody in the room, and was not cut off: it asks of what it had acknowledged.
func TestRedisClusterWhatIsLostOfARoomThatIsNotInUseIsNotedWhereItHasMoved(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	n := openClusterNode(t, redis.Config{
		URL: servers.URL(), CompareInterval: 200 * time.Millisecond, HeartbeatInterval: 200 * time.Millisecond, LeaseTTL: 20 * time.Second,
	})
	kept, lost := appendTo(t, n, room, "kept", ""), appendTo(t, n, room, "lost", "")
	k := redis.KeysOf(room)
	servers.Do(0, "xdel", k.Log, lost.String())
	servers.Do(0, "set", k.Last, kept.String())
	servers.Move(redis.SlotOf(room), 0, 1)
	eventually(t, "the loss to be noted", func() bool {
		p, err := n.After(t.Context(), room, lost, 10, 0)
		return err == nil && !p.LastBreak.IsZero()
	})
}

// A room may be left, and come back to, at any moment while it moves: who is there then hears what is said, and Sync returns.
func TestRedisClusterARoomIsLeftWhileItMoves(t *testing.T) {
	t.Parallel()
	n := openCluster(t, bustest.StartRedisCluster(t, 1, 0))
	deadline, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var moving sync.WaitGroup
	for i := range 50 {
		sub, err := n.Subscribe(deadline, "lobby", &nothing{})
		if err != nil {
			t.Fatal(err)
		}
		sub.Enter(bus.Member{ID: fmt.Sprint("before", i)})
		moving.Go(func() { n.MoveAway("lobby") })
		if i%2 == 0 {
			if err := sub.Sync(deadline); err != nil {
				t.Fatalf("sync while it moves: %v", err)
			}
		}
		sub.Close()
		again, told := subscribe(t, n, "lobby")
		said := fmt.Sprint("m", i)
		appendTo(t, n, "lobby", said, said)
		told.until(said, func(lines []string) bool { return slices.Contains(lines, said) })
		again.Close()
		moving.Wait()
	}
	eventually(t, "no place to be kept", func() bool { return n.Places() == 0 })
}

// Each room's slot moves key by key while all speak, and back.
func TestRedisClusterSlotsMoveUnderTraffic(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	rooms := append(roomsOf(servers, 0, 2), roomsOf(servers, 1, 1)...)
	a, b := openCluster(t, servers, rooms...), openCluster(t, servers, rooms...)
	var fromA, fromB []*chatter
	for _, room := range rooms {
		a.subs[room].Enter(bus.Member{ID: "ann"})
		b.subs[room].Enter(bus.Member{ID: "bob"})
		fromA, fromB = append(fromA, a.chat(room, "a")), append(fromB, b.chat(room, "b"))
	}
	for range 2 {
		for _, room := range rooms {
			slot := redis.SlotOf(room)
			from := servers.Owner(0, slot)
			if servers.Move(slot, from, 1-from) == 0 {
				t.Error("no key was moved")
			}
			until := len(a.told[room].heard()) + 20
			a.told[room].until("traffic in "+room, func(lines []string) bool { return len(lines) > until })
		}
	}
	for i, room := range rooms {
		saidA, saidB := fromA[i].end(), fromB[i].end()
		for _, n := range []*clusterNode{a, b} {
			n.hears(room, "a", saidA)
			n.hears(room, "b", saidB)
			if n.told[room].broken() > 0 {
				t.Errorf("a gap was told in %s", room)
			}
			eventually(t, "both to be there", func() bool { return n.subs[room].Roster().Count == 2 })
		}
		left := slices.DeleteFunc(a.told[room].heard(), func(l string) bool { return l != "-ann" && l != "-bob" })
		if len(left) > 0 {
			t.Errorf("in %s it was told: %v", room, left)
		}
	}
}

// What a node had in a room at the primaries that the room has left is taken out of it, also where that can't be done before it has moved
// on. What it has there where the room comes back to is not: nobody leaves.
func TestRedisClusterNobodyStaysInARoomThatHasMoved(t *testing.T) {
	t.Parallel()
	for name, servers := range map[string][]int{"on": {0, 1, 2}, "back": {0, 1, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leavesWhereItWas(t, servers)
		})
	}
}

// leavesWhereItWas has a room with a member move over servers, which refuse all the while that anybody is taken out.
func leavesWhereItWas(t *testing.T, over []int) {
	servers := bustest.StartRedisCluster(t, 3, 0)
	room, end := roomsOf(servers, over[0], 1)[0], over[len(over)-1]
	allow := func(rule ...any) {
		for i := range servers.Servers {
			servers.Do(i, append([]any{"acl", "setuser", "node", "on", ">secret", "~*", "&*", "+@all"}, rule...)...)
		}
	}
	allow()
	n := openClusterNode(t, redis.Config{
		URL: strings.Replace(servers.URL(), "://", "://node:secret@", 1), Timeout: 5 * time.Second, CompareInterval: 500 * time.Millisecond,
	}, room)
	n.subs[room].Enter(bus.Member{ID: "ann"})
	n.told[room].change(bus.Joined, "ann")
	allow("-unlink") // which only taking out needs
	for i, from := range over[:len(over)-1] {
		to := over[i+1]
		servers.Do(to, "acl", "log", "reset")
		servers.Move(redis.SlotOf(room), from, to)
		eventually(t, "a refusal", func() bool { return strings.Contains(servers.Do(to, "acl", "log"), "unlink") })
	}
	allow()
	eventually(t, "the node to be there only where the room is", func() bool { return len(incarnationsIn(t, servers.Servers[end], room)) == 1 })
	n.subs[room].Enter(bus.Member{ID: "bob"}) // who is written after all that
	n.told[room].expect("+ann", "+bob")
	n.subs[room].Leave("ann")
	n.subs[room].Leave("bob")
	eventually(t, "nobody to be there", func() bool {
		r, err := n.Cluster.Roster(t.Context(), room)
		return err == nil && r.Count == 0 && n.subs[room].Roster().Count == 0
	})
}

// incarnationsIn are those that have somebody in a room.
func incarnationsIn(t *testing.T, server *bustest.RedisServer, room string) []string {
	t.Helper()
	there, err := server.Client().HKeys(t.Context(), redis.KeysOf(room).Incarnations).Result()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(there, func(field string) bool { return field == "v" || field[0] == 'x' })
}

// Who is in a room that has moved stays there though the node's lease is lost where it is now.
func TestRedisClusterALostLeaseIsMadeUpForWhereARoomHasMovedTo(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	n := openClusterNode(t, redis.Config{URL: servers.URL(), Timeout: 5 * time.Second, HeartbeatInterval: 500 * time.Millisecond}, room)
	n.subs[room].Enter(bus.Member{ID: "ann"})
	n.told[room].change(bus.Joined, "ann")
	before := incarnationsIn(t, servers.Servers[0], room)
	servers.Move(redis.SlotOf(room), 0, 1)
	another := func() bool {
		there := incarnationsIn(t, servers.Servers[1], room)
		return len(there) == 1 && there[0] != before[0]
	}
	eventually(t, "the node to be there where the room is", another)
	before = incarnationsIn(t, servers.Servers[1], room)
	if err := servers.Servers[1].Client().Del(t.Context(), "parley:lease:"+before[0]).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it to be there under another lease", another)
	if r, err := n.Cluster.Roster(t.Context(), room); err != nil || r.Count != 1 {
		t.Errorf("%d members are read, %v", r.Count, err)
	}
	n.told[room].expect("+ann")
}

// A log is read where it has moved to before anybody was told of that, though that primary has forgotten the scripts.
func TestRedisClusterALogIsReadWhereItHasMovedToThoughScriptsAreForgottenThere(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	n := openClusterNode(t, redis.Config{URL: servers.URL(), HeartbeatInterval: time.Minute})
	appendTo(t, n, room, "m", "")
	reads := func(when string) {
		t.Helper()
		if p, err := n.After(t.Context(), room, bus.ID{}, 10, 0); err != nil || len(p.Messages) != 1 {
			t.Errorf("%s it has %d messages, %v", when, len(p.Messages), err)
		}
	}
	slot := redis.SlotOf(room)
	host, port, _ := net.SplitHostPort(servers.Servers[1].Addr())
	servers.Begin(slot, 0, 1)
	for _, key := range strings.Fields(strings.Trim(servers.Do(0, "cluster", "getkeysinslot", slot, 100), "[]")) {
		servers.Do(0, "migrate", host, port, key, 0, 5000)
	}
	reads("with all keys moved") // which connects to the other
	servers.Do(1, "script", "flush")
	servers.End(slot, 0, 1)
	reads("after the move")
}

// A slot that goes and comes back before it is noticed takes the subscriptions with it. They are made again.
func TestRedisClusterHearsASlotThatComesBack(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	slot, channel := redis.SlotOf(room), redis.KeysOf(room).Channel
	a, b := openCluster(t, servers, room), openCluster(t, servers, room)
	c := a.chat(room, "a")
	for range 4 {
		servers.Move(slot, 0, 1)
		servers.Move(slot, 1, 0)
		eventually(t, "both to be subscribed", func() bool {
			return servers.Do(0, "pubsub", "shardnumsub", channel) == "["+channel+" 2]"
		})
	}
	b.hears(room, "a", c.end())
}

// A move that is given up leaves nobody deaf whose connection broke meanwhile: what was refused is asked again.
func TestRedisClusterHearsASlotWhoseMoveIsGivenUp(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	slot := redis.SlotOf(room)
	a, b := openCluster(t, servers, room), openCluster(t, servers, room)
	appendTo(t, a, room, "before", "")
	servers.Begin(slot, 0, 1) // from here on what needs a key that is not there is refused
	refused := func() (n int) {
		_, stat, _ := strings.Cut(servers.Do(0, "info", "errorstats"), "errorstat_TRYAGAIN:count=")
		_, _ = fmt.Sscan(stat, &n)
		return n
	}
	before := refused()
	servers.Do(0, "client", "kill", "type", "pubsub")
	eventually(t, "what both ask to be refused", func() bool { return refused() >= before+2 })
	for i := range servers.Servers {
		servers.Do(i, "cluster", "setslot", slot, "stable")
	}
	c := a.chat(room, "a")
	a.told[room].until("traffic", func(lines []string) bool { return len(lines) > 20 })
	said := c.end()
	a.hears(room, "a", said)
	b.hears(room, "a", said)
}

// What is held while its slot moves is tried again though a batch of other rooms is under way when its time has come, and nothing follows that.
func TestRedisClusterWhatIsHeldLeavesBehindABatchOfOthers(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	rooms := roomsOf(servers, 0, 2)
	slot := redis.SlotOf(rooms[0])
	g := &gate{}
	cfg := redis.Config{URL: servers.URL(), Links: 1, Timeout: 10 * time.Second, HeartbeatInterval: time.Minute, CompareInterval: time.Hour}
	cfg.SetDial(g.dial)
	n := openClusterNode(t, cfg, rooms...)
	servers.Begin(slot, 0, 1)
	say := func(room string) chan error {
		said := make(chan error, 1)
		n.subs[room].Publish(bus.Draft{Body: []byte("m")}, func(_ bus.ID, err error) { said <- err })
		return said
	}
	held := say(rooms[0])
	eventually(t, "it to be refused", func() bool {
		stats := servers.Do(0, "info", "errorstats")
		return strings.Contains(stats, "errorstat_TRYAGAIN") || strings.Contains(stats, "errorstat_ASK")
	})
	for range 3 { // as it may be under way itself when the gate closes
		g.close()
		other := say(rooms[1])
		time.Sleep(80 * time.Millisecond) // more than it is held at once
		g.open()
		if err := <-other; err != nil {
			t.Fatal(err)
		}
	}
	for i := range servers.Servers {
		servers.Do(i, "cluster", "setslot", slot, "stable")
	}
	select {
	case err := <-held:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it is held still")
	}
}

// What is under way when its room begins to move is refused where the room was. What was published after it does not overtake it. The
// part that the room leaves stays till then, though it has no slots any more.
func TestRedisClusterWhatIsUnderWayWhenItsRoomMovesStaysFirst(t *testing.T) {
	t.Parallel()
	for name, move := range map[string]func(servers *bustest.RedisCluster, room string){
		"its slot":                 func(servers *bustest.RedisCluster, room string) { servers.Move(redis.SlotOf(room), 0, 1) },
		"all slots of its primary": func(servers *bustest.RedisCluster, _ string) { servers.GiveAll(0, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := bustest.StartRedisCluster(t, 2, 0)
			room := roomsOf(servers, 0, 1)[0]
			b, n := openBraked(t, servers, "said first", room)
			said, outcomes := sayTen(n, room, b)
			move(servers, room)
			looks := func() int { return bustest.Calls(t, servers.Servers[0].Client())["cluster|slots"] }
			before := looks()
			eventually(t, "the node to know", func() bool { // the third look comes after the second was followed, which began after the move
				_, _ = n.After(t.Context(), room, bus.ID{}, 1, 0) // has it look
				return looks() >= before+3
			})
			close(b.release)
			for range cap(outcomes) {
				if err := <-outcomes; err != nil {
					t.Error(err)
				}
			}
			n.hears(room, "said", said)
		})
	}
}

// What is published while its room moves counts, as what waits elsewhere, and does so no more once it has left.
func TestRedisClusterWhatIsPublishedWhileItsRoomMovesIsBounded(t *testing.T) {
	t.Parallel()
	b := newBrake("under way")
	const fit = 3
	cfg := redis.Config{URL: bustest.StartRedisCluster(t, 1, 0).URL(), Links: 1, Timeout: patience, QueueBytes: 70 << 10}
	cfg.SetDial(b.dial)
	n := openClusterNode(t, cfg, "lobby")
	publish := func(body string, outcomes chan error) {
		n.Publish("lobby", bus.Draft{Body: []byte(body)}, func(_ bus.ID, err error) { outcomes <- err })
	}
	moved := make(chan error, 2+fit)
	publish("under way", moved)
	<-b.reached
	n.Signal("lobby", []byte("waits behind it"), func(err error) { moved <- err }) // and stays there, as all that is not kept
	n.MoveAway("lobby")
	large := strings.Repeat("x", 20<<10)
	for range fit {
		publish(large, moved)
	}
	refused := make(chan error, 1)
	publish(large, refused)
	select {
	case err := <-refused:
		if !errors.Is(err, bus.ErrUnavailable) {
			t.Errorf("what does not fit: %v", err)
		}
	default:
		t.Error("what does not fit waits")
	}
	close(b.release)
	for range cap(moved) {
		if err := <-moved; err != nil {
			t.Error(err)
		}
	}
	for range 2 * fit {
		appendTo(t, n, "lobby", large, "")
	}
}

// Who comes to a room while it moves waits until it has, and no longer.
func TestRedisClusterARoomThatMovesIsComeToOnceItHas(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 1, 0)
	b, n := openBraked(t, servers, "under way", "lobby")
	said := make(chan error, 1)
	n.Publish("lobby", bus.Draft{Body: []byte("under way")}, func(_ bus.ID, err error) { said <- err })
	<-b.reached
	n.MoveAway("lobby")
	n.subs["lobby"].Close()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.Subscribe(short, "lobby", &nothing{}); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("subscribed while it moves: %v", err)
	}
	come := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		sub, err := n.Subscribe(ctx, "lobby", &nothing{})
		if err == nil {
			sub.Close()
		}
		come <- err
	}()
	close(b.release)
	if err := <-said; err != nil {
		t.Errorf("what was under way: %v", err)
	}
	if err := <-come; err != nil {
		t.Error(err)
	}
}

// A room that is left for good while it moves is not there where it moves to. Sync is not over before the move is.
func TestRedisClusterARoomThatIsClosedWhileItMovesIsOver(t *testing.T) {
	t.Parallel()
	cfg := redis.Config{URL: bustest.StartRedisCluster(t, 1, 0).URL(), HeartbeatInterval: time.Minute} // nobody else moves it
	n := openClusterNode(t, cfg, "lobby")
	n.MoveAwayWhile("lobby", func() {
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := n.subs["lobby"].Sync(short); !errors.Is(err, bus.ErrUnavailable) {
			t.Errorf("sync while it moves: %v", err)
		}
		n.subs["lobby"].Close()
	})
	sub, told := subscribe(t, n, "lobby")
	appendTo(t, n, "lobby", "m", "")
	told.expect("m")
	sub.Close()
	eventually(t, "no place to be kept", func() bool { return n.Places() == 0 })
	n.told["lobby"].expect()
}

// Who waits in Sync while the room moves waits on where it has moved to.
func TestRedisClusterSyncGoesOnWhereARoomHasMovedTo(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 1, 0)
	n := openClusterNode(t, redis.Config{URL: servers.URL(), CompareInterval: 200 * time.Millisecond}, "lobby")
	servers.Do(0, "acl", "setuser", "default", "-xrange") // so that the log can't be read
	servers.Do(0, "client", "kill", "type", "pubsub")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	synced := make(chan error, 1)
	go func() { synced <- n.subs["lobby"].Sync(ctx) }()
	eventually(t, "it to wait", func() bool { return n.Waiters("lobby") == 1 })
	n.MoveAway("lobby")
	servers.Do(0, "acl", "setuser", "default", "+xrange")
	if err := <-synced; err != nil {
		t.Error(err)
	}
}

// What is known of a room at two parts, where it was and where it has moved to, is one: the later counts of both. A node may note at
// the first one still what it had acknowledged there.
func TestRedisClusterWhatIsKnownOfARoomWhereItWasIsKnownWhereItHasMovedTo(t *testing.T) {
	t.Parallel()
	for name, later := range map[string]func(t *testing.T, n, other *clusterNode, room string, noted func(bus.ID)) bus.ID{
		"acknowledged there": func(t *testing.T, n, _ *clusterNode, room string, noted func(bus.ID)) bus.ID {
			kept := appendTo(t, n, room, "kept", "")
			lost := appendTo(t, n, room, "lost", "")
			noted(kept)
			return lost
		},
		"acknowledged where it was": func(t *testing.T, n, other *clusterNode, room string, noted func(bus.ID)) bus.ID {
			appendTo(t, n, room, "kept", "")
			lost := appendTo(t, other, room, "lost", "")
			noted(lost)
			return lost
		},
		"delivered there": func(t *testing.T, n, other *clusterNode, room string, noted func(bus.ID)) bus.ID {
			sub, told := subscribe(t, n, room)
			kept := appendTo(t, other, room, "kept", "")
			lost := appendTo(t, other, room, "lost", "")
			told.expect("kept", "lost")
			sub.Close()
			noted(kept)
			return lost
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := bustest.StartRedisCluster(t, 2, 0)
			room := roomsOf(servers, 0, 1)[0]
			cfg := redis.Config{URL: servers.URL(), CompareInterval: time.Hour, HeartbeatInterval: 200 * time.Millisecond, LeaseTTL: 20 * time.Second}
			n, other := openClusterNode(t, cfg), openClusterNode(t, cfg)
			was := n.Part(servers.Servers[1].Addr())
			lost := later(t, n, other, room, func(i bus.ID) { was.Acknowledged(room, i) })
			_ = other.Close() // who would ask, too
			eventually(t, "it to be known where the room is", func() bool { return !was.HasTrail(room) })
			k, c := redis.KeysOf(room), servers.Servers[0].Client()
			entries, err := c.XRange(t.Context(), k.Log, "-", "+").Result()
			if err != nil || len(entries) != 2 {
				t.Fatalf("the log has %v, %v", entries, err)
			}
			servers.Do(0, "xdel", k.Log, lost.String())
			servers.Do(0, "set", k.Last, entries[0].ID)
			servers.Do(0, "client", "kill", "type", "pubsub") // who comes back asks
			eventually(t, "the loss to be noted", func() bool {
				p, err := n.After(t.Context(), room, lost, 10, 0)
				return err == nil && !p.LastBreak.IsZero()
			})
		})
	}
}

// What a room holds until its log can be read counts no more at a primary that it has left.
func TestRedisClusterWhatARoomHoldsIsGivenBackWhenItMoves(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	n := openClusterNode(t, redis.Config{URL: servers.URL(), CompareInterval: 300 * time.Millisecond}, room)
	other := openCluster(t, servers)
	appendTo(t, other, room, "before", "")
	n.told[room].expect("before")
	members, _ := subscribe(t, other, room)
	reads := func(sign string, commands ...string) {
		for i := range servers.Servers {
			for _, c := range commands {
				servers.Do(i, "acl", "setuser", "default", sign+c)
			}
		}
	}
	for i, held := range []struct {
		reads []string
		say   func(n int)
	}{
		{[]string{"xrange", "xrevrange"}, func(int) { _, _ = tryAppend(t, other, room, "m", "") }},
		{[]string{"hlen"}, func(n int) { members.Enter(bus.Member{ID: fmt.Sprint("ann", n)}) }}, // which a change of few needs not
	} {
		reads("-", held.reads...)
		servers.Do(i, "client", "kill", "type", "pubsub")
		said := 0
		eventually(t, "something to be held", func() bool {
			said++
			held.say(said)
			return n.Held() > 0
		})
		servers.Move(redis.SlotOf(room), i, 1-i)
		eventually(t, "nothing to be held", func() bool { return n.Held() == 0 })
		reads("+", held.reads...)
		appendTo(t, other, room, fmt.Sprint("back ", i), "")
		n.told[room].until("what is said then", func(lines []string) bool { return slices.Contains(lines, fmt.Sprint("back ", i)) })
	}
	appendTo(t, other, room, "the end", "")
	n.told[room].until("the end", func(lines []string) bool { return slices.Contains(lines, "the end") })
}
