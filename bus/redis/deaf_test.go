package redis_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"regexp"
	"sync"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/redis"
)

// An earless network lets one of a node's links hear nothing, also over the connections that follow: the one that says the word.
type earless struct {
	word string

	mu    sync.Mutex
	beats string // guarded by mu; the channel of that link's heartbeats
}

func (e *earless) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return &earlessConn{Conn: c, of: e}, err
}

type earlessConn struct {
	net.Conn
	of    *earless
	beats string // guarded by of.mu
}

var beatChannel = regexp.MustCompile(`parley:beat:\w+`)

func (c *earlessConn) Write(b []byte) (int, error) {
	c.of.mu.Lock()
	if beats := beatChannel.Find(b); beats != nil {
		c.beats = string(beats)
	}
	if bytes.Contains(b, []byte(c.of.word)) {
		c.of.beats = c.beats
	}
	c.of.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *earlessConn) isDeaf() bool {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	return c.of.beats != "" && c.beats == c.of.beats
}

func (c *earlessConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.isDeaf() {
			return n, err
		}
	}
}

// A node of which one link hears nothing is not ready, whichever link that is.
func TestRedisANodeIsNotReadyWhileOneLinkIsDeaf(t *testing.T) {
	t.Parallel()
	server := openRedis(t, redis.Config{Links: 2})
	one := "room 0"
	other := one
	for i := 1; server.LinkOf(other) == server.LinkOf(one); i++ {
		other = fmt.Sprint("room ", i)
	}
	for _, room := range []string{one, other} {
		e := &earless{word: "deaf from here"}
		cfg := redis.Config{URL: "unix://" + server.Client().Options().Addr, Links: 2, HeartbeatInterval: 200 * time.Millisecond}
		cfg.SetDial(e.dial)
		r := openRedis(t, cfg)
		eventually(t, "the node to be ready", func() bool { return r.Ready() == nil && r.Sessions() == 2 })
		r.Publish(room, bus.Draft{Body: []byte(e.word)}, func(bus.ID, error) {})
		eventually(t, "the node not to be ready, with the link of "+room+" deaf", func() bool { return r.Ready() != nil })
	}
}
