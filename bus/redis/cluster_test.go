package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// A prefixed bus has rooms of its own among others, on servers that all share.
type prefixed struct {
	bus.Bus
	prefix string
}

func (b prefixed) Publish(room string, d bus.Draft, done func(bus.ID, error)) {
	b.Bus.Publish(b.prefix+room, d, done)
}

func (b prefixed) Signal(room string, body []byte, done func(error)) {
	b.Bus.Signal(b.prefix+room, body, done)
}

func (b prefixed) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	return b.Bus.Subscribe(ctx, b.prefix+room, sink)
}

func (b prefixed) After(ctx context.Context, room string, since bus.ID, limit, bytes int) (bus.Page, error) {
	return b.Bus.After(ctx, b.prefix+room, since, limit, bytes)
}

func (b prefixed) Before(ctx context.Context, room string, before bus.ID, limit, bytes int) (bus.Page, error) {
	return b.Bus.Before(ctx, b.prefix+room, before, limit, bytes)
}

func (b prefixed) Roster(ctx context.Context, room string) (bus.Roster, error) {
	return b.Bus.Roster(ctx, b.prefix+room)
}

// Rooms leaves out those of others.
func (p prefixed) Rooms(ctx context.Context) (names []string, err error) {
	all, err := p.Bus.Rooms(ctx)
	for _, name := range all {
		if own, ok := strings.CutPrefix(name, p.prefix); ok {
			names = append(names, own)
		}
	}
	return names, err
}

// A bus over a Redis Cluster is the bus that any is.
func TestRedisCluster(t *testing.T) {
	servers := bustest.StartRedisCluster(t, 3, 1, "cluster-node-timeout 30000") // a busy machine is no failure
	var backends atomic.Int64
	bustest.Run(t, func(t testing.TB, keep bus.Retention) bustest.Backend {
		prefix := fmt.Sprint(backends.Add(1), " ")
		return bustest.Backend{
			Open: func(o bus.Observer) (bus.Bus, error) {
				cfg := redis.Config{URL: servers.URL(), Retention: keep, Observer: o, Links: 1, Timeout: 5 * time.Second} // of a busy machine
				c, err := redis.OpenCluster(t.Context(), cfg)
				return prefixed{c, prefix}, err
			},
			ClockBack: func(room string) {
				slot := redis.SlotOf(prefix + room)
				redis.ClockBack(t, servers.Servers[servers.Owner(0, slot)].URL(), prefix+room)
			},
		}
	})
}

// A clusterNode is a node of ours on a Redis Cluster, in some rooms.
type clusterNode struct {
	*redis.Cluster
	t    *testing.T
	told map[string]*listener
	subs map[string]bus.Subscription
}

func openCluster(t *testing.T, servers *bustest.RedisCluster, rooms ...string) *clusterNode {
	t.Helper()
	return openClusterNode(t, redis.Config{URL: servers.URL(), Timeout: 5 * time.Second}, rooms...)
}

func openClusterNode(t *testing.T, cfg redis.Config, rooms ...string) *clusterNode {
	t.Helper()
	c, err := redis.OpenCluster(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	n := &clusterNode{Cluster: c, t: t, told: make(map[string]*listener), subs: make(map[string]bus.Subscription)}
	for _, room := range rooms {
		n.subs[room], n.told[room] = subscribe(t, c, room)
	}
	return n
}

// chatter is what a node says in a room, one after the other, each repeated until it is acknowledged.
type chatter struct {
	stop  chan struct{}
	ended chan struct{}
	said  []string // owned by the goroutine until ended is closed
	late  time.Duration
}

func (n *clusterNode) chat(room, prefix string) *chatter {
	c := &chatter{stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		for i := 0; ; i++ {
			body, began := fmt.Sprint(prefix, i), time.Now()
			for deadline := began.Add(2 * patience); ; time.Sleep(5 * time.Millisecond) {
				_, err := tryAppend(n.t, n, room, body, body)
				if err == nil {
					break
				}
				if time.Now().After(deadline) {
					n.t.Errorf("%s in %s: %v", body, room, err)
					return
				}
			}
			c.said, c.late = append(c.said, body), max(c.late, time.Since(began))
			select {
			case <-c.stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return c
}

// end ends it, and gives what was said.
func (c *chatter) end() []string {
	close(c.stop)
	<-c.ended
	return c.said
}

// hears shows that a node was told of exactly this, in this order, and of nothing else that begins so.
func (n *clusterNode) hears(room, prefix string, want []string) {
	n.t.Helper()
	if len(want) == 0 {
		n.t.Fatalf("nothing was said in %s", room)
	}
	last := want[len(want)-1]
	lines := n.told[room].until(last+" in "+room, func(lines []string) bool { return slices.Contains(lines, last) })
	lines = slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, prefix) })
	if !slices.Equal(lines, want) {
		n.t.Errorf("in %s %d lines were said, and %d heard: %.300q, not %.300q", room, len(want), len(lines), lines, want)
	}
}

// roomsOf gives names of rooms whose slots a server has, as another says.
func roomsOf(servers *bustest.RedisCluster, server, count int) (rooms []string) {
	for i := 0; len(rooms) < count; i++ {
		if room := fmt.Sprint("room ", i); servers.Owner(0, redis.SlotOf(room)) == server {
			rooms = append(rooms, room)
		}
	}
	return rooms
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
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	slot := redis.SlotOf(room)
	n := openCluster(t, servers, room)
	appendTo(t, n, room, "before", "")
	servers.Begin(slot, 0, 1)
	servers.MoveKeys(slot, 0, 1, 1)
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

// The dead are struck off the list that names them, also if that is under the tag of another slot than the node's own lease.
func TestRedisClusterTheDeadAreStruckOffTheListOfTheFirstSlot(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	servers.Move(0, 0, 1)
	openClusterNode(t, redis.Config{URL: servers.URL(), Timeout: 5 * time.Second, HeartbeatInterval: time.Second})
	ctx := t.Context()
	lists, err := servers.Servers[1].Client().Keys(ctx, "parley:incarnations*").Result()
	if err != nil || len(lists) != 1 {
		t.Fatalf("the lists are %q, %v", lists, err)
	}
	former, err := servers.Servers[1].Client().SMembers(ctx, lists[0]).Result()
	if err != nil || len(former) != 1 {
		t.Fatalf("listed are %q, %v", former, err)
	}
	servers.Move(0, 1, 0) // with the list, and the lease of the node there, which it replaces by another
	eventually(t, "the former incarnation to be struck off", func() bool {
		listed, err := servers.Servers[0].Client().SIsMember(ctx, lists[0], former[0]).Result()
		return err == nil && !listed
	})
}

// The dead of a primary are seen to though another primary is away, at which it must be asked whether one lives that was met here.
func TestRedisClusterTheDeadAreSeenToThoughAnotherPartIsAway(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	rooms := roomsOf(servers, 0, 2)
	openClusterNode(t, redis.Config{
		URL: servers.URL(), Timeout: 5 * time.Second, HeartbeatInterval: 500 * time.Millisecond, CompareInterval: 500 * time.Millisecond,
	}, rooms...)
	tag := func(server int) string {
		return "{" + strings.Replace(roomsOf(servers, server, 1)[0], " ", "+", 1) + "}"
	}
	elsewhere, dead := tag(1)+"elsewhere", tag(0)+"dead"
	servers.Servers[1].Kill()
	ctx, c := t.Context(), servers.Servers[0].Client()
	met := func(i int, inc string) bool {
		there, err := c.HExists(ctx, redis.KeysOf(rooms[i]).Incarnations, inc).Result()
		return err == nil && there
	}
	for i, inc := range []string{elsewhere, dead} {
		if err := c.HSet(ctx, redis.KeysOf(rooms[i]).Incarnations, inc, 1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the dead to be gone", func() bool { return !met(1, dead) })
	if !met(0, elsewhere) {
		t.Error("one of whom nobody can know is taken for dead")
	}
}

// Where a primary has got an earlier slot, nodes that came before and after it know of each other's rooms.
func TestRedisClusterNodesKnowOfEachOtherWhateverSlotIsTheFirst(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	cfg := redis.Config{URL: servers.URL(), Timeout: 5 * time.Second, HeartbeatInterval: time.Second}
	room := roomsOf(servers, 1, 1)[0]
	before := openClusterNode(t, cfg, room)
	before.subs[room].Enter(bus.Member{ID: "ann"})
	before.told[room].change(bus.Joined, "ann")
	servers.Move(8000, 0, 1)
	after := openClusterNode(t, cfg)
	eventually(t, "the room to be listed", func() bool {
		rooms, err := after.Rooms(t.Context())
		return err == nil && slices.Equal(rooms, []string{room})
	})
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

// What a node had in a room at the primary that the room has left is taken out of it, also where that can't be done at once.
func TestRedisClusterNobodyStaysInARoomThatHasMoved(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
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
	servers.Move(redis.SlotOf(room), 0, 1)
	eventually(t, "a refusal", func() bool { return strings.Contains(servers.Do(1, "acl", "log"), "unlink") })
	allow()
	n.subs[room].Leave("ann")
	eventually(t, "nobody to be there", func() bool {
		r, err := n.Cluster.Roster(t.Context(), room)
		return err == nil && r.Count == 0 && n.subs[room].Roster().Count == 0
	})
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

// What is under way when its room begins to move is refused where the room was. What was published after it does not overtake it.
func TestRedisClusterWhatIsUnderWayWhenItsRoomMovesStaysFirst(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	b := newBrake("said first")
	cfg := redis.Config{URL: servers.URL(), Links: 1, Timeout: patience}
	cfg.SetDial(b.dial)
	n := openClusterNode(t, cfg, room)
	appendTo(t, n, room, "before", "")
	said, outcomes := []string{"said first"}, make(chan error, 10)
	for i := range cap(outcomes) {
		if i > 0 {
			said = append(said, fmt.Sprint("said then ", i))
		}
		n.Publish(room, bus.Draft{Body: []byte(said[i])}, func(_ bus.ID, err error) { outcomes <- err })
		<-b.reached
	}
	servers.Move(redis.SlotOf(room), 0, 1)
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
}

// What the node knows of where a room is goes with the last use of the room.
func TestRedisClusterKeepsNoPlaceOfARoomThatIsNotInUse(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	room := roomsOf(servers, 0, 1)[0]
	n := openCluster(t, servers, room)
	if _, err := n.Subscribe(t.Context(), room, &nothing{}); err == nil {
		t.Error("subscribed twice")
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Subscribe(over, "given up", &nothing{}); err == nil {
		t.Error("subscribed after the end")
	}
	appendTo(t, n, room, "m", "")
	appendTo(t, n, "elsewhere", "m", "")
	signalled := make(chan error, 1)
	n.Signal("elsewhere", nil, func(err error) { signalled <- err })
	if err := <-signalled; err != nil {
		t.Error(err)
	}
	if places := n.Places(); places != 1 {
		t.Errorf("%d places are known, of one room in use", places)
	}
	n.subs[room].Close()
	if places := n.Places(); places != 0 {
		t.Errorf("%d places are known, of no room", places)
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
	logs := func(sign string) {
		for i := range servers.Servers {
			servers.Do(i, "acl", "setuser", "default", sign+"xrange", sign+"xrevrange")
		}
	}
	logs("-")
	servers.Do(0, "client", "kill", "type", "pubsub")
	eventually(t, "messages to be held", func() bool {
		_, _ = tryAppend(t, other, room, "m", "")
		return n.Held() > 0
	})
	servers.Move(redis.SlotOf(room), 0, 1)
	eventually(t, "nothing to be held", func() bool { return n.Held() == 0 })
	logs("+")
	appendTo(t, other, room, "the end", "")
	n.told[room].until("the end", func(lines []string) bool { return slices.Contains(lines, "the end") })
}

// aloneInCluster is a Redis Cluster of one node, which has all slots.
func aloneInCluster(t *testing.T, epoch int, config ...string) *bustest.RedisServer {
	t.Helper()
	s := bustest.StartRedisTCP(t, append([]string{"cluster-enabled yes"}, config...)...)
	c := s.Client()
	if err := c.Do(t.Context(), "cluster", "set-config-epoch", epoch).Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it to have all slots", func() bool { return strings.Contains(c.ClusterInfo(t.Context()).Val(), "cluster_state:ok") })
	return s
}

// Of two nodes that say different things of the slots the one counts that knows of the latest change, whichever answers first.
func TestRedisClusterGoesByTheLatestChange(t *testing.T) {
	t.Parallel()
	old, now := aloneInCluster(t, 1), aloneInCluster(t, 2)
	for i := range 6 {
		addrs := []string{old.Addr(), now.Addr()}
		if i%2 == 0 {
			slices.Reverse(addrs)
		}
		n := openClusterNode(t, redis.Config{URL: "redis+cluster://" + strings.Join(addrs, ",")})
		appendTo(t, n, "lobby", fmt.Sprint("m", i), "")
	}
	if n := now.Client().XLen(t.Context(), redis.KeysOf("lobby").Log).Val(); n != 6 {
		t.Errorf("it has %d of 6 messages", n)
	}
}

// A Redis Cluster that stops as a whole when a part is away is warned of.
func TestRedisClusterThatWantsFullCoverageIsWarnedOf(t *testing.T) {
	t.Parallel()
	for setting, warns := range map[string]bool{"yes": true, "no": false} {
		var log bytes.Buffer
		s := aloneInCluster(t, 1, "cluster-require-full-coverage "+setting)
		c, err := redis.OpenCluster(t.Context(), redis.Config{URL: "redis+cluster://" + s.Addr(), Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if strings.Contains(log.String(), "full-coverage") != warns {
			t.Errorf("%s: logged %q", setting, log.String())
		}
	}
}

// chatOverAll opens two nodes in a room of each of three primaries. Ann is in each, and talks, over the first node.
func chatOverAll(t *testing.T, servers *bustest.RedisCluster) (rooms []string, a, b *clusterNode, chats []*chatter) {
	t.Helper()
	rooms = slices.Concat(roomsOf(servers, 0, 1), roomsOf(servers, 1, 1), roomsOf(servers, 2, 1))
	a, b = openCluster(t, servers, rooms...), openCluster(t, servers, rooms...)
	for _, room := range rooms {
		a.subs[room].Enter(bus.Member{ID: "ann"})
		chats = append(chats, a.chat(room, "a"))
	}
	return rooms, a, b, chats
}

// All connections to all primaries are ended, time and again.
func TestRedisClusterConnectionsAreKilled(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 3, 0)
	rooms, a, b, chats := chatOverAll(t, servers)
	killed := make(map[string]int)
	for range 3 {
		for i := range servers.Servers {
			for _, kind := range []string{"pubsub", "normal"} {
				n, _ := strconv.Atoi(servers.Do(i, "client", "kill", "type", kind))
				killed[kind] += n
			}
		}
		for _, room := range rooms {
			until := len(b.told[room].heard()) + 20
			b.told[room].until("traffic in "+room, func(lines []string) bool { return len(lines) > until })
		}
	}
	for i, room := range rooms {
		said := chats[i].end()
		for _, n := range []*clusterNode{a, b} {
			n.hears(room, "a", said)
			if n.told[room].broken() > 0 {
				t.Errorf("a gap was told in %s", room)
			}
			eventually(t, "ann to be there", func() bool { return n.subs[room].Roster().Count == 1 })
		}
	}
	if killed["pubsub"] < 3*3*2 || killed["normal"] == 0 {
		t.Errorf("connections killed: %v", killed)
	}
	eventually(t, "all parts to work", func() bool { return len(a.Away())+len(b.Away()) == 0 })
}

// Each shard fails over, one after the other, by command.
func TestRedisClusterFailsOverByCommand(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 3, 1)
	rooms, a, b, chats := chatOverAll(t, servers)
	for i, room := range rooms {
		servers.FailOver(3 + i)
		promoted := time.Now()
		until := len(b.told[room].heard()) + 20
		b.told[room].until("traffic in "+room, func(lines []string) bool { return len(lines) > until })
		if took := time.Since(promoted); took > failoverWithin {
			t.Errorf("it took %v from the promotion", took)
		}
	}
	for i, room := range rooms {
		said := chats[i].end()
		for _, n := range []*clusterNode{a, b} {
			n.hears(room, "a", said)
			eventually(t, "ann to be there", func() bool { return n.subs[room].Roster().Count == 1 })
		}
	}
	eventually(t, "all parts to work", func() bool { return len(a.Away())+len(b.Away()) == 0 })
}

// A primary that is killed harms its own rooms only, until a replica takes over; what that lacks is told as lost.
func TestRedisClusterAKilledPrimaryHarmsItsOwnRooms(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 3, 1)
	rooms := append(roomsOf(servers, 0, 1), roomsOf(servers, 1, 1)...)
	a, b := openCluster(t, servers, rooms...), openCluster(t, servers, rooms...)
	hit, spared := a.chat(rooms[0], "a"), a.chat(rooms[1], "a")
	b.told[rooms[0]].until("some", func(lines []string) bool { return len(lines) > 10 })
	servers.Servers[3].Pause() // the replica
	servers.Do(0, "client", "kill", "type", "replica")
	_, _ = servers.Try(0, "acl", "setuser", "default", "-psync", "-sync")
	lost := len(b.told[rooms[0]].heard()) + 10
	b.told[rooms[0]].until("what is lost", func(lines []string) bool { return len(lines) > lost })
	servers.Servers[0].Kill()
	servers.Servers[3].Resume()
	until := len(b.told[rooms[1]].heard()) + 100
	b.told[rooms[1]].until("traffic in the room that is spared", func(lines []string) bool { return len(lines) > until })
	if err := a.Ready(); err != nil {
		t.Errorf("the node is not ready: %v", err)
	}
	eventually(t, "the replica to take over", func() bool { return servers.Owner(1, 0) == 3 })
	promoted := time.Now()
	for _, n := range []*clusterNode{a, b} {
		eventually(t, "the loss to be told", func() bool { return n.told[rooms[0]].broken() > 0 })
	}
	after := len(b.told[rooms[0]].heard()) + 10
	b.told[rooms[0]].until("traffic again", func(lines []string) bool { return len(lines) > after })
	if took := time.Since(promoted); took > failoverWithin {
		t.Errorf("it took %v from the promotion", took)
	}
	hit.end()
	a.hears(rooms[1], "a", spared.end())
	if a.told[rooms[1]].broken() > 0 || spared.late > 5*time.Second {
		t.Errorf("the room that is spared was told %d gaps, and waited %v", a.told[rooms[1]].broken(), spared.late)
	}
}

// Nodes of the Cluster that are gone are not asked any more, unless the URL names them; those that come back are.
func TestRedisClusterForgetsNodesThatAreGone(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 1)
	named := strings.Split(servers.URL(), ",")
	n := openClusterNode(t, redis.Config{URL: strings.Join(append(named[:1:1], named[3]), ","), Timeout: 5 * time.Second})
	asked := func(want int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d nodes to be asked", want), func() bool { return n.Asked() == want })
	}
	asked(4)
	servers.Servers[2].Kill()
	asked(3)
	servers.Servers[3].Kill() // which is named
	eventually(t, "all to know that", func() bool { return strings.Count(servers.Do(0, "cluster", "nodes"), "fail ") == 2 })
	asked(3)
	servers.Servers[2].Restart()
	asked(4)
}

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

// A Redis Cluster whose URL says that it is none is refused, and the other way round.
func TestRedisClusterIsWhatItsURLSays(t *testing.T) {
	alone := bustest.StartRedisTCP(t)
	_, err := redis.OpenCluster(t.Context(), redis.Config{URL: "redis+cluster://" + alone.Addr()})
	if !errors.Is(err, redis.ErrMisconfigured) || !strings.Contains(err.Error(), "say redis://") {
		t.Errorf("says %v", err)
	}
}
