package redis_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// compared is a node in a room that is compared with Redis only when a test says so.
type compared struct {
	*redis.Bus
	t    *testing.T
	sub  bus.Subscription
	told *listener
}

func openCompared(t *testing.T, cfg redis.Config) *compared {
	t.Helper()
	cfg.CompareInterval = time.Hour
	r := openRedis(t, cfg)
	sub, told := subscribe(t, r, "lobby")
	return &compared{r, t, sub, told}
}

// compares compares the room, and says whether that is to be done again soon.
func (c *compared) compares(when string, again bool) {
	c.t.Helper()
	eventually(c.t, "the room to have all that it knows of", func() bool { return redis.IsLive(c.sub) })
	if got := c.Compare(c.t, c.sub); got != again {
		c.t.Errorf("%s it is compared again soon: %v", when, got)
	}
}

// A message that has not arrived when a room is compared may be on its way. It is compared again soon, and read if it has not then.
func TestRedisAMessageThatHasNotArrivedIsReadAtTheNextComparison(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	c := openCompared(t, redis.Config{URL: limitedURL(server)})
	other := openRedis(t, redis.Config{URL: server.URL()})
	first := appendTo(t, other, "lobby", "first", "")
	c.told.expect("first")
	c.compares("with all that there is", false)
	missed := first
	missed.Seq++
	rewind(t, other, "lobby", first, entry{missed, first, "missed"})
	c.compares("with a message that is missing", true)
	c.told.expect("first")
	c.compares("with a message that has been missing", false)
	c.told.expect("first", "missed")
	c.compares("with all again", false)

	allow(t, server, "allchannels", "-publish")
	appendTo(t, c, "lobby", "lost", "") // and nobody is told
	rewind(t, other, "lobby", missed)
	allow(t, server, "allchannels")
	c.compares("with a message that was acknowledged, and is lost", true)
	c.told.expect("first", "missed")
	c.compares("with a message that has been missing", false)
	c.told.expect("first", "missed", "break")
}

// What the server was found to have after a reconnection proves nothing of a loss that comes later.
func TestRedisALossAfterAReconnectionIsTold(t *testing.T) {
	c := openCompared(t, redis.Config{})
	kept := appendTo(t, c, "lobby", "kept", "")
	next := appendTo(t, c, "lobby", "lost", "")
	c.told.expect("kept", "lost")
	sessions := c.Sessions()
	c.Reconnect()
	eventually(t, "other connections", func() bool { return c.Sessions() > sessions+1 })
	if err := c.sub.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next.Seq++
	rewind(t, c.Bus, "lobby", kept, entry{next, kept, "next"})
	c.compares("with a message that is missing", true)
	c.compares("with a message that has been missing", false)
	c.told.expect("kept", "lost", "break", "next")
}

// So it is with who is there.
func TestRedisAChangeThatHasNotArrivedIsReadAtTheNextComparison(t *testing.T) {
	server := bustest.StartRedis(t)
	c, other := openCompared(t, redis.Config{URL: server.URL()}), openCompared(t, redis.Config{URL: server.URL()})
	ctx, k, inc := t.Context(), redis.KeysOf("lobby"), other.Incarnation()
	other.sub.Enter(bus.Member{ID: "ann"})
	c.told.expect("+ann")
	c.compares("with all that there is", false)

	p := server.Client().TxPipeline()
	p.HIncrBy(ctx, k.Incarnations, inc, 1)
	p.HSet(ctx, other.OwnUsers("lobby"), "bob", "1 bob")
	if _, err := p.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	c.compares("with a change that is missing", true)
	c.told.expect("+ann")
	c.compares("with a change that has been missing", false)
	c.told.expect("+ann", "+bob")
	c.compares("with all again", false)

	p.HDel(ctx, k.Incarnations, inc)
	p.HSet(ctx, k.Incarnations, "x"+inc, time.Now().UnixMilli())
	p.Unlink(ctx, other.OwnUsers("lobby"))
	if _, err := p.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	c.compares("with a reaping that is missing", true)
	c.told.expect("+ann", "+bob")
	c.compares("with a reaping that has been missing", false)
	c.told.expect("+ann", "+bob", "-ann", "-bob")
	c.compares("with nobody", false)
}

// What Redis has lost of who is there, its node writes anew. Nobody leaves for that, unless it takes too long.
func TestRedisWhoIsLostForLongLeaves(t *testing.T) {
	for name, tt := range map[string]struct {
		number int // that Redis has then; 0 for none
		left   []string
	}{
		"all of the incarnation": {0, []string{"-ann", "-bob"}},
		"its latest change":      {1, []string{"-bob"}},
	} {
		t.Run(name, func(t *testing.T) {
			server := bustest.StartRedis(t)
			c, other := openCompared(t, redis.Config{URL: server.URL()}), openCompared(t, redis.Config{URL: server.URL()})
			ctx, k, inc := t.Context(), redis.KeysOf("lobby"), other.Incarnation()
			there := []string{"+ann", "+bob"}
			for i, line := range there {
				other.sub.Enter(bus.Member{ID: line[1:]})
				c.told.expect(there[:i+1]...)
			}
			number, err := server.Client().HGet(ctx, k.Incarnations, inc).Int()
			users := server.Client().HGetAll(ctx, other.OwnUsers("lobby")).Val()
			if err != nil || len(users) != 2 {
				t.Fatal(users, err)
			}
			lose := func() {
				t.Helper()
				p := server.Client().TxPipeline()
				p.HDel(ctx, other.OwnUsers("lobby"), "bob")
				if p.HSet(ctx, k.Incarnations, inc, tt.number); tt.number == 0 {
					p.HDel(ctx, k.Incarnations, inc)
				}
				if _, err := p.Exec(ctx); err != nil {
					t.Fatal(err)
				}
			}
			lose()
			c.compares("with a loss", false)
			redis.AgeLosses(c.sub, 2*time.Hour)
			c.compares("with a loss for a while", false)
			p := server.Client().TxPipeline()
			p.HSet(ctx, k.Incarnations, inc, strconv.Itoa(number))
			p.HSet(ctx, other.OwnUsers("lobby"), users)
			if _, err := p.Exec(ctx); err != nil {
				t.Fatal(err)
			}
			c.compares("with all again", false)
			redis.AgeLosses(c.sub, 2*time.Hour)
			lose()
			c.compares("with another loss", false)
			redis.AgeLosses(c.sub, 2*time.Hour)
			c.compares("with that for a while", false)
			c.told.expect(there...)
			redis.AgeLosses(c.sub, 2*time.Hour)
			c.compares("with a loss for long", false)
			c.told.expect(slices.Concat(there, tt.left)...)
		})
	}
}
