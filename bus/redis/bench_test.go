package redis_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// BenchmarkRedisAppend measures what a publish costs Redis: the script by Redis's own account (script-µs/op) and the CPU time of
// the process (redis-µs/op), alone and in pipelines.
func BenchmarkRedisAppend(b *testing.B) {
	for _, depth := range []int{1, 16, 64} {
		b.Run(fmt.Sprint("pipeline=", depth), func(b *testing.B) {
			r := openRedis(b, redis.Config{})
			body := strings.Repeat("x", 128)
			script, cpu := redisUse(b, r)
			b.ResetTimer()
			for n := 0; n < b.N; n += depth {
				if err := r.Append("lobby", body, min(depth, b.N-n)); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			scriptAfter, cpuAfter := redisUse(b, r)
			b.ReportMetric((scriptAfter-script)/float64(b.N), "script-µs/op")
			b.ReportMetric((cpuAfter-cpu)*1e6/float64(b.N), "redis-µs/op")
		})
	}
}

// openRedis opens a handle on a server of its own, unless cfg names one. It is closed with the test.
func openRedis(t testing.TB, cfg redis.Config) *redis.Bus {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = bustest.StartRedis(t).URL()
	}
	r, err := redis.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = checked{r, t}.Close() })
	return r
}

// openAt is openRedis with a server that is there.
func openAt(t testing.TB, url string, cfg redis.Config) *redis.Bus {
	t.Helper()
	cfg.URL = url
	return openRedis(t, cfg)
}

// checked is a handle that says, once it is closed, what it counts still.
type checked struct {
	handle
	t testing.TB
}

type handle interface {
	bus.Bus
	Leftover() error
}

func (c checked) Close() error {
	err := c.handle.Close()
	if left := c.Leftover(); left != nil {
		c.t.Errorf("a handle that was closed: %v", left)
	}
	return err
}

// redisUse is the time that Redis spent in scripts, in µs, and its CPU time, in s.
func redisUse(t testing.TB, r *redis.Bus) (script, cpu float64) {
	t.Helper()
	script = infoValue(t, r, "commandstats", "cmdstat_evalsha", "usec")
	return script, infoValue(t, r, "cpu", "used_cpu_sys", "") + infoValue(t, r, "cpu", "used_cpu_user", "")
}

// infoValue is a number of a section of INFO: a line's, or that of a field in it. It is 0 where there is none.
func infoValue(t testing.TB, r *redis.Bus, section, name, field string) float64 {
	t.Helper()
	info, err := r.Client().Info(context.Background(), section).Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), name+":")
		if !ok {
			continue
		}
		if field != "" {
			_, value, _ = strings.Cut(","+value, ","+field+"=")
			value, _, _ = strings.Cut(value, ",")
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s in %s: %v", name, section, err)
		}
		return v
	}
	return 0
}

// BenchmarkRedisPublish publishes through all nodes into 500 rooms that all are subscribed to, as fast as Redis takes it. It
// ends when everything has arrived everywhere.
func BenchmarkRedisPublish(b *testing.B) {
	for _, nodes := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) { benchmarkPublish(b, nodes) })
	}
}

func benchmarkPublish(b *testing.B, count int) {
	const rooms, waiting = 500, 2000
	server := bustest.StartRedis(b)
	nodes := make([]*redis.Bus, count)
	for i := range nodes {
		nodes[i] = openRedis(b, redis.Config{URL: server.URL()})
	}
	var arrived sync.WaitGroup
	names := make([]string, rooms)
	for i := range names {
		names[i] = fmt.Sprint("room", i)
		for _, n := range nodes {
			sub, err := n.Subscribe(context.Background(), names[i], countingSink{&arrived})
			if err != nil {
				b.Fatal(err)
			}
			defer sub.Close()
		}
	}
	body := []byte(strings.Repeat("x", 128))
	slots := make(chan struct{}, waiting)
	arrived.Add(count * b.N)
	b.ReportAllocs()
	b.ResetTimer()
	_, cpu := redisUse(b, nodes[0])
	for n := range b.N {
		slots <- struct{}{}
		var key bus.Key
		binary.BigEndian.PutUint64(key[:], uint64(n)+1)
		nodes[n%count].Publish(names[n/count%rooms], bus.Draft{Body: body, Key: key}, func(_ bus.ID, err error) {
			if err != nil {
				b.Error(err)
				arrived.Add(-count)
			}
			<-slots
		})
	}
	arrived.Wait()
	b.StopTimer()
	_, cpuAfter := redisUse(b, nodes[0])
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "publishes/s")
	b.ReportMetric((cpuAfter-cpu)*1e6/float64(b.N), "redis-µs/op")
}

type countingSink struct{ arrived *sync.WaitGroup }

func (s countingSink) Deliver(bus.Message) { s.arrived.Done() }
func (s countingSink) Signal([]byte)       {}
func (s countingSink) Presence(bus.Change) {}

// BenchmarkRedisClusterPublish is BenchmarkRedisPublish, of two nodes, on Redis Clusters: busiest-µs/op is the CPU time for each
// message of the primary that has most to do.
func BenchmarkRedisClusterPublish(b *testing.B) {
	for _, primaries := range []int{1, 3} {
		b.Run(fmt.Sprint("primaries=", primaries), func(b *testing.B) {
			const rooms, waiting = 500, 2000
			servers := bustest.StartRedisCluster(b, primaries, 0)
			var arrived sync.WaitGroup
			nodes := make([]*redis.Cluster, 2)
			for i := range nodes {
				c, err := redis.OpenCluster(b.Context(), redis.Config{URL: servers.URL()})
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				nodes[i] = c
				for room := range rooms {
					if _, err := c.Subscribe(context.Background(), fmt.Sprint("room", room), countingSink{&arrived}); err != nil {
						b.Fatal(err)
					}
				}
			}
			used := func() (cpu []float64) {
				for i := range servers.Servers {
					cpu = append(cpu, cpuOf(servers.Do(i, "info", "cpu")))
				}
				return cpu
			}
			body := []byte(strings.Repeat("x", 128))
			slots := make(chan struct{}, waiting)
			arrived.Add(len(nodes) * b.N)
			before := used()
			b.ResetTimer()
			for n := range b.N {
				slots <- struct{}{}
				nodes[n%2].Publish(fmt.Sprint("room", n/2%rooms), bus.Draft{Body: body}, func(_ bus.ID, err error) {
					if err != nil {
						b.Error(err)
						arrived.Add(-len(nodes))
					}
					<-slots
				})
			}
			arrived.Wait()
			b.StopTimer()
			busiest := 0.0
			for i, cpu := range used() {
				busiest = max(busiest, cpu-before[i])
			}
			b.ReportMetric(busiest*1e6/float64(b.N), "busiest-µs/op")
		})
	}
}

// subscribeAll subscribes to n rooms, whose names are prefix and a number, many at a time.
func subscribeAll(b *testing.B, r *redis.Bus, prefix string, n int, sink bus.Sink) []bus.Subscription {
	b.Helper()
	const workers = 64
	subs := make([]bus.Subscription, n)
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			for i := worker; i < n; i += workers {
				var err error
				if subs[i], err = r.Subscribe(b.Context(), fmt.Sprint(prefix, i), sink); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return subs
}

var lossRooms = flag.Int("lossrooms", 6000, "rooms of BenchmarkRedisSilentLoss")

// BenchmarkRedisSilentLoss measures how long it takes a node that is in many quiet rooms to notice that the last message of one of
// them did not arrive (worst-s: of all), while it publishes into another room 50 times a second (p99-ms).
func BenchmarkRedisSilentLoss(b *testing.B) {
	r := openRedis(b, redis.Config{})
	sink := make(arrivalSink, 1)
	subscribeAll(b, r, "quiet", *lossRooms, sink)
	ctx, stop := context.WithCancel(b.Context())
	var publishing sync.WaitGroup
	var took []time.Duration // owned by the publisher until it has ended
	publishing.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			done, began := make(chan error, 1), time.Now()
			r.Publish("busy", bus.Draft{Body: []byte("x")}, func(_ bus.ID, err error) { done <- err })
			if err := <-done; err != nil {
				b.Error(err)
			}
			took = append(took, time.Since(began))
		}
	})
	client := r.Client()
	worst := time.Duration(0)
	b.ResetTimer()
	for range b.N {
		k := redis.KeysOf(fmt.Sprint("quiet", rand.N(*lossRooms)))
		prev := client.Get(ctx, k.Last).Val()
		id, err := client.XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, Values: []any{"m", cmp.Or(prev, "0-0") + " lost"}}).Result()
		if err == nil {
			err = client.Set(ctx, k.Last, id, time.Hour).Err()
		}
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		<-sink
		worst = max(worst, time.Since(began))
	}
	b.StopTimer()
	stop()
	publishing.Wait()
	b.ReportMetric(worst.Seconds(), "worst-s")
	if len(took) > 0 {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	}
}

// An arrivalSink says when a message has come.
type arrivalSink chan struct{}

func (s arrivalSink) Deliver(bus.Message) { s <- struct{}{} }
func (s arrivalSink) Signal([]byte)       {}
func (s arrivalSink) Presence(bus.Change) {}

// BenchmarkRedisReplicas publishes into 500 rooms that two nodes subscribe to, with no replica, with one that follows, and with one
// that must have a message before it is acknowledged. redis-µs/op and replica-µs/op are the CPU time for each message of each, as
// fast as they take it; p50-µs and p99-µs are from a Publish to its acknowledgement while there is little to do.
func BenchmarkRedisReplicas(b *testing.B) {
	for _, c := range []struct {
		name               string
		follow, mustHaveIt int
	}{{"none", 0, 0}, {"follows", 1, 0}, {"awaited", 1, 1}} {
		b.Run(c.name, func(b *testing.B) {
			const rooms, waiting, quiet = 500, 2000, 300
			servers := []*bustest.RedisServer{bustest.StartRedisTCP(b, "repl-diskless-sync-delay 0")}
			host, port, _ := net.SplitHostPort(servers[0].Addr())
			for range c.follow {
				replica := bustest.StartRedisTCP(b, "replicaof "+host+" "+port)
				eventually(b, "the replica to follow", func() bool {
					return strings.Contains(replica.Client().Info(b.Context(), "replication").Val(), "master_link_status:up")
				})
				servers = append(servers, replica)
			}
			var nodes [2]*redis.Bus
			var arrived sync.WaitGroup
			for i := range nodes {
				nodes[i] = openRedis(b, redis.Config{URL: servers[0].URL(), Replicas: c.mustHaveIt})
				for room := range rooms {
					if _, err := nodes[i].Subscribe(b.Context(), fmt.Sprint("room", room), countingSink{&arrived}); err != nil {
						b.Fatal(err)
					}
				}
			}
			body := []byte(strings.Repeat("x", 128))
			publish := func(n int, done func()) {
				arrived.Add(len(nodes))
				nodes[n%2].Publish(fmt.Sprint("room", n/2%rooms), bus.Draft{Body: body}, func(_ bus.ID, err error) {
					if err != nil {
						b.Error(err)
						arrived.Add(-len(nodes))
					}
					done()
				})
			}
			var took []time.Duration
			for n := range quiet {
				acked, began := make(chan struct{}), time.Now()
				publish(n, func() { close(acked) })
				<-acked
				took = append(took, time.Since(began))
				time.Sleep(2 * time.Millisecond) // a message after a quiet moment
			}
			slices.Sort(took)

			slots := make(chan struct{}, waiting)
			used := func() (cpu [2]float64) {
				for i, s := range servers {
					cpu[i] = cpuOf(s.Client().Info(b.Context(), "cpu").Val())
				}
				return cpu
			}
			before := used()
			b.ResetTimer()
			for n := range b.N {
				slots <- struct{}{}
				publish(n, func() { <-slots })
			}
			arrived.Wait()
			b.StopTimer()
			after := used()
			b.ReportMetric((after[0]-before[0])*1e6/float64(b.N), "redis-µs/op")
			b.ReportMetric((after[1]-before[1])*1e6/float64(b.N), "replica-µs/op")
			b.ReportMetric(float64(took[quiet/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[quiet*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "publishes/s")
		})
	}
}

// cpuOf is the CPU time that a server says to have used, in s.
func cpuOf(info string) (sum float64) {
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			v, _ := strconv.ParseFloat(value, 64)
			sum += v
		}
	}
	return sum
}

var presenceMembers = flag.Int("presencemembers", 5_000, "members of BenchmarkRedisPresence")

// BenchmarkRedisPresence puts as many members into rooms of one, and into one room, through one node, while another node is in these
// rooms too. redis-B, own-B and other-B are what that takes for each member: of Redis, of the node that he came through, and of the
// other, which also holds what it has of the room; the empty rooms of the first are not counted. Then one after the other leaves and
// comes back. An op is one such change, until the other node was told; redis-µs/op is what it costs Redis.
func BenchmarkRedisPresence(b *testing.B) {
	for name, rooms := range map[string]int{"rooms of one": *presenceMembers, "one room": 1} {
		b.Run(name, func(b *testing.B) {
			hasAll := func(subs []bus.Subscription) func() bool {
				return func() bool {
					return !slices.ContainsFunc(subs, func(s bus.Subscription) bool { return s.Roster().Count < *presenceMembers/rooms })
				}
			}
			perMember := func(bytes float64, name string) {
				b.ReportMetric(bytes/float64(*presenceMembers), name)
			}

			url := bustest.StartRedis(b).URL()
			own := openRedis(b, redis.Config{URL: url})
			used := func() float64 { return infoValue(b, own, "memory", "used_memory", "") }
			server := used()
			subs := subscribeAll(b, own, "room", rooms, &nothing{})
			heap := heapInUse()
			for i := range *presenceMembers {
				subs[i%rooms].Enter(bus.Member{ID: fmt.Sprintf("user-%011d", i), Name: "One of Many"})
			}
			eventually(b, "all to be members", hasAll(subs))
			server, ownHeap := used()-server, heapInUse()-heap
			other := openRedis(b, redis.Config{URL: url})
			told := make(changeSink, 1)
			heap = heapInUse()
			eventually(b, "the other node to know all", hasAll(subscribeAll(b, other, "room", rooms, told)))
			otherHeap := heapInUse() - heap

			_, before := redisUse(b, own)
			b.ResetTimer()
			for n := range b.N {
				m := bus.Member{ID: fmt.Sprintf("user-%011d", n/2%*presenceMembers), Name: "One of Many"}
				if n%2 == 0 {
					subs[n/2%rooms].Leave(m.ID)
				} else {
					subs[n/2%rooms].Enter(m)
				}
				for change := range told {
					if change.Kind != bus.Synced && change.Member.ID == m.ID {
						break
					}
				}
			}
			b.StopTimer()
			_, after := redisUse(b, own)
			b.ReportMetric((after-before)*1e6/float64(b.N), "redis-µs/op")
			perMember(server, "redis-B")
			perMember(ownHeap, "own-B")
			perMember(otherHeap, "other-B")
		})
	}
}

// A changeSink tells who came and went.
type changeSink chan bus.Change

func (s changeSink) Deliver(bus.Message)   {}
func (s changeSink) Signal([]byte)         {}
func (s changeSink) Presence(c bus.Change) { s <- c }

// heapInUse is what the heap of this process holds, in bytes.
func heapInUse() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
