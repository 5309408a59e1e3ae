package redis_test

import (
	"bytes"
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

// What is missing is read in pieces that arrive within the time-out, however narrow the way is. Otherwise all of it is read, and thrown
// away, again and again.
func TestRedisWhatIsMissingIsReadOverANarrowNetwork(t *testing.T) {
	const rooms, each, body, rate = 32, 16, 4 << 10, 1 << 20 // 2 MB, two seconds' worth
	server := bustest.StartRedis(t)
	cfg := redis.Config{URL: server.URL(), Timeout: time.Second, CompareInterval: time.Second}
	n := &narrow{rate: rate}
	cfg.SetDial(n.dial)
	r := openRedis(t, cfg)
	other := openRedis(t, redis.Config{URL: server.URL()})
	told := make([]*listener, rooms)
	for i := range rooms {
		_, told[i] = subscribe(t, r, fmt.Sprint("room", i))
	}
	n.on.Store(true)
	var began time.Time
	r.Cut(func() {
		for i := range rooms {
			if err := other.Append(fmt.Sprint("room", i), strings.Repeat("m", body), each); err != nil {
				t.Fatal(err)
			}
		}
		began = time.Now()
	})
	for _, l := range told {
		lines := l.until("all of it", func(lines []string) bool { return len(lines) >= each })
		if len(lines) > each || slices.Contains(lines, "break") {
			t.Errorf("told %d lines", len(lines))
		}
	}
	const all = rooms * each * body
	t.Logf("%d KB were missing; %d KB were read in %v", all>>10, n.bytes.Load()>>10, time.Since(began).Round(time.Millisecond))
	if read := n.bytes.Load(); read > 6*all {
		t.Errorf("%d bytes were read of %d", read, all)
	}
}

// What may be read in one go is halved by each read that is late, and doubled by each that is not, within bounds.
func TestRedisReadsThatAreLateAreSmallerThen(t *testing.T) {
	budgets, less := redis.LateReads(9)
	want := []int64{512, 256, 128, 64, 32, 16, 16, 16, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096}
	for i := range want {
		want[i] <<= 10
	}
	if !slices.Equal(budgets, want) {
		t.Errorf("it may read %v, want %v", budgets, want)
	}
	if want := []bool{true, true, true, true, true, true, false, false, false}; !slices.Equal(less, want) {
		t.Errorf("it tries again with less: %v, want %v", less, want)
	}
}

// Who read much in time may read more, who read little not.
func TestRedisWhoReadsMuchInTimeMayReadMore(t *testing.T) {
	r := openRedis(t, redis.Config{CompareInterval: time.Hour})
	_, told := subscribe(t, r, "lobby")
	other := openRedis(t, redis.Config{URL: "unix://" + r.Client().Options().Addr})
	first, said := r.MayRead(), 0
	misses := func(body string) {
		t.Helper()
		r.Cut(func() {
			if err := other.Append("lobby", body, 10); err != nil {
				t.Fatal(err)
			}
		})
		said += 10
		told.until("what was missed", func(lines []string) bool { return len(lines) == said })
	}
	misses("little")
	misses("little")
	if may := r.MayRead(); may != first {
		t.Errorf("after a little it may read %d, at first %d", may, first)
	}
	misses(strings.Repeat("much", 25<<10))
	eventually(t, "it to read more", func() bool { return r.MayRead() > first })
}

// A narrow network lets so many bytes a second pass, for all connections but those that subscribe.
type narrow struct {
	rate  int
	on    atomic.Bool
	bytes atomic.Int64

	mu   sync.Mutex
	free time.Time // guarded by mu; when the next byte may pass
}

func (n *narrow) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return &narrowConn{Conn: c, network: n}, err
}

type narrowConn struct {
	net.Conn
	network    *narrow
	subscribes atomic.Bool
}

func (c *narrowConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("SUBSCRIBE")) {
		c.subscribes.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *narrowConn) Read(b []byte) (int, error) {
	n := c.network
	if !n.on.Load() || c.subscribes.Load() {
		return c.Conn.Read(b)
	}
	got, err := c.Conn.Read(b[:min(len(b), 4<<10)])
	n.bytes.Add(int64(got))
	n.mu.Lock()
	now := time.Now()
	if n.free.Before(now) {
		n.free = now
	}
	n.free = n.free.Add(time.Duration(got) * time.Second / time.Duration(n.rate))
	wait := n.free.Sub(now)
	n.mu.Unlock()
	time.Sleep(wait)
	return got, err
}

// Who joins begins after the newest message, though the key that names it is gone.
func TestRedisWhoJoinsBeginsAtTheEndOfTheLog(t *testing.T) {
	r := openRedis(t, redis.Config{})
	newest := appendTo(t, r, "lobby", "m", "")
	if err := r.Client().Del(t.Context(), redis.KeysOf("lobby").Last).Err(); err != nil {
		t.Fatal(err)
	}
	if sub, _ := subscribe(t, r, "lobby"); sub.Last() != newest {
		t.Errorf("it begins at %v, the newest message is %v", sub.Last(), newest)
	}
}

// What did not arrive, and was trimmed away with all that the log had, is told.
func TestRedisWhatIsTrimmedAwayAltogetherIsTold(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openAt(t, limitedURL(server), slow)
	_, told := subscribe(t, r, "lobby")
	appendTo(t, r, "lobby", "heard", "")
	told.expect("heard")
	allow(t, server, "allchannels", "-publish")
	appendTo(t, r, "lobby", "trimmed", "") // and nobody is told
	allow(t, server, "allchannels")
	if err := server.Client().Del(t.Context(), redis.KeysOf("lobby").Log).Err(); err != nil {
		t.Fatal(err)
	}
	r.Reconnect()
	told.expect("heard", "break")
	appendTo(t, r, "lobby", "next", "")
	told.expect("heard", "break", "next")
}

// A page tells of the breaks and of the end of what is in it, though the keys that name these are gone.
func TestRedisAPageTellsOfTheBreaksInIt(t *testing.T) {
	r := openRedis(t, often)
	_, told := subscribe(t, r, "lobby")
	kept := appendTo(t, r, "lobby", "kept", "")
	appendTo(t, r, "lobby", "lost", "")
	told.expect("kept", "lost")
	r.Cut(func() { rewind(t, r, "lobby", kept) })
	told.expect("kept", "lost", "break")
	k := redis.KeysOf("lobby")
	if err := r.Client().Del(t.Context(), k.Break, k.Last).Err(); err != nil {
		t.Fatal(err)
	}
	p, err := r.After(t.Context(), "lobby", kept, 10, 0)
	if err != nil || len(p.Messages) != 1 {
		t.Fatalf("the page has %v, %v", p.Messages, err)
	}
	if marker := p.Messages[0].ID; p.LastBreak != marker || p.Last != marker {
		t.Errorf("it says that the last break is %v and the last entry %v; both are %v", p.LastBreak, p.Last, marker)
	}
}

// What a log has lost is found though the server has forgotten the script that tells.
func TestRedisALossIsToldThoughScriptsAreForgotten(t *testing.T) {
	r := openRedis(t, often)
	_, told := subscribe(t, r, "lobby")
	kept := appendTo(t, r, "lobby", "kept", "")
	appendTo(t, r, "lobby", "lost", "")
	told.expect("kept", "lost")
	if err := r.Client().ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	rewind(t, r, "lobby", kept)
	told.expect("kept", "lost", "break")
}

// Sync is not over where the server refuses to say what there is.
func TestRedisSyncIsNotOverWhereTheServerRefuses(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openAt(t, limitedURL(server), slow)
	sub, _ := subscribe(t, r, "lobby")
	allow(t, server, "allchannels", "-get")
	refused, cancel := context.WithCancelCause(t.Context())
	synced := make(chan error, 1)
	go func() { synced <- sub.Sync(refused) }()
	eventually(t, "two refusals", func() bool { return refusals(t, server, "get") >= 2 })
	cancel(errors.New("given up"))
	if err := <-synced; !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("Sync says %v", err)
	}
	allow(t, server, "allchannels")
	if err := sub.Sync(t.Context()); err != nil {
		t.Error(err)
	}
}
