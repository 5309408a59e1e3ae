package redis_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// TestRedisCommands counts what Redis is asked to do, so that it can't creep up.
func TestRedisCommands(t *testing.T) {
	r := openRedis(t, redis.Config{HeartbeatInterval: time.Hour, CompareInterval: time.Hour, Links: 2})
	eventually(t, "the first heartbeats to be over", func() bool { // two for each of two connections, behind three that try rights
		return infoValue(t, r, "commandstats", "cmdstat_publish", "calls") == 7
	})
	appendTo(t, r, "lobby", "the first of its period", "k0")
	spent := commands(t, r, func() { appendTo(t, r, "lobby", "m", "k1") })
	want := map[string]int{
		"evalsha": 1, "time": 1, "get": 1, "hget": 2, "xadd": 1, "set": 1, "hset": 1, "hlen": 1, "publish": 1,
	}
	if delete(spent, "xtrim"); !maps.Equal(spent, want) { // one in 64
		t.Errorf("a publish: %v, want %v", spent, want)
	}

	var sub bus.Subscription
	var sink *listener
	spent = commands(t, r, func() { sub, sink = subscribe(t, r, "lobby") })
	want = map[string]int{"subscribe": 1, "evalsha": 1, "get": 2, "xrevrange": 1, "hgetall": 1}
	for _, more := range []string{"evalsha", "evalsha", "get", "time", "xrange", "xrange", "xrange"} { // of a room that the node published to
		want[more]++
	}
	for _, first := range []string{"hello", "select", "script|load"} { // log and roster are read at once: of another connection
		delete(spent, first)
	}
	again := maps.Clone(want) // where the log is read before it is known to be whole
	for _, more := range []string{"evalsha", "get", "get", "xrange"} {
		again[more]++
	}
	if !maps.Equal(spent, want) && !maps.Equal(spent, again) {
		t.Errorf("a subscription: %v, want %v", spent, want)
	}

	spent = commands(t, r, func() {
		if err := sub.Sync(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if want = map[string]int{"get": 1}; !maps.Equal(spent, want) {
		t.Errorf("a sync: %v, want %v", spent, want)
	}

	sub.Enter(bus.Member{ID: "ann"}) // the first: with the index
	sink.change(bus.Joined, "ann")
	spent = commands(t, r, func() { sub.Enter(bus.Member{ID: "bob"}); sink.change(bus.Joined, "bob") })
	want = map[string]int{
		"evalsha": 1, "hget": 2, "hexists": 1, "hset": 2, "hincrby": 1, "publish": 1, "pexpire": 2, "time": 1,
	}
	if !maps.Equal(spent, want) {
		t.Errorf("one who enters: %v, want %v", spent, want)
	}
	spent = commands(t, r, func() { sub.Leave("bob"); sink.change(bus.Left, "bob") })
	want = map[string]int{
		"evalsha": 1, "hget": 1, "hexists": 1, "hset": 1, "hdel": 1, "hincrby": 1, "publish": 1, "pexpire": 2, "time": 1,
	}
	if !maps.Equal(spent, want) {
		t.Errorf("one who leaves: %v, want %v", spent, want)
	}
}

// What waits is sent in batches of 256 messages or 512 KB, with one message more at most.
func TestRedisBatchesAreBounded(t *testing.T) {
	r := openRedis(t, redis.Config{HeartbeatInterval: time.Hour, CompareInterval: time.Hour})
	for _, waits := range []struct{ messages, bytes, batches int }{{600, 10, 3}, {5, 300 << 10, 3}} {
		appendTo(t, r, "lobby", "the first of all", "")
		spent := commands(t, r, func() {
			if err := r.Append("lobby", strings.Repeat("m", waits.bytes), waits.messages); err != nil {
				t.Error(err)
			}
		})
		if spent["evalsha"] != waits.batches {
			t.Errorf("%d messages of %d bytes were sent in %d batches", waits.messages, waits.bytes, spent["evalsha"])
		}
	}
}

// commands counts the calls of each command that do causes.
func commands(t *testing.T, r *redis.Bus, do func()) map[string]int {
	t.Helper()
	ctx := context.Background()
	if err := r.Client().ConfigResetStat(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	do()
	calls := bustest.Calls(t, r.Client())
	maps.DeleteFunc(calls, func(name string, _ int) bool { return strings.HasPrefix(name, "config") || name == "info" })
	return calls
}

func TestRedisRecordsAreSmall(t *testing.T) {
	const n, most = 10_000, 140
	r := openRedis(t, redis.Config{})
	for range n / 100 {
		if err := r.Append("lobby", "m", 100); err != nil {
			t.Fatal(err)
		}
	}
	used := 0
	for _, key := range redis.KeysOf("lobby").Records {
		if bytes, err := r.Client().MemoryUsage(context.Background(), key, 0).Result(); err == nil {
			used += int(bytes)
		}
	}
	t.Logf("%d bytes a record", used/n)
	if used == 0 || used/n > most {
		t.Errorf("%d bytes a record, want at most %d", used/n, most)
	}
}

func TestRedisKeysOutliveTheirPeriod(t *testing.T) {
	r := openRedis(t, redis.Config{})
	ctx, k := context.Background(), redis.KeysOf("lobby")
	first := appendTo(t, r, "lobby", "m", "k")
	now, other := k.Records[0], k.Records[1]
	if r.Client().Exists(ctx, now).Val() == 0 {
		now, other = other, now
	}
	if ttl := r.Client().TTL(ctx, now).Val(); ttl < 10*time.Minute || ttl > 21*time.Minute {
		t.Errorf("a record lives for %v", ttl)
	}
	if err := r.Client().Rename(ctx, now, other).Err(); err != nil { // as when the next period has begun
		t.Fatal(err)
	}
	if id := appendTo(t, r, "lobby", "m", "k"); id != first {
		t.Errorf("a repeat in the next period got %v, the first %v", id, first)
	}
	if _, err := tryAppend(t, r, "lobby", "another", "k"); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("another content in the next period: %v", err)
	}
}

// A gate is a network whose writes can be held, and then fail.
type gate struct {
	mu     sync.Mutex
	shut   chan struct{} // nil while open; what is written waits for it
	waits  atomic.Int32
	broken atomic.Bool
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (g *gate) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return &gatedConn{c, g}, err
}

func (c *gatedConn) Write(b []byte) (int, error) {
	c.gate.mu.Lock()
	shut := c.gate.shut
	c.gate.mu.Unlock()
	if shut != nil {
		c.gate.waits.Add(1)
		<-shut
		if c.gate.broken.Load() {
			_ = c.Close()
			return 0, net.ErrClosed
		}
	}
	return c.Conn.Write(b)
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.shut)
	g.shut = nil
}

func TestRedisNothingOvertakesWhatFailed(t *testing.T) {
	g := &gate{}
	cfg := redis.Config{URL: bustest.StartRedis(t).URL(), HeartbeatInterval: time.Hour, CompareInterval: time.Hour, Links: 1}
	cfg.SetDial(g.dial)
	r := openRedis(t, cfg)
	appendTo(t, r, "lobby", "before", "")
	g.close()
	outcomes := make(chan string, 1000)
	send := func(body string) {
		r.Publish("lobby", bus.Draft{Body: []byte(body)}, func(_ bus.ID, err error) {
			if errors.Is(err, bus.ErrUnavailable) {
				err = bus.ErrUnavailable
			}
			outcomes <- fmt.Sprint(body, ": ", err)
		})
	}
	send("0")
	eventually(t, "the first to be on its way", func() bool { return g.waits.Load() > 0 })
	for i := range 500 { // more than a batch
		send(fmt.Sprint(i + 1))
	}
	g.broken.Store(true)
	g.open()
	for i := range 501 {
		if got, want := <-outcomes, fmt.Sprint(i, ": ", bus.ErrUnavailable); got != want {
			t.Fatalf("settled %q, want %q", got, want)
		}
	}
	appendTo(t, r, "lobby", "after", "")
	page, err := r.After(t.Context(), "lobby", bus.ID{}, 10, 0)
	if err != nil || len(page.Messages) != 2 {
		t.Errorf("the log has %v, %v", page.Messages, err)
	}
}

func TestRedisNothingOvertakesWhatWasRefused(t *testing.T) {
	g := &gate{}
	cfg := redis.Config{URL: bustest.StartRedis(t).URL(), HeartbeatInterval: time.Hour, CompareInterval: time.Hour, Links: 1}
	cfg.SetDial(g.dial)
	r := openRedis(t, cfg)
	appendTo(t, r, "good", "before", "")
	ctx, last := context.Background(), redis.KeysOf("bad").Last
	if err := r.Client().LPush(ctx, last, "not an id").Err(); err != nil {
		t.Fatal(err)
	}
	g.close()
	const n = 500 // more than a batch
	outcomes := make(chan error, n+2)
	settled := func(_ bus.ID, err error) { outcomes <- err }
	r.Publish("good", bus.Draft{}, settled)
	eventually(t, "the first to be on its way", func() bool { return g.waits.Load() > 0 })
	r.Publish("bad", bus.Draft{}, func(_ bus.ID, err error) {
		r.Client().Del(ctx, last) // what comes behind could be published, from here on
		outcomes <- err
	})
	for range n - 1 {
		r.Publish("bad", bus.Draft{}, settled)
	}
	r.Publish("good", bus.Draft{}, settled)
	g.open()
	failed := 0
	for range n + 2 {
		if err := <-outcomes; errors.Is(err, bus.ErrUnavailable) {
			failed++
		} else if err != nil {
			t.Error(err)
		}
	}
	if failed != n {
		t.Errorf("%d failed, want the %d of the bad room", failed, n)
	}
	appendTo(t, r, "bad", "after", "")
}

func TestRedisQueueIsBounded(t *testing.T) {
	g := &gate{}
	cfg := redis.Config{
		URL: bustest.StartRedis(t).URL(), HeartbeatInterval: time.Hour, CompareInterval: time.Hour, Links: 1, QueueBytes: 10_000,
	}
	cfg.SetDial(g.dial)
	r := openRedis(t, cfg)
	appendTo(t, r, "lobby", "before", "")
	g.close()
	var failed, ok atomic.Int32
	for range 100 {
		r.Publish("lobby", bus.Draft{Body: make([]byte, 1000)}, func(_ bus.ID, err error) {
			if errors.Is(err, bus.ErrUnavailable) {
				failed.Add(1)
			} else if err == nil {
				ok.Add(1)
			}
		})
	}
	if n := failed.Load(); n < 80 {
		t.Errorf("%d of 100 were refused at once", n)
	}
	g.open()
	eventually(t, "all to be settled", func() bool { return failed.Load()+ok.Load() == 100 })
	if ok.Load() == 0 {
		t.Error("none got through")
	}
}

// A trickle is a network that is slow towards the node.
type trickle struct{ net.Conn }

func (c trickle) Read(b []byte) (int, error) {
	time.Sleep(2 * time.Millisecond)
	return c.Conn.Read(b[:min(len(b), 4<<10)])
}

// The answer to a message waits behind all that was published before. That takes long, but nothing is wrong.
func TestRedisALinkThatIsBusyReceivingIsNotGivenUp(t *testing.T) {
	const size, n = 32 << 10, 100
	server := bustest.StartRedis(t)
	cfg := redis.Config{
		URL: server.URL(), Links: 1, Timeout: 400 * time.Millisecond, HeartbeatInterval: time.Hour, CompareInterval: time.Hour,
	}
	cfg.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return trickle{c}, err
	})
	r := openRedis(t, cfg)
	_, told := subscribe(t, r, "lobby")
	appendTo(t, r, "lobby", "before", "")
	other := openRedis(t, redis.Config{URL: server.URL()})
	for range n {
		other.Publish("lobby", bus.Draft{Body: make([]byte, size)}, func(bus.ID, error) {})
	}
	appendTo(t, other, "lobby", "behind", "")
	began := time.Now()
	appendTo(t, r, "lobby", "own", "")
	if took := time.Since(began); took < cfg.Timeout {
		t.Errorf("the answer took %v, which shows nothing", took)
	}
	told.until("own", func(lines []string) bool { return slices.Contains(lines, "own") })
	if n := r.Sessions(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}

// A server that is full for a moment, in the midst of a batch, refuses what follows too: it must not overtake the repeat.
func TestRedisWhatIsRefusedIsNotOvertakenInItsBatch(t *testing.T) {
	const burst = 200
	server := bustest.StartRedis(t)
	r := openRedis(t, redis.Config{URL: server.URL(), Links: 1})
	client := server.Client()
	stop := make(chan struct{})
	var filling sync.WaitGroup
	filling.Go(func() {
		for full := true; ; full = !full {
			select {
			case <-stop:
				client.ConfigSet(context.Background(), "maxmemory", "0")
				return
			default:
			}
			client.ConfigSet(context.Background(), "maxmemory", map[bool]string{true: "1", false: "0"}[full])
		}
	})
	refused := 0
	for range 60 {
		errs := r.AppendEach("lobby", strings.Repeat("x", 400), burst)
		first := slices.IndexFunc(errs, func(err error) bool { return err != nil })
		if first < 0 {
			continue
		}
		refused++
		for i, err := range errs[first:] {
			if err == nil {
				t.Fatalf("message %d was refused, and %d behind it accepted", first, first+i)
			}
		}
	}
	close(stop)
	filling.Wait()
	t.Logf("of 60 bursts %d were refused", refused)
}
