package redis_test

import (
	"context"
	"net"
	"regexp"
	"strconv"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/redis"
)

// A late server tells a time long ago. Its scripts know better: so it is as if the node's own clock was ahead.
func late(d time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return lateConn{c, d}, err
	}
}

type lateConn struct {
	net.Conn
	by time.Duration
}

// toldTime is the answer to TIME.
var toldTime = regexp.MustCompile(`\*2\r\n\$10\r\n(\d{10})\r\n\$\d\r\n`)

func (c lateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if at := toldTime.FindSubmatchIndex(b[:n]); at != nil {
		told, _ := strconv.ParseInt(string(b[at[2]:at[3]]), 10, 64)
		strconv.AppendInt(b[at[2]:at[2]], told-int64(c.by/time.Second), 10)
	}
	return n, err
}

// What is too old, or over, is so by Redis's clock, however far ahead of that the node's is.
func TestRedisAgeIsByTheServersClock(t *testing.T) {
	t.Parallel()
	cfg := redis.Config{Retention: bus.Retention{Age: 10 * time.Minute}}
	cfg.SetDial(late(time.Hour))
	r := openRedis(t, cfg)
	appendTo(t, r, "lobby", "new", "")
	if p, err := r.After(t.Context(), "lobby", bus.ID{}, 10, 0); err != nil || len(p.Messages) != 1 {
		t.Errorf("what was said just now: %d messages, %v", len(p.Messages), err)
	}
}
