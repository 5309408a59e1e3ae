package redis_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

func TestRedisKeysDoNotCollideAndShareASlot(t *testing.T) {
	rooms := []string{
		"", "a", "A", "a b", "a+b", "a%20b", "%", "%%", "}", "{", "{a}", "a}", "a}b", "a}:log", ":log", "a:log", "ä", "\x00", "\xff", "a/b", "log",
		strings.Repeat("x", 128), strings.Repeat("}", 128),
	}
	owner := map[string]string{}
	for _, room := range rooms {
		k := redis.KeysOf(room)
		tags := map[string]bool{}
		for _, key := range []string{k.Channel, k.Log, k.Last, k.Break, k.Incarnations, k.Records[0], k.Records[1]} {
			if other, taken := owner[key]; taken {
				t.Errorf("%q and %q share the key %q", room, other, key)
			}
			owner[key] = room
			tags[hashTag(key)] = true
		}
		if len(tags) != 1 || tags[""] {
			t.Errorf("%q has the hash tags %v", room, tags)
		}
	}
}

// hashTag is what Redis Cluster makes a key's slot from, "" if that is the whole key.
func hashTag(key string) string {
	_, rest, ok := strings.Cut(key, "{")
	tag, _, closed := strings.Cut(rest, "}")
	if !ok || !closed {
		return ""
	}
	return tag
}

// TestRedisKeepsNothingForEver looks at a node in use, one that is gone, and one that never said goodbye.
func TestRedisKeepsNothingForEver(t *testing.T) {
	r := openRedis(t, redis.Config{})
	other, err := redis.Open(t.Context(), redis.Config{URL: "unix://" + r.Client().Options().Addr})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		for _, n := range []*redis.Bus{r, other} {
			room := fmt.Sprint("room", i)
			sub, sink := subscribe(t, n, room)
			user := fmt.Sprint("u", i, n == other)
			sub.Enter(bus.Member{ID: user})
			appendTo(t, n, room, "with a key", "k")
			appendTo(t, n, room, "without", "")
			sink.change(bus.Joined, user)
		}
	}
	expectExpiries(t, r)
	other.Close()
	expectExpiries(t, r)
}

func expectExpiries(t *testing.T, r *redis.Bus) {
	t.Helper()
	ctx := context.Background()
	keys, err := r.Client().Keys(ctx, "*").Result()
	if err != nil || len(keys) == 0 {
		t.Fatalf("keys: %v, %v", keys, err)
	}
	for _, key := range keys {
		if ttl, err := r.Client().TTL(ctx, key).Result(); err != nil || ttl < 0 && ttl != -2 {
			t.Errorf("%s lives for ever (%v, %v)", key, ttl, err)
		}
	}
}

// What a batch begins expires as what one message begins.
func TestRedisWhatABatchBeginsExpires(t *testing.T) {
	r := openRedis(t, redis.Config{})
	if err := r.Append("lobby", "m", 3); err != nil {
		t.Fatal(err)
	}
	k := redis.KeysOf("lobby")
	for _, key := range []string{k.Log, k.Last, k.Records[0], k.Records[1]} {
		if ttl := r.Client().TTL(t.Context(), key).Val(); ttl == -1 {
			t.Errorf("%s lives for ever", key)
		}
	}
}

// A log that is made anew, while the last id is known, expires though no other message follows.
func TestRedisALogThatIsMadeAnewExpires(t *testing.T) {
	r := openRedis(t, redis.Config{})
	log := redis.KeysOf("lobby").Log
	appendTo(t, r, "lobby", "m", "")
	if err := r.Client().Del(t.Context(), log).Err(); err != nil {
		t.Fatal(err)
	}
	appendTo(t, r, "lobby", "m", "")
	if ttl := r.Client().TTL(t.Context(), log).Val(); ttl <= 0 {
		t.Errorf("the log lives for %v", ttl)
	}
}

// A bucket that expires is full again, so it is kept for as long as it takes to fill, and not for ever.
func TestRedisABucketIsKeptUntilItIsFull(t *testing.T) {
	r := openRedis(t, redis.Config{})
	const rate, burst = 0.1, 10
	if n, err := r.Draw(t.Context(), "ann", burst, rate, burst); err != nil || n != burst {
		t.Fatalf("%d were drawn, %v", n, err)
	}
	keys, err := r.Client().Keys(t.Context(), "parley:bucket:*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys: %v, %v", keys, err)
	}
	fills := burst / rate * time.Second
	if ttl := r.Client().PTTL(t.Context(), keys[0]).Val(); ttl < fills-patience || ttl > fills+time.Minute {
		t.Errorf("a bucket that is full after %v is kept for %v", fills, ttl)
	}
}

// A bucket that was drawn from when the server's clock was ahead has what it had then: it does not wait for the clock to be there again.
func TestRedisABucketOutlivesAClockThatIsSetBack(t *testing.T) {
	r := openRedis(t, redis.Config{})
	ctx := t.Context()
	draw := func(n, want int) {
		t.Helper()
		if got, err := r.Draw(ctx, "ann", n, 0.001, 10); err != nil || got != want {
			t.Errorf("%d of %d were drawn, %v", got, n, err)
		}
	}
	draw(4, 4)
	keys, err := r.Client().Keys(ctx, "parley:bucket:*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys: %v, %v", keys, err)
	}
	if err := r.Client().HSet(ctx, keys[0], "at", time.Now().Add(time.Hour).UnixMilli()).Err(); err != nil {
		t.Fatal(err)
	}
	draw(10, 6)
}

func TestRedisOccupiedRoomsDoNotExpire(t *testing.T) {
	r := openRedis(t, redis.Config{CompareInterval: 30 * time.Millisecond, HeartbeatInterval: 200 * time.Millisecond, LeaseTTL: time.Minute})
	sub, sink := subscribe(t, r, "lobby")
	appendTo(t, r, "lobby", "m", "")
	sub.Enter(bus.Member{ID: "ann"})
	sink.change(bus.Joined, "ann")
	ctx, k := context.Background(), redis.KeysOf("lobby")
	other := openRedis(t, redis.Config{URL: "unix://" + r.Client().Options().Addr, CompareInterval: 30 * time.Millisecond})
	keys := []string{"parley:rooms:" + r.Incarnation(), k.Last, k.Incarnations, r.OwnUsers("lobby")}
	for _, key := range keys {
		if err := r.Client().Expire(ctx, key, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
	}
	subscribe(t, other, "lobby") // whose first comparison prolongs the lives of the room's
	for _, key := range keys[:3] {
		eventually(t, key+" to live on", func() bool { return r.Client().TTL(ctx, key).Val() > 50*time.Minute })
	}
}

// What is posted is forgotten with the last end of it, though nothing is posted any more, and no sooner.
func TestRedisTextsExpireWithTheLastOfThem(t *testing.T) {
	server := bustest.StartRedis(t)
	r := openRedis(t, redis.Config{URL: server.URL()})
	const key = "parley:{%board}:texts"
	expires := func(want time.Duration) {
		t.Helper()
		if got := server.Client().PTTL(t.Context(), key).Val(); got > want || got < want-time.Minute {
			t.Errorf("it expires in %v, want %v", got, want)
		}
	}
	post := func(text string, life time.Duration) {
		t.Helper()
		if err := r.Post(t.Context(), text, time.Now().Add(life)); err != nil {
			t.Fatal(err)
		}
	}
	post("one", time.Hour)
	expires(time.Hour)
	post("two", 2*time.Hour)
	post("three", time.Hour)
	expires(2 * time.Hour)
	// As an earlier version has left it.
	if err := server.Client().Persist(t.Context(), key).Err(); err != nil {
		t.Fatal(err)
	}
	post("four", time.Hour)
	if texts, _, err := r.Posted(t.Context(), ""); err != nil || len(texts) != 4 {
		t.Errorf("%v are posted, %v", texts, err)
	}
	if left := server.Client().PTTL(t.Context(), key).Val(); left > 0 {
		t.Errorf("texts of which some last longer expire in %v", left)
	}
}
