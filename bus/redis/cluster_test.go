package redis_test

import (
	"context"
	"fmt"
	"slices"
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

func (b prefixed) After(ctx context.Context, room string, since bus.ID, limit int) (bus.Page, error) {
	return b.Bus.After(ctx, b.prefix+room, since, limit)
}

func (b prefixed) Before(ctx context.Context, room string, before bus.ID, limit int) (bus.Page, error) {
	return b.Bus.Before(ctx, b.prefix+room, before, limit)
}

func (b prefixed) Roster(ctx context.Context, room string) (bus.Roster, error) {
	return b.Bus.Roster(ctx, b.prefix+room)
}

// A bus over a Redis Cluster is the bus that any is.
func TestRedisCluster(t *testing.T) {
	servers := bustest.StartRedisCluster(t, 3, 0)
	var backends atomic.Int64
	bustest.Run(t, func(t testing.TB, keep bus.Retention) bustest.Backend {
		prefix := fmt.Sprint(backends.Add(1), " ")
		return bustest.Backend{
			Open: func(o bus.Observer) (bus.Bus, error) {
				cfg := redis.Config{URL: servers.URL(), Retention: keep, Observer: o, Timeout: 5 * time.Second} // of a busy machine
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
	c, err := redis.OpenCluster(t.Context(), redis.Config{URL: servers.URL(), Timeout: 5 * time.Second})
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
