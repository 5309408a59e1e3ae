package redis_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// A bus that sentinels lead to its server is the bus that any is. All share the servers, in a database each.
func TestRedisBySentinel(t *testing.T) {
	w := bustest.StartSentinels(t, 0)
	var databases atomic.Int64
	bustest.Run(t, func(t testing.TB, keep bus.Retention) bustest.Backend {
		db := databases.Add(1)
		return bustest.Backend{
			Open: func(o bus.Observer) (bus.Bus, error) {
				return redis.Open(t.Context(), redis.Config{URL: fmt.Sprint(w.URL(), "?db=", db), Retention: keep, Observer: o})
			},
			ClockBack: func(room string) {
				redis.ClockBack(t, strings.TrimSuffix(w.Servers[0].URL(), "0")+fmt.Sprint(db), room)
			},
		}
	})
}

// What sentinels say during a failover is never taken for a way back: of one epoch there is one primary.
func TestRedisSentinelsNameOnePrimaryForEachEpoch(t *testing.T) {
	w := bustest.StartSentinels(t, 2)
	see := redis.Sightings(t, redis.Config{URL: w.URL()})
	of := make(map[int64]string)
	look := func() (newest int64) {
		addrs, epochs := see()
		for i, epoch := range epochs {
			if had, ok := of[epoch]; ok && had != addrs[i] {
				t.Fatalf("of epoch %d, %s and %s were named", epoch, had, addrs[i])
			}
			of[epoch] = addrs[i]
			newest = max(newest, epoch)
		}
		return newest
	}
	before := look()
	failing := make(chan struct{})
	go func() {
		defer close(failing)
		w.Failover()
	}()
	for deadline := time.Now().Add(30 * time.Second); ; {
		select {
		case <-failing:
			for end := time.Now().Add(time.Second); time.Now().Before(end); { // the one that leads is last to be done
				look()
			}
			if look() == before {
				t.Error("there was no failover")
			}
			return
		default:
		}
		if look(); time.Now().After(deadline) {
			t.Fatal("the failover does not end")
		}
	}
}

// failoverWithin is how long after a promotion nodes may take to be ready again, and to have said everything again.
const failoverWithin = 10 * time.Second

// A watchedNode is a node in a room of what sentinels watch over.
type watchedNode struct {
	*redis.Bus
	t    *testing.T
	told *listener
}

func openWatched(t *testing.T, w *bustest.Watched) *watchedNode {
	t.Helper()
	return openNode(t, redis.Config{URL: w.URL()})
}

func openNode(t *testing.T, cfg redis.Config) *watchedNode {
	t.Helper()
	n := &watchedNode{Bus: openRedis(t, cfg), t: t}
	_, n.told = subscribe(t, n.Bus, "lobby")
	return n
}

// openPair opens two nodes on a new primary with so many replicas, and sentinels, and has them talk.
func openPair(t *testing.T, replicas int) (w *bustest.Watched, a, b *watchedNode) {
	t.Helper()
	w = bustest.StartSentinels(t, replicas)
	a, b = openWatched(t, w), openWatched(t, w)
	a.says("before")
	b.hears("before")
	return w, a, b
}

// says has a message acknowledged, however often it must be repeated.
func (n *watchedNode) says(body string) {
	n.t.Helper()
	eventually(n.t, "an acknowledgement of "+body, func() bool {
		_, err := tryAppend(n.t, n.Bus, "lobby", body, body)
		return err == nil
	})
}

func (n *watchedNode) hears(body string) {
	n.t.Helper()
	n.told.until(body, func(lines []string) bool { return slices.Contains(lines, body) })
}

// goesOn shows that nodes are ready, and hear each other, within the time after a promotion.
func goesOn(t *testing.T, promoted time.Time, nodes ...*watchedNode) {
	t.Helper()
	for i, n := range nodes {
		eventually(t, "the node to be ready", func() bool { return n.Ready() == nil })
		attempt := 0
		eventually(t, "all to hear each other", func() bool { // the old primary may have taken a message, and told so, at first
			attempt++
			body := fmt.Sprint("after ", i, " ", attempt)
			if _, err := tryAppend(t, n.Bus, "lobby", body, body); err != nil {
				return false
			}
			for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
				if !slices.ContainsFunc(nodes, func(n *watchedNode) bool { return !slices.Contains(n.told.heard(), body) }) {
					return true
				}
			}
			return false
		})
	}
	if took := time.Since(promoted); took > failoverWithin {
		t.Errorf("it took %v from the promotion", took)
	}
}

func TestRedisSentinelsFailOverByCommand(t *testing.T) {
	t.Parallel()
	w, a, b := openPair(t, 1)
	now := w.Failover()
	promoted := time.Now()
	attempt := 0
	eventually(t, "the nodes to leave the old primary", func() bool { // which takes messages until it is told what it is
		attempt++
		body := fmt.Sprint("then ", attempt)
		_, _ = tryAppend(t, a.Bus, "lobby", body, body)
		return strings.Contains(logOf(t, now), body)
	})
	goesOn(t, promoted, a, b)
}

// One sentinel that is named is enough: the others are found, and asked when it is gone.
func TestRedisSentinelsThatAreNotNamedAreFound(t *testing.T) {
	t.Parallel()
	w := bustest.StartSentinels(t, 1)
	named := w.Sentinels[2]
	a := openNode(t, redis.Config{URL: "redis+sentinel://" + named.Addr() + "/rooms"})
	b := openNode(t, redis.Config{URL: "redis+sentinel://" + named.Addr() + "/rooms"})
	a.says("before")
	b.hears("before")
	named.Kill()
	w.Failover()
	promoted := time.Now()
	w.Servers[0].Kill() // who is still there leaves it
	goesOn(t, promoted, a, b)
}

// A sentinel that comes back at another address is the same, and is asked there.
func TestRedisSentinelsThatMoveAreFoundAgain(t *testing.T) {
	t.Parallel()
	w := bustest.StartSentinels(t, 1)
	named := w.Sentinels[2]
	a := openNode(t, redis.Config{URL: "redis+sentinel://" + named.Addr() + "/rooms"})
	a.says("before")
	asked := func(what string, want ...*bustest.RedisServer) {
		t.Helper()
		eventually(t, what, func() bool {
			addrs := a.Sentinels()
			return len(addrs) == 3 && !slices.ContainsFunc(want, func(s *bustest.RedisServer) bool { return !slices.Contains(addrs, s.Addr()) })
		})
	}
	asked("all to be asked", w.Sentinels...)
	for i := range 2 {
		w.MoveSentinel(i)
	}
	asked("those that moved to be asked there", w.Sentinels...)
	named.Kill()
	w.Failover()
	promoted := time.Now()
	w.Servers[0].Kill() // who is still there leaves it
	goesOn(t, promoted, a)
}

func TestRedisSentinelsReplaceAKilledPrimary(t *testing.T) {
	t.Parallel()
	w, a, b := openPair(t, 2)
	w.Servers[0].Kill()
	w.Succeeds(w.Servers[0])
	goesOn(t, time.Now(), a, b)
}

// A primary that stands still is replaced; continued, it takes itself for one until sentinels tell it better.
func TestRedisSentinelsReplaceAPrimaryThatStandsStill(t *testing.T) {
	t.Parallel()
	w, a, b := openPair(t, 1)
	w.Servers[0].Pause()
	now := w.Succeeds(w.Servers[0])
	w.Servers[0].Resume()
	goesOn(t, time.Now(), a, b)
	eventually(t, "the old primary to be a replica", func() bool { return !w.Servers[0].IsPrimary() })
	a.says("the end")
	b.hears("the end")
	inLog(t, now, "the end")
}

// logOf is what a server has of the room.
func logOf(t *testing.T, s *bustest.RedisServer) string {
	return fmt.Sprint(s.Client().XRange(t.Context(), redis.KeysOf("lobby").Log, "-", "+").Val())
}

// inLog shows that a server has a message.
func inLog(t *testing.T, s *bustest.RedisServer, body string) {
	t.Helper()
	if log := logOf(t, s); !strings.Contains(log, body) {
		t.Errorf("%q is not in the log of the primary: %s", body, log)
	}
}

// The old primary, cut off from sentinels and replicas, still answers the nodes. They move, and tell what it alone had.
func TestRedisNodesLeaveAPrimaryThatSentinelsHaveReplaced(t *testing.T) {
	t.Parallel()
	w, a, b := openPair(t, 1)
	eventually(t, "the replica to have it", func() bool {
		return w.Servers[1].Client().XLen(t.Context(), redis.KeysOf("lobby").Log).Val() > 0
	})
	w.Split()
	a.says("alone")
	b.hears("alone")
	now := w.Succeeds(w.Servers[0])
	promoted := time.Now()
	for _, n := range []*watchedNode{a, b} {
		eventually(t, "the loss to be told", func() bool { return n.told.broken() > 0 })
	}
	goesOn(t, promoted, a, b)
	if !w.Servers[0].IsPrimary() {
		t.Error("the old primary was no primary any more, which shows nothing")
	}
	a.says("the end")
	inLog(t, now, "the end")
}

// That there is another primary is heard from sentinels at once: a node that asks once a minute, and whose old primary answers.
func TestRedisSentinelsAreHeard(t *testing.T) {
	t.Parallel()
	w := bustest.StartSentinels(t, 1)
	a := openNode(t, redis.Config{URL: w.URL(), HeartbeatInterval: time.Minute})
	a.says("before")
	w.Split()
	now := w.Succeeds(w.Servers[0])
	promoted, attempt := time.Now(), 0
	eventually(t, "the node to leave the old primary", func() bool {
		attempt++
		body := fmt.Sprint("then ", attempt)
		_, _ = tryAppend(t, a.Bus, "lobby", body, body)
		return strings.Contains(logOf(t, now), body)
	})
	goesOn(t, promoted, a)
}

// Of two sentinels the one counts that knows of the later failover, whichever answers first. What it said counts when it is gone too.
func TestRedisGoesByTheLatestFailover(t *testing.T) {
	t.Parallel()
	var servers, sentinels [2]*bustest.RedisServer
	for i := range servers {
		servers[i] = bustest.StartRedisTCP(t)
		sentinels[i] = bustest.StartSentinelTCP(t, watching(servers[i], 1+i)...)
	}
	var a *watchedNode
	for i := range 6 {
		url := fmt.Sprintf("redis+sentinel://%s,%s/rooms", sentinels[i%2].Addr(), sentinels[1-i%2].Addr())
		a = openNode(t, redis.Config{URL: url, HeartbeatInterval: 20 * time.Millisecond, LeaseTTL: 10 * time.Second})
		a.says(fmt.Sprint("first ", i))
		inLog(t, servers[1], fmt.Sprint("first ", i))
	}
	sentinels[1].Kill()
	for i := range 10 { // it asks in between
		a.says(fmt.Sprint("then ", i))
		inLog(t, servers[1], fmt.Sprint("then ", i))
		time.Sleep(20 * time.Millisecond)
	}
}

// A node that is told of one sentinel goes by more than half of all that this one knows, and not by that one if it is quicker: it may be
// cut off with an old primary.
func TestRedisGoesByMoreThanHalfOfAllSentinels(t *testing.T) {
	t.Parallel()
	old, now := bustest.StartRedisTCP(t), bustest.StartRedisTCP(t)
	known := watching(old, 1)
	for i := 1; i <= 2; i++ { // neither is where the one that is cut off knows it, and the second is nowhere
		known = append(known, fmt.Sprint("sentinel known-sentinel rooms 127.0.0.1 ", i, " ", sentinelID(i)))
	}
	other := bustest.StartSentinelTCP(t, append([]string{"sentinel myid " + sentinelID(1)}, watching(now, 2)...)...)
	cfg := redis.Config{
		URL:               "redis+sentinel://" + bustest.StartSentinelTCP(t, known...).Addr() + "/rooms",
		HeartbeatInterval: 20 * time.Millisecond, LeaseTTL: 10 * time.Second,
	}
	cfg.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr != "127.0.0.1:1" {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, other.Addr())
		return farConn{c}, err
	})
	a := openNode(t, cfg)
	eventually(t, "the node to be at the primary that two of three name", func() bool {
		_, err := tryAppend(t, a.Bus, "lobby", "m", "m")
		return err == nil && now.Client().XLen(t.Context(), redis.KeysOf("lobby").Log).Val() > 0
	})
}

// A sentinel that is named otherwise than the others call it is one all the same: cut off, it is not more than half by itself.
func TestRedisASentinelOfTwoAddressesCountsOnce(t *testing.T) {
	t.Parallel()
	old, now, next := bustest.StartRedisTCP(t), bustest.StartRedisTCP(t), bustest.StartRedisTCP(t)
	sees := func(server *bustest.RedisServer, epoch, me int) *bustest.RedisServer {
		config := append([]string{"sentinel myid " + sentinelID(me)}, watching(server, epoch)...)
		for i := 1; i <= 3; i++ { // they don't reach each other, and the last one is nowhere
			if i != me {
				config = append(config, fmt.Sprint("sentinel known-sentinel rooms 127.0.0.1 ", i, " ", sentinelID(i)))
			}
		}
		return bustest.StartSentinelTCP(t, config...)
	}
	cutOff := sees(old, 1, 1)
	var other atomic.Pointer[bustest.RedisServer]
	other.Store(sees(now, 2, 2))
	cfg := redis.Config{
		URL: "redis+sentinel://" + cutOff.Addr() + "/rooms", HeartbeatInterval: 20 * time.Millisecond, LeaseTTL: 10 * time.Second,
	}
	cfg.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		switch addr {
		case "127.0.0.1:1":
			addr = cutOff.Addr()
		case "127.0.0.1:2":
			c, err := (&net.Dialer{}).DialContext(ctx, network, other.Load().Addr())
			return farConn{c}, err
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	})
	a := openNode(t, cfg)
	goesTo := func(s *bustest.RedisServer) {
		t.Helper()
		eventually(t, "the node to be at the primary that two of three name", func() bool {
			_, err := tryAppend(t, a.Bus, "lobby", "m", "m")
			return err == nil && s.Client().XLen(t.Context(), redis.KeysOf("lobby").Log).Val() > 0
		})
	}
	goesTo(now)
	if asked := a.Sentinels(); slices.Contains(asked, "127.0.0.1:1") {
		t.Fatalf("one is asked twice, of %v", asked)
	}
	other.Swap(sees(next, 3, 2)).Kill()
	goesTo(next)
}

// A sentinel of which others tell different addresses is asked at one after the other, and nothing is left of those before.
func TestRedisASentinelThatIsHeardOfElsewhereIsLetGo(t *testing.T) {
	t.Parallel()
	server := bustest.StartRedisTCP(t)
	known := watching(bustest.StartRedisTCP(t), 1) // which does not get to know the others' addresses
	for i := 1; i <= 2; i++ {
		known = append(known, fmt.Sprint("sentinel known-sentinel rooms 127.0.0.1 ", i, " ", sentinelID(i)))
	}
	at := make(map[string]string)
	for i := 1; i <= 2; i++ {
		s := bustest.StartSentinelTCP(t, append([]string{"sentinel myid " + sentinelID(i)}, watching(server, 2)...)...)
		at[fmt.Sprint("127.0.0.1:", i)] = s.Addr()
	}
	cfg := redis.Config{
		URL:               "redis+sentinel://" + bustest.StartSentinelTCP(t, known...).Addr() + "/rooms",
		HeartbeatInterval: 20 * time.Millisecond, LeaseTTL: 10 * time.Second,
	}
	cfg.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, cmp.Or(at[addr], addr))
	})
	a := openNode(t, cfg)
	changes, before := 0, ""
	eventually(t, "addresses to change again and again", func() bool {
		if now := fmt.Sprint(a.Sentinels()); now != before {
			before = now
			changes++
		}
		return changes > 20
	}) // what listened to those before would be a leak
}

// A sentinel that refuses to say where the primary is says nothing, whatever else it says.
func TestRedisASentinelThatRefusesTheAddressIsPassedOver(t *testing.T) {
	t.Parallel()
	server := bustest.StartRedisTCP(t)
	refuses := bustest.StartSentinelTCP(t, append(watching(server, 1), "user default on nopass ~* &* +@all -sentinel|get-master-addr-by-name")...)
	if _, err := redis.Open(t.Context(), redis.Config{URL: "redis+sentinel://" + refuses.Addr() + "/rooms"}); err == nil {
		t.Error("opened by one that refuses")
	}
	eventually(t, "nothing to be left of that", func() bool {
		return strings.Count(refuses.Client().ClientList(t.Context()).Val(), "\n") == 1 // who asks
	})
	says := bustest.StartSentinelTCP(t, watching(server, 1)...)
	a := openNode(t, redis.Config{URL: "redis+sentinel://" + refuses.Addr() + "," + says.Addr() + "/rooms"})
	a.says("hello")
	a.hears("hello")
}

// watching is with what a sentinel begins that watches over a server since that epoch.
func watching(server *bustest.RedisServer, epoch int) []string {
	return []string{
		"sentinel monitor rooms " + strings.Replace(server.Addr(), ":", " ", 1) + " 1",
		fmt.Sprint("sentinel config-epoch rooms ", epoch),
	}
}

func sentinelID(n int) string { return strings.Repeat(fmt.Sprint(n), 40) }

// A farConn is slower than others.
type farConn struct{ net.Conn }

func (c farConn) Read(b []byte) (int, error) {
	time.Sleep(200 * time.Millisecond)
	return c.Conn.Read(b)
}

// Sentinels that are set up anew count failovers from the beginning. They are believed once none of them knows of a later one, unless they are
// too few: one that has forgotten what it knew, and is alone, may name any server.
func TestRedisSentinelsThatAreSetUpAnewAreFollowed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		alone  bool
		named  int
		follow []bool // once so many are set up anew
	}{
		"all of them":    {false, 3, []bool{false, false, true}},
		"one, and alone": {true, 3, []bool{false}},
		"one, and alone, which has told of the others": {true, 1, []bool{false}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, now := bustest.StartRedisTCP(t), bustest.StartRedisTCP(t)
			var all []*bustest.RedisServer
			var addrs []string
			for i := range 3 { // each knows those before it, so that the last one tells of all
				config := append([]string{"sentinel myid " + sentinelID(i)}, watching(old, 5)...)
				for j, s := range all {
					host, port, _ := net.SplitHostPort(s.Addr())
					config = append(config, fmt.Sprintf("sentinel known-sentinel rooms %s %s %s", host, port, sentinelID(j)))
				}
				s := bustest.StartSentinelTCP(t, config...)
				all, addrs = append(all, s), append(addrs, s.Addr())
			}
			slices.Reverse(all)
			slices.Reverse(addrs)
			ask := redis.AskSentinels(t, redis.Config{URL: "redis+sentinel://" + strings.Join(addrs[:tt.named], ",") + "/rooms"})
			leadsTo := func(want *bustest.RedisServer) {
				t.Helper()
				if addr, err := ask(t.Context()); err != nil || addr != want.Addr() {
					t.Errorf("they lead to %s, %v, want %s", addr, err, want.Addr())
				}
			}
			for range 10 { // each answers first at times
				leadsTo(old)
			}
			if tt.alone {
				all[1].Kill()
				all[2].Kill()
			}
			for i, follow := range tt.follow {
				host, port, _ := net.SplitHostPort(now.Addr())
				for _, args := range [][]any{{"sentinel", "remove", "rooms"}, {"sentinel", "monitor", "rooms", host, port, 1}} {
					if err := all[i].Client().Do(t.Context(), args...).Err(); err != nil {
						t.Fatal(err)
					}
				}
				want := old
				if follow {
					want = now
				}
				for range 10 {
					leadsTo(want)
				}
			}
		})
	}
}

// What sentinels told before they were set up anew counts no more: those who have not heard of a failover yet have forgotten nothing.
func TestRedisSentinelsThatWereSetUpAnewMayLag(t *testing.T) {
	t.Parallel()
	old, now, next := bustest.StartRedisTCP(t), bustest.StartRedisTCP(t), bustest.StartRedisTCP(t)
	var mu sync.Mutex
	at := make(map[string]*bustest.RedisServer) // guarded by mu
	name := func(i int) string { return fmt.Sprintf("sentinel%d.example:26379", i) }
	setUp := func(i int, primary *bustest.RedisServer, epoch int) {
		s := bustest.StartSentinelTCP(t, append([]string{"sentinel myid " + sentinelID(i)}, watching(primary, epoch)...)...)
		mu.Lock()
		before := at[name(i)]
		at[name(i)] = s
		mu.Unlock()
		if before != nil {
			before.Kill()
		}
	}
	cfg := redis.Config{URL: "redis+sentinel://" + strings.Join([]string{name(0), name(1), name(2)}, ",") + "/rooms"}
	cfg.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		mu.Lock()
		if s := at[addr]; s != nil {
			addr = s.Addr()
		}
		mu.Unlock()
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	})
	ask := redis.AskSentinels(t, cfg)
	leadTo := func(want *bustest.RedisServer) {
		t.Helper()
		eventually(t, "them to lead to "+want.Addr(), func() bool {
			addr, err := ask(t.Context())
			return err == nil && addr == want.Addr()
		})
	}
	for i := range 3 {
		setUp(i, old, 5)
	}
	leadTo(old)
	for i := range 3 {
		setUp(i, now, 0)
	}
	leadTo(now)
	setUp(2, next, 1)
	leadTo(next)
	at[name(2)].Kill()
	for range 10 {
		if addr, err := ask(t.Context()); err != nil || addr != next.Addr() {
			t.Fatalf("they lead to %s, %v, want %s", addr, err, next.Addr())
		}
	}
}

// A sentinel that is named is asked where it is named, whatever the others call its address: from here theirs may lead nowhere.
func TestRedisSentinelsAreAskedWhereTheyAreNamed(t *testing.T) {
	t.Parallel()
	w := bustest.StartSentinels(t, 1)
	named, theirs := make(map[string]string), make(map[string]bool)
	var addrs []string
	for i, s := range w.Sentinels {
		addr := fmt.Sprint("sentinel", i, ".example:26379")
		addrs = append(addrs, addr)
		named[addr], theirs[s.Addr()] = s.Addr(), true
	}
	cfg := redis.Config{
		URL:               "redis+sentinel://" + strings.Join(addrs, ",") + "/rooms",
		HeartbeatInterval: 200 * time.Millisecond, LeaseTTL: 10 * time.Second,
	}
	cfg.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if theirs[addr] {
			return nil, errors.New("no route to there")
		}
		return (&net.Dialer{}).DialContext(ctx, network, cmp.Or(named[addr], addr))
	})
	a := openNode(t, cfg)
	a.says("before")
	w.Failover()
	promoted := time.Now()
	w.Servers[0].Kill() // who is still there leaves it
	goesOn(t, promoted, a)
	asked := a.Sentinels()
	for _, addr := range addrs {
		if !slices.Contains(asked, addr) {
			t.Errorf("%s is not asked any more, but %v are", addr, asked)
		}
	}
}

// What the new primary lacks is told as lost, also where nobody was cut off.
func TestRedisSentinelsPromoteAReplicaThatLacksTheTail(t *testing.T) {
	t.Parallel()
	w, a, b := openPair(t, 1)
	old, replica := w.Servers[0], w.Servers[1]
	eventually(t, "the replica to have it", func() bool {
		return replica.Client().XLen(t.Context(), redis.KeysOf("lobby").Log).Val() > 0
	})
	w.CutReplicas()
	a.says("lost")
	b.hears("lost")
	old.Kill()
	w.Succeeds(old)
	promoted := time.Now()
	for _, n := range []*watchedNode{a, b} {
		eventually(t, "the loss to be told", func() bool { return n.told.broken() > 0 })
	}
	goesOn(t, promoted, a, b)
}

// Without sentinels nobody can say where the primary is: who knew it goes on.
func TestRedisGoesOnWithoutSentinels(t *testing.T) {
	t.Parallel()
	w := bustest.StartSentinels(t, 0)
	a := openWatched(t, w)
	for _, s := range w.Sentinels {
		s.Kill()
	}
	a.Reconnect()
	a.says("alone")
	a.hears("alone")
	if err := a.Ready(); err != nil {
		t.Error(err)
	}
}
