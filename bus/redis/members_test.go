package redis_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"parley/bus/bustest"
	"parley/bus/redis"
)

// What each change of who is in a room answers, publishes and leaves, one after the other.
func TestRedisChangesOfARosterAreMadeInOneStep(t *testing.T) {
	server := bustest.StartRedis(t)
	openRedis(t, redis.Config{URL: server.URL()}) // loads the scripts
	ctx, c, k := t.Context(), server.Client(), redis.KeysOf("lobby")
	const of = "parley:{lobby}:of:"
	channel := c.Subscribe(ctx, k.Channel)
	defer channel.Close()
	if _, err := channel.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	version := time.Now().Add(-time.Second).UnixMilli() * 50 // versions begin later
	many := func(n int) (args []any, published string) {
		for i := range n {
			user := fmt.Sprint(1000 + i)
			args, published = append(args, "+", user, "1 x"), published+"+4 3 "+user+"1 x"
		}
		return args, published
	}
	all, allPublished := many(200)
	tooMany, _ := many(201)
	later, ended := time.Now().Add(time.Hour).UnixMilli(), time.Now().Add(-time.Second).UnixMilli()
	for _, step := range []struct {
		what, inc, kind string
		number, before  int
		leased          int64
		users           []any
		answer          int64
		published       string // after the version; "" for nothing
		left            map[string]string
	}{
		{"the first", "i", "w", 5, 0, later, []any{"+", "ann", "1 Ann", "+", "bob", "1 Bob"}, 5, "3 i 0 5 w+3 5 ann1 Ann+3 5 bob1 Bob", map[string]string{"ann": "1 Ann", "bob": "1 Bob"}},
		{"nothing new", "i", "d", 6, 5, later, []any{"+", "ann", "1 Ann"}, 5, "", map[string]string{"ann": "1 Ann", "bob": "1 Bob"}},
		{"one leaves, one comes", "i", "d", 7, 5, later, []any{"-", "bob", "", "+", "cay", "2 Cay"}, 7, "2 i 5 7 d-3 0 bob+3 5 cay2 Cay", map[string]string{"ann": "1 Ann", "cay": "2 Cay"}},
		{"another name", "i", "d", 8, 7, later, []any{"+", "ann", "3 Eve"}, 8, "1 i 7 8 d+3 5 ann3 Eve", map[string]string{"ann": "3 Eve", "cay": "2 Cay"}},
		{"of what is not the last", "i", "d", 9, 7, later, []any{"-", "ann", ""}, -2, "", map[string]string{"ann": "3 Eve", "cay": "2 Cay"}},
		{"too late for all", "i", "w", 8, 0, later, nil, -1, "", map[string]string{"ann": "3 Eve", "cay": "2 Cay"}},
		{"a change without a lease", "i", "d", 9, 8, ended, []any{"-", "ann", ""}, -1, "", map[string]string{"ann": "3 Eve", "cay": "2 Cay"}},
		{"all without a lease", "i", "w", 9, 8, ended, nil, -1, "", map[string]string{"ann": "3 Eve", "cay": "2 Cay"}},
		{"who is not there leaves", "i", "d", 10, 8, later, []any{"-", "dan", ""}, 10, "1 i 8 10 d-3 0 dan", map[string]string{"ann": "3 Eve", "cay": "2 Cay"}},
		{"all anew", "i", "w", 11, 3, later, []any{"+", "dan", "3 Dan"}, 11, "4 i 10 11 w+3 5 dan3 Dan", map[string]string{"dan": "3 Dan"}},
		{"another incarnation", "j", "d", 1, 0, later, []any{"+", "ann", "1 Ann"}, 1, "1 j 0 1 d+3 5 ann1 Ann", map[string]string{"ann": "1 Ann"}},
		{"a reaping", "i", "x", 0, 0, 0, nil, 11, "2 i 11 11 x", nil},
		{"one more", "i", "x", 0, 0, 0, nil, 0, "", nil},
		{"a change that follows", "i", "d", 12, 11, later, []any{"+", "ann", "1 Ann"}, -3, "", nil},
		{"all that follow", "i", "w", 13, 0, later, []any{"+", "ann", "1 Ann"}, -3, "", nil},
		{"many", "j", "w", 2, 1, later, all, 2, "202 j 1 2 w" + allPublished, nil},
		{"too many to publish", "j", "w", 3, 2, later, tooMany, 3, "402 j 2 3 r", nil},
		{"none", "j", "w", 4, 3, later, nil, 4, "202 j 3 4 w", map[string]string{}},
		{"a reaping of none", "j", "x", 0, 0, 0, nil, 4, "1 j 4 4 x", nil},
	} {
		args := append([]any{k.Channel, step.inc, step.kind, step.number, step.before, time.Hour.Milliseconds(), step.leased}, step.users...)
		before := c.HGetAll(ctx, k.Incarnations).Val()
		answer, err := c.EvalSha(ctx, redis.MembersSHA, []string{k.Incarnations, of + step.inc}, args...).Int64()
		if err != nil || answer != step.answer {
			t.Fatalf("%s: it answers %d, %v; want %d", step.what, answer, err, step.answer)
		}
		c.Publish(ctx, k.Channel, "end")
		m, err := channel.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if published := m.Payload; published != "end" {
			now, rest, _ := strings.Cut(published, " ")
			var steps, number int64
			_, _ = fmt.Sscan(rest, &steps)
			if _, err := fmt.Sscanf(now, "w%d", &number); err != nil || number < version+steps {
				t.Errorf("%s: it is of version %s, and takes %d; the one before was %d", step.what, now, steps, version)
			}
			version = number
			if rest != step.published {
				t.Errorf("%s: it publishes %.200q, want %.200q", step.what, rest, step.published)
			}
			if _, err := channel.ReceiveMessage(ctx); err != nil {
				t.Fatal(err)
			}
		} else if step.published != "" {
			t.Errorf("%s: it publishes nothing", step.what)
		} else if after := c.HGetAll(ctx, k.Incarnations).Val(); step.kind != "x" && !maps.Equal(before, after) {
			t.Errorf("%s: the room's incarnations are %v, and were %v", step.what, after, before)
		}
		if left := c.HGetAll(ctx, of+step.inc).Val(); step.left != nil && !maps.Equal(left, step.left) {
			t.Errorf("%s: it leaves %v, want %v", step.what, left, step.left)
		}
		if there := c.Exists(ctx, of+step.inc).Val() > 0 || c.HExists(ctx, k.Incarnations, step.inc).Val(); there && step.kind == "x" {
			t.Errorf("%s: something of it is left", step.what)
		}
		for _, key := range c.Keys(ctx, "parley:{lobby}:*").Val() {
			if life := c.PTTL(ctx, key).Val(); life <= 0 || life > time.Hour {
				t.Errorf("%s: %s lives for %v", step.what, key, life)
			}
		}
	}
}

// What is read of a roster: incarnations whose number is another than the one that is known, and no more of their users than wanted.
func TestRedisARosterIsReadAsFarAsItIsNotKnown(t *testing.T) {
	server := bustest.StartRedis(t)
	openRedis(t, redis.Config{URL: server.URL()}) // loads the scripts
	ctx, c, k := t.Context(), server.Client(), redis.KeysOf("lobby")
	const of = "parley:{lobby}:of:"
	c.HSet(ctx, k.Incarnations, "i", 5, "j", 7, "v", 100, "xk", 1)
	c.HSet(ctx, of+"i", "ann", "1 Ann")
	c.HSet(ctx, of+"j", "bob", "1 Bob", "cay", "1 Cay")
	for _, tt := range []struct {
		most  int
		known []any
		users map[string]int64 // that are read; all are counted
	}{
		{0, nil, map[string]int64{"i": 1, "j": 2}},
		{0, []any{"i", 5}, map[string]int64{"j": 2}},
		{0, []any{"i", 4, "j", 7, "gone", 1}, map[string]int64{"i": 1}},
		{0, []any{"i", 5, "j", 7}, map[string]int64{}},
		{1, nil, map[string]int64{"i": 1, "j": 1}},
		{2, nil, map[string]int64{"i": 1, "j": 2}},
	} {
		what := fmt.Sprint("at most ", tt.most, " but ", tt.known)
		answer, err := c.EvalSha(ctx, redis.RosterSHA, []string{k.Incarnations}, append([]any{of, tt.most}, tt.known...)...).Slice()
		if err != nil || len(answer) == 0 || len(answer[0].([]any)) != 8 {
			t.Fatalf("%s: it answers %v, %v", what, answer, err)
		}
		read, counts := make(map[string]int64), map[string]int64{"i": 1, "j": 2}
		for _, e := range answer[1:] {
			f := e.([]any)
			inc, users := f[0].(string), f[2].([]any)
			read[inc] = int64(len(users) / 2)
			if f[1] != counts[inc] {
				t.Errorf("%s: it counts %v in %s, want %d", what, f[1], inc, counts[inc])
			}
			for i := 0; i+1 < len(users); i += 2 {
				if is := c.HGet(ctx, of+inc, users[i].(string)).Val(); is != users[i+1] {
					t.Errorf("%s: %v is %v, want %q", what, users[i], users[i+1], is)
				}
			}
		}
		if !maps.Equal(read, tt.users) {
			t.Errorf("%s: it reads %v, want %v", what, read, tt.users)
		}
	}
}
