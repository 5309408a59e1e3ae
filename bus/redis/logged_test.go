package redis_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus/redis"
)

// lostLines is a log that counts the lines about lost connections.
type lostLines struct {
	slog.Handler
	n *atomic.Int64
}

func (l lostLines) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "connection lost") {
		l.n.Add(1)
	}
	return nil
}

// However often connections are made in vain, the log says so now and then only.
func TestRedisAnOutageIsLoggedNowAndThen(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	var tries, lines atomic.Int64
	cfg := redis.Config{Log: slog.New(lostLines{slog.NewTextHandler(io.Discard, nil), &lines})}
	cfg.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if away.Load() {
			tries.Add(1)
			return nil, errors.New("it is away")
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	})
	r := openRedis(t, cfg)
	eventually(t, "the links", func() bool { return r.Sessions() >= 2 })
	began := time.Now()
	away.Store(true)
	r.Reconnect()
	eventually(t, "several tries", func() bool { return tries.Load() >= 8 })
	if n, most := lines.Load(), 1+int64(time.Since(began)/(5*time.Second)); n < 1 || n > most {
		t.Errorf("%d lines were logged in %v", n, time.Since(began))
	}
}
