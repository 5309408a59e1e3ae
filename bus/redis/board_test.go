package redis_test

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus/bustest"
	"parley/bus/redis"
)

// What is posted, drawn and counted is so while the slots of that move, key by key, and before anybody was told that they have.
func TestRedisClusterTheBoardIsReadAndWrittenWhileItsSlotsMove(t *testing.T) {
	t.Parallel()
	servers := bustest.StartRedisCluster(t, 2, 0)
	const texts, version, bucket, count = "parley:{%board}:texts", "parley:{%board}:version", "parley:bucket:{ann}", "parley:count:{ann}"
	n := openClusterNode(t, redis.Config{URL: servers.URL(), HeartbeatInterval: time.Minute, Timeout: 5 * time.Second})
	ctx := t.Context()
	var posted []string
	known, drawn := "", 0
	works := func(when string) {
		t.Helper()
		if list, v, err := n.Posted(ctx, known); err != nil || v != known || len(list) > 0 {
			t.Errorf("%s what is known is posted: %v of %q, %v", when, list, v, err)
		}
		posted = append(posted, when)
		if err := n.Post(ctx, when, time.Now().Add(time.Hour)); err != nil {
			t.Errorf("%s posting fails: %v", when, err)
		}
		list, v, err := n.Posted(ctx, known)
		slices.Sort(list)
		if slices.Sort(posted); err != nil || v == known || !slices.Equal(list, posted) {
			t.Errorf("%s posted is %q of %q, %v", when, list, v, err)
		}
		known = v
		drawn++
		if got, err := n.Draw(ctx, "ann", 100-drawn, 0.001, 100); err != nil || drawn == 1 && got != 99 || drawn == 2 && got != 1 || drawn > 2 && got != 0 {
			t.Errorf("%s %d are drawn, %v", when, got, err)
		}
		if all, err := n.Count(ctx, "ann", when, 1, time.Hour); err != nil || all != drawn {
			t.Errorf("%s %d are counted of %d, %v", when, all, drawn, err)
		}
	}
	_, known, _ = n.Posted(ctx, "")
	works("at first")
	for i, keys := range [][]string{{texts, version}, {version, texts}} { // there and back
		for _, keys := range [][]string{keys, {bucket, count}} {
			slot, _ := strconv.Atoi(servers.Do(0, "cluster", "keyslot", keys[0]))
			from := servers.Owner(0, slot)
			host, port, _ := net.SplitHostPort(servers.Servers[1-from].Addr())
			servers.Begin(slot, from, 1-from)
			way := " on way " + strconv.Itoa(i+1)
			works("before " + keys[0] + way)
			for _, key := range keys {
				servers.Do(from, "migrate", host, port, key, 0, 5000)
				works("with " + key + way)
			}
			servers.End(slot, from, 1-from)
			works("after " + keys[0] + way)
		}
	}
}

// What a server has lost of the board is posted again in a few commands, however much it is: the board is read anew after each, on all nodes.
func TestRedisWhatIsLostOfTheBoardIsPostedTogether(t *testing.T) {
	const texts = 2500
	r := openRedis(t, never)
	ctx, end := t.Context(), time.Now().Add(time.Hour)
	for i := range texts {
		r.Client().ZAdd(ctx, "parley:{%board}:texts", goredis.Z{Score: float64(end.Add(time.Duration(i) * time.Second).UnixMilli()), Member: fmt.Sprint("text ", i)})
	}
	posted := func() {
		t.Helper()
		if list, _, err := r.Posted(ctx, ""); err != nil || len(list) != texts {
			t.Errorf("%d are posted, want %d: %v", len(list), texts, err)
		}
	}
	posted()
	r.Client().Del(ctx, "parley:{%board}:texts")
	if spent := commands(t, r, posted); spent["eval"] > 5 || spent["set"] > 5 {
		t.Errorf("%d are posted again with %v", texts, spent)
	}
	all := r.Client().ZRangeWithScores(ctx, "parley:{%board}:texts", 0, -1).Val()
	if len(all) != texts || all[texts-1].Score != float64(end.Add((texts-1)*time.Second).UnixMilli()) {
		t.Errorf("there are %d again", len(all))
	}
	if life := r.Client().PTTL(ctx, "parley:{%board}:texts").Val(); life < texts*time.Second {
		t.Errorf("all are there for %v", life)
	}
}

// A text of which nobody would hear for a minute is not said to be posted.
func TestRedisWhatIsPostedInVainIsAnError(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openAt(t, limitedURL(server), never)
	for _, command := range []string{"-zadd", "-set"} {
		allow(t, server, "allchannels", command)
		if err := r.Post(t.Context(), "text", time.Now().Add(time.Hour)); err == nil {
			t.Errorf("with %s it is posted", command)
		}
		allow(t, server, "allchannels")
	}
}

// What is new is told though a server refuses to have again what it has lost: each reading is another until it does.
func TestRedisWhatCanNotBePostedAgainHidesNothing(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openAt(t, limitedURL(server), never)
	ctx := t.Context()
	if err := r.Post(ctx, "kept", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	server.Client().Del(ctx, "parley:{%board}:texts", "parley:{%board}:version")
	allow(t, server, "allchannels", "-zadd")
	known, want := "", []string{"kept"}
	for _, text := range []string{"", "new"} {
		if text != "" {
			want = append(want, text)
			server.Client().ZAdd(ctx, "parley:{%board}:texts", goredis.Z{Score: float64(time.Now().Add(time.Hour).UnixMilli()), Member: text})
			server.Client().Set(ctx, "parley:{%board}:version", text, time.Hour)
		}
		list, version, err := r.Posted(ctx, known)
		if slices.Sort(list); err != nil || version == known || !slices.Equal(list, want) {
			t.Errorf("posted is %q of %q, which was %q, %v; want %q", list, version, known, err, want)
		}
		known = version
	}
}
