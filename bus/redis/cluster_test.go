package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
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
				return prefixed{checked{c, t}, prefix}, err
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
	t.Cleanup(func() { _ = checked{c, t}.Close() })
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

// A node leaves a room once more that it has left, where the primary went back to what it was, and has the node in it again.
func TestRedisClusterANodeLeavesARoomThatItIsInAgain(t *testing.T) {
	t.Parallel()
	s := aloneInCluster(t, 1)
	n := openClusterNode(t, redis.Config{URL: "redis+cluster://" + s.Addr(), HeartbeatInterval: 300 * time.Millisecond, LeaseTTL: 20 * time.Second}, "lobby")
	n.subs["lobby"].Enter(bus.Member{ID: "ann"})
	n.told["lobby"].change(bus.Joined, "ann")
	ctx, c := t.Context(), s.Client()
	users, list := n.UsersIn("lobby"), "parley:rooms:"+incarnationsIn(t, s, "lobby")[0]
	keys := []string{users, redis.KeysOf("lobby").Incarnations, list} // what the node looks at comes last
	var before []string
	for _, key := range keys {
		before = append(before, c.Dump(ctx, key).Val())
	}
	left := func() bool { return c.Exists(ctx, list).Val()+c.Exists(ctx, users).Val() == 0 }
	n.subs["lobby"].Close()
	eventually(t, "the node to have left", left)
	for i, key := range keys {
		if err := c.RestoreReplace(ctx, key, 0, before[i]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the node to have left again", left)
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

// A Redis Cluster whose URL says that it is none is refused, and the other way round; so is one that has no slots yet.
func TestRedisClusterIsWhatItsURLSays(t *testing.T) {
	c, err := redis.OpenCluster(t.Context(), redis.Config{URL: "redis+cluster://" + bustest.StartRedisTCP(t, "cluster-enabled yes").Addr()})
	if err == nil {
		c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "no slots") {
		t.Errorf("without slots says %v", err)
	}
	alone := bustest.StartRedisTCP(t)
	_, err = redis.OpenCluster(t.Context(), redis.Config{URL: "redis+cluster://" + alone.Addr()})
	if !errors.Is(err, redis.ErrMisconfigured) || !strings.Contains(err.Error(), "say redis://") {
		t.Errorf("says %v", err)
	}
}

// A failover is followed as soon as the old primary says so: not only when a heartbeat is due.
func TestRedisClusterAFailoverIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 3, 1)
	room := roomsOf(servers, 0, 1)[0]
	n := openClusterNode(t, redis.Config{URL: servers.URL(), Timeout: 5 * time.Second, HeartbeatInterval: time.Minute}, room)
	chat := n.chat(room, "a")
	n.told[room].until("some", func(lines []string) bool { return len(lines) > 10 })
	servers.FailOver(3)
	promoted := time.Now()
	heard := len(n.told[room].heard())
	n.told[room].until("more", func(lines []string) bool { return len(lines) > heard+20 })
	if took := time.Since(promoted); took > failoverWithin {
		t.Errorf("it took %v from the promotion", took)
	}
	n.hears(room, "a", chat.end())
}
