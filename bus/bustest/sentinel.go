package bustest

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Watched are redis-servers of one test, a primary and replicas, and three sentinels that watch over them. All listen on ports of
// 127.0.0.1.
type Watched struct {
	t         testing.TB
	Servers   []*RedisServer // the first one is the primary at the beginning
	Sentinels []*RedisServer
}

// watchedName is what sentinels call the primary.
const watchedName = "rooms"

// StartSentinels starts a primary, as many replicas, and three sentinels, and waits until they know of each other. Each of config
// is a line of redis.conf.
func StartSentinels(t testing.TB, replicas int, config ...string) *Watched {
	t.Helper()
	config = append([]string{
		"repl-diskless-sync-delay 0", "repl-ping-replica-period 1", "databases 200",
		"user watcher on >watcher ~* &* +@all", "masteruser watcher", "masterauth watcher",
	}, config...)
	w := &Watched{t: t, Servers: []*RedisServer{StartRedisTCP(t, config...)}}
	host, port, _ := net.SplitHostPort(w.Servers[0].Addr())
	for range replicas {
		w.Servers = append(w.Servers, StartRedisTCP(t, append(config, "replicaof "+host+" "+port)...))
	}
	for range 3 {
		w.Sentinels = append(w.Sentinels, StartSentinelTCP(t, watching(host, port)...))
	}
	for _, s := range w.Sentinels {
		c := w.sentinel(s)
		until(t, "sentinels to know of each other", func() bool {
			ctx, cancel := patient()
			defer cancel()
			m := c.Master(ctx, watchedName).Val()
			if m["num-other-sentinels"] != "2" {
				return false
			}
			up := 0
			for _, r := range c.Replicas(ctx, watchedName).Val() {
				if r["master-link-status"] == "ok" {
					up++
				}
			}
			return up == replicas
		})
	}
	return w
}

// watching is what a sentinel is configured with that watches over a primary.
func watching(host, port string) []string {
	return []string{
		"sentinel monitor " + watchedName + " " + host + " " + port + " 2",
		"sentinel auth-user " + watchedName + " watcher",
		"sentinel auth-pass " + watchedName + " watcher",
		"sentinel down-after-milliseconds " + watchedName + " 2000",
		"sentinel failover-timeout " + watchedName + " 6000",
	}
}

// MoveSentinel ends a sentinel and starts it at another address, with the id that it had.
func (w *Watched) MoveSentinel(i int) {
	w.t.Helper()
	client := w.Sentinels[i].Client()
	ctx, cancel := patient()
	defer cancel()
	id, err := client.Do(ctx, "sentinel", "myid").Text()
	if err != nil {
		w.t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(w.Primary().Addr())
	w.Sentinels[i].Kill()
	w.Sentinels[i] = StartSentinelTCP(w.t, append([]string{"sentinel myid " + id}, watching(host, port)...)...)
}

// StartSentinel starts a sentinel, on a unix socket. Each of config is a line of its configuration.
func StartSentinel(t testing.TB, config ...string) *RedisServer {
	t.Helper()
	return startUnix(t, []string{"--sentinel"}, config)
}

// StartSentinelTCP is StartSentinel on a free port of 127.0.0.1.
func StartSentinelTCP(t testing.TB, config ...string) *RedisServer {
	t.Helper()
	return startTCP(t, []string{"--sentinel"}, config)
}

// URL is what redis.Open takes.
func (w *Watched) URL() string {
	var addrs []string
	for _, s := range w.Sentinels {
		addrs = append(addrs, s.Addr())
	}
	return "redis+sentinel://" + strings.Join(addrs, ",") + "/" + watchedName
}

func (w *Watched) sentinel(s *RedisServer) *redis.SentinelClient {
	c := redis.NewSentinelClient(&redis.Options{Addr: s.Addr(), DialTimeout: time.Second, ReadTimeout: 5 * time.Second, DisableIdentity: true})
	w.t.Cleanup(func() { c.Close() })
	return c
}

// Primary is the server that a sentinel takes for the primary.
func (w *Watched) Primary() *RedisServer {
	w.t.Helper()
	return w.primaryBy(w.sentinel(w.Sentinels[0]))
}

func (w *Watched) primaryBy(c *redis.SentinelClient) *RedisServer {
	ctx, cancel := patient()
	defer cancel()
	at := c.GetMasterAddrByName(ctx, watchedName).Val()
	for _, s := range w.Servers {
		if len(at) == 2 && s.Addr() == net.JoinHostPort(at[0], at[1]) {
			return s
		}
	}
	return nil
}

// Failover has sentinels make another server the primary, and gives it.
func (w *Watched) Failover() *RedisServer {
	w.t.Helper()
	c := w.sentinel(w.Sentinels[0])
	before := w.primaryBy(c)
	until(w.t, "sentinels to begin a failover", func() bool {
		ctx, cancel := patient()
		defer cancel()
		return c.Failover(ctx, watchedName).Err() == nil // refused while another is under way
	})
	return w.Succeeds(before)
}

// Succeeds waits until the sentinels that live take another server for the primary, which is one, and gives it.
func (w *Watched) Succeeds(before *RedisServer) (now *RedisServer) {
	w.t.Helper()
	var asked []*redis.SentinelClient
	for _, s := range w.Sentinels {
		asked = append(asked, w.sentinel(s))
	}
	until(w.t, "another primary", func() bool {
		for _, c := range asked {
			if now = w.primaryBy(c); now != nil && now != before {
				return now.IsPrimary()
			}
		}
		return false
	})
	return now
}

// CutReplicas has nothing more reach the first server's replicas.
func (w *Watched) CutReplicas() {
	w.t.Helper()
	w.do(w.Servers[0], "acl", "setuser", "watcher", "off")
	w.do(w.Servers[0], "client", "kill", "type", "replica")
}

// Split cuts the first server off from replicas and sentinels. Who connects otherwise still finds it, a primary.
func (w *Watched) Split() {
	w.t.Helper()
	w.CutReplicas()
	w.do(w.Servers[0], "acl", "setuser", "default", "-ping", "-replicaof", "-slaveof") // the sentinels are that user, without a password
	w.do(w.Servers[0], "client", "kill", "user", "watcher")
}

func (w *Watched) do(s *RedisServer, args ...any) {
	w.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	if err := s.Client().Do(ctx, args...).Err(); err != nil {
		w.t.Fatalf("%v: %v", args, err)
	}
}

// IsPrimary reports whether the server answers, and is no replica.
func (s *RedisServer) IsPrimary() bool {
	c := redis.NewClient(&redis.Options{Network: s.network, Addr: s.addr, DialTimeout: time.Second, ReadTimeout: 5 * time.Second, MaxRetries: -1})
	defer c.Close()
	ctx, cancel := patient()
	defer cancel()
	return strings.Contains(c.Info(ctx, "replication").Val(), "role:master")
}
