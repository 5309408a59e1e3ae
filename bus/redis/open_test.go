package redis_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"parley/bus/bustest"
	"parley/bus/redis"
)

func TestRedisOpenTellsWhatIsWrongAndNeverThePassword(t *testing.T) {
	server := bustest.StartRedisTCP(t)
	if err := server.Client().ConfigSet(t.Context(), "requirepass", "right").Err(); err != nil {
		t.Fatal(err)
	}
	guarded := server.Addr()
	open := bustest.StartRedisTCP(t).Addr()
	for _, c := range []struct {
		name, url, says string
		permanent       bool
	}{
		{"wrong password", "redis://:s3cret@" + guarded, "WRONGPASS", true},
		{"no password", "redis://" + guarded, "NOAUTH", true},
		{"no such database", "redis://" + open + "/99", "DB index", true},
		{"no URL", "s3cret", "redis://", true},
		{"another scheme", "http://:s3cret@localhost", "redis://", true},
		{"not a port", "redis://:s3cret@localhost:s3cret", "redis://", true},
		{"nobody listens", "redis://:s3cret@127.0.0.1:1", "127.0.0.1:1", false},
		{"no such socket", "unix://:s3cret@/nowhere/s", "/nowhere/s", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := redis.Open(t.Context(), redis.Config{URL: c.url})
			if err == nil {
				r.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("says %q, not %q", err, c.says)
			}
			if errors.Is(err, redis.ErrMisconfigured) != c.permanent {
				t.Errorf("%v: permanent is %v", err, !c.permanent)
			}
		})
	}
	openRedis(t, redis.Config{URL: "redis://:right@" + guarded + "/3"})
}

func TestRedisOpenEndsWithItsContext(t *testing.T) {
	s := bustest.StartRedis(t)
	s.Pause()
	defer s.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := redis.Open(ctx, redis.Config{URL: s.URL(), Timeout: time.Minute}); err == nil {
		t.Error("opened on a server that stands still")
	}
}

func TestRedisWarnsOfAServerThatEvicts(t *testing.T) {
	for policy, warns := range map[string]bool{"noeviction": false, "allkeys-lru": true} {
		var log bytes.Buffer
		s := bustest.StartRedis(t, "maxmemory 100mb", "maxmemory-policy "+policy)
		r, err := redis.Open(t.Context(), redis.Config{URL: s.URL(), Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		if strings.Contains(log.String(), policy) != warns {
			t.Errorf("%s: logged %q", policy, log.String())
		}
	}
}
