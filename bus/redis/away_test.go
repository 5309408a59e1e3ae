package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/bus/bustest"
	"parley/bus/redis"
)

// A server that says no for now is waited for; see redis.ErrMisconfigured.
func TestAServerThatIsNotReadyYetIsAMatterOfWaiting(t *testing.T) {
	for says, start := range map[string]func(t *testing.T) string{
		"LOADING": loading,
		"OOM":     func(t *testing.T) string { return bustest.StartRedis(t, "maxmemory 1").URL() },
		"NOREPLICAS": func(t *testing.T) string {
			return bustest.StartRedis(t, "min-replicas-to-write 1").URL()
		},
		"READONLY": func(t *testing.T) string {
			return bustest.StartRedis(t, "replicaof 127.0.0.1 1").URL()
		},
		// Its role is looked at before anything is asked of it that it would answer with MASTERDOWN.
		"READONLY this server is a replica": func(t *testing.T) string {
			s := bustest.StartRedis(t)
			if err := s.Client().ConfigSet(t.Context(), "replica-serve-stale-data", "no").Err(); err != nil {
				t.Fatal(err)
			}
			if err := s.Client().ReplicaOf(t.Context(), "127.0.0.1", "1").Err(); err != nil {
				t.Fatal(err)
			}
			return s.URL()
		},
		"BUSY": func(t *testing.T) string {
			s := bustest.StartRedis(t, "lua-time-limit 1")
			c := s.Client()
			go c.Eval(context.Background(), "while true do end", nil)
			eventually(t, "the server to be busy", func() bool {
				err := s.Client().Get(t.Context(), "k").Err()
				return err != nil && strings.HasPrefix(err.Error(), "BUSY")
			})
			return s.URL()
		},
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			r, err := redis.Open(t.Context(), redis.Config{URL: start(t), Timeout: 10 * time.Second})
			if err == nil {
				_ = r.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), says) {
				t.Errorf("says %v", err)
			}
			if errors.Is(err, redis.ErrMisconfigured) {
				t.Errorf("not to be waited for: %v", err)
			}
		})
	}
}

// loading starts a server that takes long to load what it has on disk.
func loading(t *testing.T) string {
	const keys, each = 300, 20 * time.Millisecond
	s := bustest.StartRedis(t, fmt.Sprintf("key-load-delay %d", each.Microseconds()), "loading-process-events-interval-bytes 1024")
	for i := range keys {
		if err := s.Client().Set(t.Context(), fmt.Sprint("k", i), make([]byte, 300), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Client().Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	return s.URL()
}
