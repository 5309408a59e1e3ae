package redis_test

import (
	"fmt"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/redis"
)

// A log lives for as long as its newest message is to be kept, however long ago it began.
func TestRedisALogLivesOnWithItsNewestMessage(t *testing.T) {
	const age = 10 * time.Hour
	r := openRedis(t, redis.Config{Retention: bus.Retention{Age: age}})
	ctx, k := t.Context(), redis.KeysOf("lobby")
	old := fmt.Sprint(time.Now().Add(-age/2).UnixMilli(), "-7")
	p := r.Client().TxPipeline()
	p.XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, ID: old, Values: []string{"m", "0-0 old"}})
	p.Set(ctx, k.Last, old, age)
	p.PExpire(ctx, k.Log, age/2)
	if _, err := p.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	appendTo(t, r, "lobby", "new", "")
	if ttl := r.Client().PTTL(ctx, k.Log).Val(); ttl < age-time.Minute {
		t.Errorf("with a new message the log lives for %v", ttl)
	}
}

// What is over on the board makes room for what is posted.
func TestRedisTheBoardForgetsWhatIsOver(t *testing.T) {
	r := openRedis(t, redis.Config{})
	ctx := t.Context()
	for i := range 10 {
		if err := r.Post(ctx, fmt.Sprint("over ", i), time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Post(ctx, "good", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if kept := r.Client().ZRange(ctx, redis.BoardKey, 0, -1).Val(); len(kept) != 1 {
		t.Errorf("the board has %q", kept)
	}
}
