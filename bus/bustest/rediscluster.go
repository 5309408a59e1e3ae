package bustest

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// A RedisCluster is a Redis Cluster of one test, on ports of 127.0.0.1.
type RedisCluster struct {
	t       testing.TB
	Servers []*RedisServer // the primaries of the beginning, then the replicas of each in turn
	ids     []string       // of their nodes
}

const slots = 16384

// StartRedisCluster starts a Redis Cluster of so many primaries, each with so many replicas, and waits until it works. Each of config
// is a line of redis.conf.
func StartRedisCluster(t testing.TB, primaries, replicas int, config ...string) *RedisCluster {
	t.Helper()
	c := &RedisCluster{t: t}
	timeout := 2000
	if replicas == 0 {
		timeout = 30_000 // nobody is to take over, and a busy machine is no failure
	}
	config = append([]string{
		"cluster-enabled yes", fmt.Sprint("cluster-node-timeout ", timeout), "cluster-require-full-coverage no",
		"cluster-allow-replica-migration no", "repl-diskless-sync-delay 0",
	}, config...)
	for i := range primaries * (1 + replicas) {
		s := StartRedisTCP(t, config...)
		c.Servers = append(c.Servers, s)
		c.Do(i, "cluster", "set-config-epoch", i+1)
		c.ids = append(c.ids, c.Do(i, "cluster", "myid"))
		if i < primaries {
			c.Do(i, "cluster", "addslotsrange", i*slots/primaries, (i+1)*slots/primaries-1)
		}
		if i > 0 {
			host, port, _ := net.SplitHostPort(c.Servers[0].Addr())
			c.Do(i, "cluster", "meet", host, port, c.Servers[0].busPort)
		}
	}
	for i := primaries; i < len(c.Servers); i++ {
		until(t, "a replica to know its primary", func() bool {
			return strings.Contains(c.Do(i, "cluster", "nodes"), c.ids[i%primaries])
		})
		c.Do(i, "cluster", "replicate", c.ids[i%primaries])
	}
	for i := range c.Servers {
		until(t, "all to know of each other", func() bool {
			info := c.Do(i, "cluster", "info")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d", slots)) &&
				strings.Count(c.Do(i, "cluster", "nodes"), " connected") == len(c.Servers)
		})
		if i >= primaries {
			until(t, "a replica to have all", func() bool { return strings.Contains(c.Do(i, "info", "replication"), "master_link_status:up") })
		}
	}
	return c
}

// URL is what redis.OpenCluster takes.
func (c *RedisCluster) URL() string {
	var addrs []string
	for _, s := range c.Servers {
		addrs = append(addrs, s.Addr())
	}
	return "redis+cluster://" + strings.Join(addrs, ",")
}

// Do has one of the servers do something, and gives its answer as text.
func (c *RedisCluster) Do(server int, args ...any) string {
	c.t.Helper()
	said, err := c.Try(server, args...)
	if err != nil {
		c.t.Fatalf("%v at %d: %v", args, server, err)
	}
	return said
}

// Try is Do of what may be refused.
func (c *RedisCluster) Try(server int, args ...any) (string, error) {
	c.t.Helper()
	s := c.Servers[server]
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), MaxRetries: -1, DisableIdentity: true, Protocol: 2})
	defer client.Close()
	ctx, cancel := patient()
	defer cancel()
	said, err := client.Do(ctx, args...).Result()
	return fmt.Sprint(said), err
}

// Owner is the server that has a slot, as a server says.
func (c *RedisCluster) Owner(asked, slot int) int {
	c.t.Helper()
	for _, some := range c.slotsBy(asked) {
		if some.Start <= slot && slot <= some.End {
			return c.serverOf(some)
		}
	}
	return -1
}

// slotsBy is who has which slots, as a server says.
func (c *RedisCluster) slotsBy(asked int) []redis.ClusterSlot {
	c.t.Helper()
	s := c.Servers[asked]
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), MaxRetries: -1, DisableIdentity: true, Protocol: 2})
	defer client.Close()
	ctx, cancel := patient()
	defer cancel()
	slots := redis.NewClusterSlotsCmd(ctx, "cluster", "slots")
	_ = client.Process(ctx, slots)
	return slots.Val()
}

func (c *RedisCluster) serverOf(some redis.ClusterSlot) int {
	return slices.IndexFunc(c.Servers, func(s *RedisServer) bool { return len(some.Nodes) > 0 && s.Addr() == some.Nodes[0].Addr })
}

// Begin begins to move a slot.
func (c *RedisCluster) Begin(slot, from, to int) {
	c.t.Helper()
	c.Do(to, "cluster", "setslot", slot, "importing", c.ids[from])
	c.Do(from, "cluster", "setslot", slot, "migrating", c.ids[to])
}

// MoveKeys moves the keys of a slot one by one, or so many of them. It gives how many there were.
func (c *RedisCluster) MoveKeys(slot, from, to, most int) (moved int) {
	c.t.Helper()
	host, port, _ := net.SplitHostPort(c.Servers[to].Addr())
	client := c.Servers[from].Client()
	ctx, cancel := patient()
	defer cancel()
	for moved < most {
		keys, err := client.ClusterGetKeysInSlot(ctx, slot, 1).Result()
		if err != nil {
			c.t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		c.Do(from, "migrate", host, port, keys[0], 0, 5000)
		moved++
	}
	return moved
}

// End ends the move of a slot, whose keys have moved.
func (c *RedisCluster) End(slot, from, to int) {
	c.t.Helper()
	c.Do(to, "cluster", "setslot", slot, "node", c.ids[to])
	c.Do(from, "cluster", "setslot", slot, "node", c.ids[to])
	for i := range c.Servers { // the others would hear of it by and by
		if i != from && i != to {
			_, _ = c.Try(i, "cluster", "setslot", slot, "node", c.ids[to])
		}
	}
}

// Move moves a slot key by key.
func (c *RedisCluster) Move(slot, from, to int) (keys int) {
	c.t.Helper()
	c.Begin(slot, from, to)
	keys = c.MoveKeys(slot, from, to, 1<<30)
	c.End(slot, from, to)
	return keys
}

// GiveAll gives a server all slots of another, without what keys they have.
func (c *RedisCluster) GiveAll(from, to int) {
	c.t.Helper()
	for _, some := range c.slotsBy(from) {
		if c.serverOf(some) != from {
			continue
		}
		for i := range c.Servers {
			c.Do(i, "cluster", "delslotsrange", some.Start, some.End)
		}
		c.Do(to, "cluster", "addslotsrange", some.Start, some.End)
	}
	c.Do(to, "cluster", "bumpepoch")
	for i := range c.Servers {
		until(c.t, "all to know", func() bool {
			return strings.Contains(c.Do(i, "cluster", "info"), fmt.Sprintf("cluster_slots_assigned:%d", slots))
		})
	}
}

// FailOver has a replica take over by command, and waits until all know.
func (c *RedisCluster) FailOver(replica int) {
	c.t.Helper()
	until(c.t, "a replica to take over", func() bool {
		if strings.Contains(c.Do(replica, "role"), "master") {
			return true
		}
		_, _ = c.Try(replica, "cluster", "failover")
		return false
	})
}
