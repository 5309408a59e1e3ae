package redis_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus/bustest"
	"parley/bus/redis"
)

// What was acknowledged and did not arrive is told as lost, too, where the room has moved before that is noticed.
func TestRedisClusterWhatIsLostAsItsRoomMovesIsTold(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 1, 0)
	server := servers.Servers[0]
	allow(t, server, "allchannels")
	n := openClusterNode(t, redis.Config{
		URL:             strings.Replace(servers.URL(), "://", "://node:secret@", 1),
		CompareInterval: time.Hour, HeartbeatInterval: 20 * time.Second,
	}, "lobby")
	appendTo(t, n, "lobby", "kept", "")
	n.told["lobby"].expect("kept")
	allow(t, server, "allchannels", "-spublish")
	appendTo(t, n, "lobby", "lost", "") // and nobody is told
	ctx, k, c := t.Context(), redis.KeysOf("lobby"), server.Client()
	entries, err := c.XRange(ctx, k.Log, "-", "+").Result()
	if err != nil || len(entries) != 2 {
		t.Fatalf("the log has %v, %v", entries, err)
	}
	p := c.TxPipeline()
	p.XDel(ctx, k.Log, entries[1].ID)
	p.Set(ctx, k.Last, entries[0].ID, time.Hour)
	if _, err := p.Exec(ctx); err != nil && !errors.Is(err, goredis.Nil) {
		t.Fatal(err)
	}
	n.MoveAway("lobby")
	n.told["lobby"].expect("kept", "break")
}

// A failover is followed as soon as the old primary says so: not only when a heartbeat is due.
func TestRedisClusterAFailoverIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 3, 1)
	room := roomsOf(servers, 0, 1)[0]
	n := openClusterNode(t, redis.Config{URL: servers.URL(), Timeout: 5 * time.Second, HeartbeatInterval: time.Minute}, room)
	chat := n.chat(room, "a")
	n.told[room].until("some", func(lines []string) bool { return len(lines) > 10 })
	servers.FailOver(3)
	promoted := time.Now()
	heard := len(n.told[room].heard())
	n.told[room].until("more", func(lines []string) bool { return len(lines) > heard+20 })
	if took := time.Since(promoted); took > failoverWithin {
		t.Errorf("it took %v from the promotion", took)
	}
	n.hears(room, "a", chat.end())
}
