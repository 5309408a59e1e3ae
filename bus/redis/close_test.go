package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// A node that ends waits for no time-out of a server that is away. The time-out is long here, so that the test shows it on a busy machine.
func TestRedisCloseIsQuickWhileTheServerIsAway(t *testing.T) {
	const timeout, quick = 40 * time.Second, 10 * time.Second
	standsStill := func(s *bustest.RedisServer, _ func()) { s.Pause() }
	for name, c := range map[string]struct {
		away func(s *bustest.RedisServer, swallow func())
		said int
	}{
		"it stands still":                   {standsStill, 100},
		"it stands still, and all was said": {standsStill, 0},
		"it ended":                          {func(s *bustest.RedisServer, _ func()) { s.Kill() }, 100},
		"connections lead astray":           {func(s *bustest.RedisServer, swallow func()) { swallow(); s.Kill() }, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := bustest.StartRedis(t)
			cfg := redis.Config{URL: server.URL(), Timeout: timeout}
			swallowed := make(chan struct{})
			cfg.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
				select {
				case <-swallowed:
					<-ctx.Done()
					return nil, ctx.Err()
				default:
					return (&net.Dialer{}).DialContext(ctx, network, addr)
				}
			})
			r, err := redis.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			told := make(chan error, c.said)
			for i := range 20 {
				sub, _ := subscribe(t, r, fmt.Sprint("room", i))
				sub.Enter(bus.Member{ID: "ann", Name: "Ann"})
				if i%2 == 0 {
					eventually(t, "ann", func() bool { return sub.Roster().Count == 1 })
				}
			}
			c.away(server, func() { close(swallowed) })
			for i := range cap(told) {
				r.Publish(fmt.Sprint("room", i%20), bus.Draft{Body: []byte("m")}, func(_ bus.ID, err error) { told <- err })
			}
			began := time.Now()
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > quick {
				t.Errorf("it took %v to close", took)
			} else {
				t.Logf("closed in %v", took)
			}
			for range cap(told) {
				select {
				case err := <-told:
					if err == nil || !errors.Is(err, bus.ErrUnavailable) && !errors.Is(err, bus.ErrClosed) {
						t.Fatalf("what was published got %v", err)
					}
				default:
					t.Fatal("what was published was not settled")
				}
			}
		})
	}
}
