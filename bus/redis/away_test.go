package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// A node starts beside a server that says no for now, and is ready once the server can be used.
func TestRedisANodeStartsThoughItsServerCanNotBeUsedYet(t *testing.T) {
	set := func(key, value string) func(*testing.T, *bustest.RedisServer) {
		return func(t *testing.T, s *bustest.RedisServer) {
			if err := s.Client().ConfigSet(t.Context(), key, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	primary := func(t *testing.T, s *bustest.RedisServer) {
		if err := s.Client().ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
			t.Fatal(err)
		}
	}
	for says, c := range map[string]struct {
		start func(t *testing.T) *bustest.RedisServer
		mend  func(t *testing.T, s *bustest.RedisServer)
	}{
		"LOADING": {loading, set("key-load-delay", "0")},
		"MISCONF": {failingToSave, set("stop-writes-on-bgsave-error", "no")},
		"OOM": {
			func(t *testing.T) *bustest.RedisServer { return bustest.StartRedis(t, "maxmemory 1") },
			set("maxmemory", "0"),
		},
		"NOREPLICAS": {
			func(t *testing.T) *bustest.RedisServer { return bustest.StartRedis(t, "min-replicas-to-write 1") },
			set("min-replicas-to-write", "0"),
		},
		"READONLY": {
			func(t *testing.T) *bustest.RedisServer { return bustest.StartRedis(t, "replicaof 127.0.0.1 1") },
			primary,
		},
		// Its role is looked at before anything is asked of it that it would answer with MASTERDOWN.
		"READONLY this server is a replica": {
			func(t *testing.T) *bustest.RedisServer {
				s := bustest.StartRedis(t)
				set("replica-serve-stale-data", "no")(t, s)
				if err := s.Client().ReplicaOf(t.Context(), "127.0.0.1", "1").Err(); err != nil {
					t.Fatal(err)
				}
				return s
			},
			primary,
		},
		"BUSY": {
			func(t *testing.T) *bustest.RedisServer {
				s := bustest.StartRedis(t, "lua-time-limit 1")
				c := s.Client()
				go c.Eval(context.Background(), "while true do end", nil)
				eventually(t, "the server to be busy", func() bool {
					err := s.Client().Get(t.Context(), "k").Err()
					return err != nil && strings.HasPrefix(err.Error(), "BUSY")
				})
				return s
			},
			func(t *testing.T, s *bustest.RedisServer) {
				if err := s.Client().ScriptKill(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
			},
		},
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			s := c.start(t)
			r := openRedis(t, redis.Config{URL: s.URL(), Timeout: 10 * time.Second, HeartbeatInterval: 400 * time.Millisecond})
			if err := r.Ready(); err == nil || !strings.Contains(err.Error(), says) {
				t.Fatalf("ready: %v", err)
			}
			if _, err := tryAppend(t, r, "lobby", "early", ""); !errors.Is(err, bus.ErrUnavailable) {
				t.Errorf("what was said before got %v", err)
			}
			c.mend(t, s)
			eventually(t, "the node to be ready", func() bool { return r.Ready() == nil })
			sub, told := subscribe(t, r, "lobby")
			sub.Enter(bus.Member{ID: "ann", Name: "Ann"})
			told.change(bus.Joined, "ann")
			eventually(t, "a link", func() bool {
				_, err := tryAppend(t, r, "lobby", "m", "k")
				return err == nil
			})
			if err := s.Client().Get(t.Context(), "parley:layout").Err(); err != nil {
				t.Errorf("the layout: %v", err)
			}
		})
	}
}

// A server that has as many clients as it takes may have space soon: that is no reason not to start.
func TestRedisANodeStartsThoughItsServerTakesNoMoreClients(t *testing.T) {
	t.Parallel()
	const says = "ERR max number of clients reached"
	var hasSpace atomic.Bool
	cfg := redis.Config{URL: bustest.StartRedis(t).URL(), HeartbeatInterval: 100 * time.Millisecond}
	cfg.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if hasSpace.Load() {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
		ours, its := net.Pipe()
		go func() {
			defer its.Close()
			_, _ = its.Read(make([]byte, 4096))
			fmt.Fprintf(its, "-%s\r\n", says)
		}()
		return ours, nil
	})
	r := openRedis(t, cfg)
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), says) {
		t.Fatalf("ready: %v", err)
	}
	hasSpace.Store(true)
	eventually(t, "the node to be ready", func() bool { return r.Ready() == nil })
}

// A connection on which nobody answers, as that to a machine that has just gone, is given up, and another is made.
func TestRedisAServerThatDoesNotGreetIsTriedAgain(t *testing.T) {
	t.Parallel()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	var gone atomic.Bool
	var tried atomic.Int32
	cfg := redis.Config{
		URL: bustest.StartRedis(t).URL(), Links: 1, Timeout: 200 * time.Millisecond, HeartbeatInterval: time.Hour, CompareInterval: time.Hour,
	}
	cfg.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if gone.Load() {
			defer tried.Add(1)
			network, addr = "tcp", nobody.Addr().String()
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	})
	r := openRedis(t, cfg)
	appendTo(t, r, "lobby", "before", "")
	gone.Store(true)
	r.Reconnect()
	eventually(t, "a connection to nobody", func() bool { return tried.Load() > 0 })
	gone.Store(false)
	eventually(t, "an acknowledgement", func() bool {
		_, err := tryAppend(t, r, "lobby", "after", "after")
		return err == nil
	})
}

// What ends a start beside a server that can be used ends it beside one that can't be used yet.
func TestRedisAMissingRightEndsTheStartBesideAFullServer(t *testing.T) {
	s := bustest.StartRedis(t, "maxmemory 1", "user node on >secret ~* &* +@all -xadd")
	b, err := redis.Open(t.Context(), redis.Config{URL: limitedURL(s)})
	if err == nil {
		_ = b.Close()
		t.Fatal("opened")
	}
	if !errors.Is(err, redis.ErrMisconfigured) || !strings.Contains(err.Error(), "XADD") {
		t.Errorf("says %v", err)
	}
}

// A node that was not let in yet shares nothing with nodes of another layout, whenever they show.
func TestRedisANodeThatIsNotReadyYetMindsTheLayout(t *testing.T) {
	s := bustest.StartRedis(t)
	c := s.Client()
	if err := c.Set(t.Context(), "parley:layout", "another", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.ReplicaOf(t.Context(), "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	r := openRedis(t, redis.Config{URL: s.URL(), HeartbeatInterval: 100 * time.Millisecond})
	if err := c.ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the layout to be seen", func() bool {
		err := r.Ready()
		return err != nil && strings.Contains(err.Error(), "layout another")
	})
	if _, err := tryAppend(t, r, "lobby", "m", ""); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("what was said got %v", err)
	}
	if keys := c.Keys(t.Context(), "*").Val(); len(keys) != 1 {
		t.Errorf("wrote %v", keys)
	}
	c.Del(t.Context(), "parley:layout")
	eventually(t, "the node to be ready", func() bool { return r.Ready() == nil })
}

// loading starts a server that takes long to load what it has on disk.
func loading(t *testing.T) *bustest.RedisServer {
	const keys, each = 1000, 20 * time.Millisecond
	s := bustest.StartRedis(t, fmt.Sprintf("key-load-delay %d", each.Microseconds()), "loading-process-events-interval-bytes 1024", "rdbcompression no")
	fill := `for i = 1, tonumber(ARGV[1]) do redis.call("SET", "k" .. i, string.rep("x", 300)) end`
	if err := s.Client().Eval(t.Context(), fill, nil, keys).Err(); err != nil && !errors.Is(err, goredis.Nil) {
		t.Fatal(err)
	}
	if err := s.Client().Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	return s
}

// failingToSave starts a server that can't write what it has to disk: there is a directory where the file is to be.
func failingToSave(t *testing.T) *bustest.RedisServer {
	s := bustest.StartRedis(t, "enable-protected-configs yes")
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "dump.rdb", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Client().ConfigSet(t.Context(), "dir", dir).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Client().ConfigSet(t.Context(), "save", "3600 1000000").Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Client().BgSave(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server to fail", func() bool {
		err := s.Client().Set(t.Context(), "k", "", 0).Err()
		return err != nil && strings.HasPrefix(err.Error(), "MISCONF")
	})
	return s
}
