package redis_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
