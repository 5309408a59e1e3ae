package redis_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// What is to be on a replica is not acknowledged before, nor when it is repeated.
func TestRedisAcknowledgesWhatReplicasHave(t *testing.T) {
	primary := bustest.StartRedisTCP(t, "repl-diskless-sync-delay 0")
	host, port, _ := net.SplitHostPort(primary.Addr())
	replica := bustest.StartRedisTCP(t, "replicaof "+host+" "+port)
	follows := func() bool {
		return primary.Client().Wait(t.Context(), 1, time.Second).Val() == 1
	}
	eventually(t, "the replica to follow", func() bool { _ = primary.Client().Set(t.Context(), "x", 1, 0); return follows() })
	cfg := redis.Config{URL: primary.URL(), Replicas: 1, Timeout: time.Second}
	r, other := openRedis(t, cfg), openRedis(t, cfg)
	log := redis.KeysOf("lobby").Log
	for _, body := range []string{"m0", "m1"} {
		eventually(t, "an acknowledgement", func() bool { _, err := tryAppend(t, r, "lobby", body, body); return err == nil })
	}
	if n := replica.Client().XLen(t.Context(), log).Val(); n != 2 {
		t.Errorf("acknowledged were 2, and the replica has %d", n)
	}
	// What is written for a repeat is what WAIT waits for, where the first one came over another connection: Redis 7.0 waits for all that
	// was written before, later ones and Valkey only for what the connection itself has written.
	last := redis.KeysOf("lobby").Last
	if !primary.Client().PExpire(t.Context(), last, time.Minute).Val() {
		t.Fatal("there is no last id")
	}
	if _, err := tryAppend(t, other, "lobby", "m1", "m1"); err != nil {
		t.Fatal(err)
	}
	if life := primary.Client().PTTL(t.Context(), last).Val(); life <= time.Minute {
		t.Error("a repeat writes nothing: whoever repeats waits for nothing")
	}
	replica.Pause()
	for _, node := range []*redis.Bus{r, r, other} { // all but the first are answered from the record
		if _, err := tryAppend(t, node, "lobby", "m2", "m2"); !errors.Is(err, bus.ErrUnavailable) {
			t.Errorf("a message that no replica has: %v", err)
		}
	}
	replica.Resume()
	eventually(t, "an acknowledgement", func() bool { _, err := tryAppend(t, r, "lobby", "m2", "m2"); return err == nil })
	if n := replica.Client().XLen(t.Context(), log).Val(); n != 3 {
		t.Errorf("acknowledged were 3, and the replica has %d", n)
	}
}

// With two replicas asked for, what one has is not acknowledged.
func TestRedisAcknowledgesWhatAllReplicasAskedForHave(t *testing.T) {
	t.Parallel()
	primary := bustest.StartRedisTCP(t, "repl-diskless-sync-delay 0")
	host, port, _ := net.SplitHostPort(primary.Addr())
	bustest.StartRedisTCP(t, "replicaof "+host+" "+port)
	second := bustest.StartRedisTCP(t, "replicaof "+host+" "+port)
	eventually(t, "the replicas to follow", func() bool {
		_ = primary.Client().Set(t.Context(), "x", 1, 0)
		return primary.Client().Wait(t.Context(), 2, time.Second).Val() == 2
	})
	r := openRedis(t, redis.Config{URL: primary.URL(), Replicas: 2, Timeout: time.Second})
	eventually(t, "an acknowledgement", func() bool { _, err := tryAppend(t, r, "lobby", "m0", "m0"); return err == nil })
	second.Pause()
	defer second.Resume()
	if _, err := tryAppend(t, r, "lobby", "m1", "m1"); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("a message that one of two replicas has: %v", err)
	}
}
