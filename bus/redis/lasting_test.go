package redis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// The last id outlives the log, so that a room goes on where it was, and who was there last is told nothing is missing.
func TestRedisTheLastIDOutlivesTheLog(t *testing.T) {
	t.Parallel()
	const age = time.Second
	r := openRedis(t, redis.Config{URL: bustest.StartRedis(t).URL(), Retention: bus.Retention{Age: age}})
	ctx, k := context.Background(), redis.KeysOf("lobby")
	appendTo(t, r, "lobby", "first", "k0")
	newest := appendTo(t, r, "lobby", "m", "k1")
	log, last := r.Client().PTTL(ctx, k.Log).Val(), r.Client().PTTL(ctx, k.Last).Val()
	if log <= 0 || last < log+time.Minute {
		t.Errorf("the log lives for %v, the last id for %v", log, last)
	}
	eventually(t, "the log to expire", func() bool { return r.Client().Exists(ctx, k.Log).Val() == 0 })
	if p, err := r.After(ctx, "lobby", newest, 10, 0); err != nil || !p.Complete || p.Last != newest {
		t.Errorf("of an expired log: %+v, %v", p, err)
	}
	sub, _ := subscribe(t, r, "lobby")
	if sub.Last() != newest {
		t.Errorf("the room's last is %v, want %v", sub.Last(), newest)
	}
}

// A log that is to be kept for ever begins before 1970, where Redis has no ids.
func TestRedisALogMayBeKeptForACentury(t *testing.T) {
	t.Parallel()
	r := openRedis(t, redis.Config{Retention: bus.Retention{Age: 100 * 365 * 24 * time.Hour}})
	const n = 200 // in so many one is by which old entries are dropped
	if err := r.Append("lobby", "m", n); err != nil {
		t.Fatal(err)
	}
	if p, err := r.After(t.Context(), "lobby", bus.ID{}, 2*n, 0); err != nil || len(p.Messages) != n || !p.Complete {
		t.Errorf("%d messages are kept, %v", len(p.Messages), err)
	}
}

// Two servers that go on from the same id, as both sides of a split do, give different ids, though their clocks lag.
func TestRedisTwoServersNeverGiveTheSameID(t *testing.T) {
	ctx, k := context.Background(), redis.KeysOf("lobby")
	ahead := fmt.Sprint(time.Now().Add(time.Hour).UnixMilli(), "-7")
	given := map[bus.ID]bool{}
	const servers, each = 2, 1
	for range servers {
		r := openRedis(t, redis.Config{URL: bustest.StartRedis(t).URL()})
		if err := r.Client().Set(ctx, k.Last, ahead, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		for i := range each {
			given[appendTo(t, r, "lobby", "m", fmt.Sprint("k", i))] = true
		}
	}
	if len(given) != servers*each { // by chance once in 65,536 times
		t.Errorf("%d different ids of %d: %v", len(given), servers*each, given)
	}
}
