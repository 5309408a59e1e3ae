package redis_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus/bustest"
	"parley/bus/redis"
)

// An appender calls the script that appends to rooms.
type appender struct {
	t       *testing.T
	c       *goredis.Client
	channel *goredis.PubSub
}

func newAppender(t *testing.T) *appender {
	server := bustest.StartRedis(t)
	openRedis(t, redis.Config{URL: server.URL()})
	a := &appender{t: t, c: server.Client()}
	eventually(t, "the script to be loaded", func() bool { return slices.Contains(a.c.ScriptExists(t.Context(), redis.AppendSHA).Val(), true) })
	a.channel = a.c.PSubscribe(t.Context(), "parley:0:*")
	t.Cleanup(func() { _ = a.channel.Close() })
	if _, err := a.channel.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

// adds appends messages, each a body, a key and a sum, where no more than so many are kept. It gives the answers, and what was published
// meanwhile.
func (a *appender) adds(k redis.Keys, floor string, random, kept int, messages ...any) (answers []any, published []string) {
	a.t.Helper()
	ctx := a.t.Context()
	args := append([]any{k.Channel, floor, random, kept, time.Hour.Milliseconds(), (2 * time.Hour).Milliseconds(), 1 << 20}, messages...)
	answers, err := a.c.EvalSha(ctx, redis.AppendSHA, []string{k.Log, k.Last, k.Records[0], k.Records[1], k.Break}, args...).Slice()
	if err != nil {
		a.t.Fatal(err)
	}
	a.c.Publish(ctx, k.Channel, "end")
	for {
		m, err := a.channel.ReceiveMessage(ctx)
		if err != nil {
			a.t.Fatal(err)
		}
		if m.Payload == "end" {
			return answers, published
		}
		published = append(published, m.Payload)
	}
}

// An entry's id is greater than all that came before, and names the one before it: whatever the clock says, what the node has seen
// elsewhere, and what is left of the log and of the key that names its end.
func TestRedisIDsFollowWhatCameBefore(t *testing.T) {
	a := newAppender(t)
	ctx, now := t.Context(), time.Now().UnixMilli()
	ahead := func(ms int64, seq int) string { return fmt.Sprint(now+time.Hour.Milliseconds()+ms, "-", seq) }
	behind := fmt.Sprint(now-time.Hour.Milliseconds(), "-7")
	const random = 3
	for name, tt := range map[string]struct {
		last, log, trimmed, floor string
		prev, want                string // want is "" for an id of the clock's
	}{
		"an empty room":                          {"", "", "", "", "0-0", ""},
		"an empty room of which more is known":   {"", "", "", ahead(0, 5), "0-0", ahead(0, 9)},
		"after the last":                         {behind, behind, "", "", behind, ""},
		"the last is that which is known":        {ahead(0, 5), ahead(0, 5), "", ahead(0, 5), ahead(0, 5), ahead(0, 9)},
		"the clock lags":                         {ahead(0, 5), ahead(0, 5), "", "", ahead(0, 5), ahead(0, 9)},
		"it lags, and little was known":          {ahead(0, 5), ahead(0, 5), "", behind, ahead(0, 5), ahead(0, 9)},
		"it lags, and more is known":             {ahead(0, 5), ahead(0, 5), "", ahead(0, 20), ahead(0, 5), ahead(0, 24)},
		"it lags, and less is known":             {ahead(0, 5), ahead(0, 5), "", ahead(0, 4), ahead(0, 5), ahead(0, 9)},
		"it lags, and what is later is known":    {ahead(0, 5), ahead(0, 5), "", ahead(1, 2), ahead(0, 5), ahead(1, 6)},
		"it lags, and what is earlier is known":  {ahead(0, 5), ahead(0, 5), "", ahead(-1, 50), ahead(0, 5), ahead(0, 9)},
		"no more numbers":                        {ahead(0, 1e14-1), "", "", "", ahead(0, 1e14-1), ahead(1, random)},
		"just enough numbers":                    {ahead(0, 1e14-5), "", "", "", ahead(0, 1e14-5), ahead(0, 1e14-1)},
		"the last is forgotten":                  {"", ahead(0, 5), "", "", ahead(0, 5), ahead(0, 9)},
		"the last is behind the log":             {behind, ahead(0, 5), "", "", ahead(0, 5), ahead(0, 9)},
		"the last is behind what was in the log": {behind, behind, ahead(0, 5), "", ahead(0, 5), ahead(0, 9)},
	} {
		t.Run(name, func(t *testing.T) {
			k := redis.KeysOf(name)
			for _, id := range []string{tt.log, tt.trimmed} {
				if id != "" {
					a.c.XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, ID: id, Values: []any{"m", "0-0 before"}})
				}
			}
			if tt.trimmed != "" {
				a.c.XDel(ctx, k.Log, tt.trimmed)
			}
			if tt.last != "" {
				a.c.Set(ctx, k.Last, tt.last, time.Hour)
			}
			answers, published := a.adds(k, tt.floor, random, 1000, "one", "", "", "two", "", "")
			if len(answers) != 2 || len(published) != 2 {
				t.Fatalf("it answers %v, and publishes %q", answers, published)
			}
			first, second := answers[0].(string), answers[1].(string)
			ms, seq, _ := strings.Cut(first, "-")
			if tt.want == "" {
				var at int64
				if _, _ = fmt.Sscan(ms, &at); at < now-1000 || at > time.Now().Add(time.Second).UnixMilli() || seq != fmt.Sprint(random) {
					t.Errorf("the first is %s, want one of %d", first, now)
				}
			} else if first != tt.want {
				t.Errorf("the first is %s, want %s", first, tt.want)
			}
			if tt.want != "" && !strings.HasPrefix(tt.want, fmt.Sprint(now+time.Hour.Milliseconds()+1)) && !strings.HasSuffix(tt.want, fmt.Sprint(int64(1e14-1))) {
				var n int
				if _, _ = fmt.Sscan(seq, &n); second != ms+"-"+fmt.Sprint(n+1+random) {
					t.Errorf("the second is %s after %s", second, first)
				}
			}
			if want := []string{"m" + first + " " + tt.prev + " one", "m" + second + " " + first + " two"}; !slices.Equal(published, want) {
				t.Errorf("it publishes %q, want %q", published, want)
			}
			entries := a.c.XRevRangeN(ctx, k.Log, "+", "-", 2).Val()
			if len(entries) != 2 || entries[0].ID != second || entries[1].ID != first || entries[0].Values["m"] != first+" two" || entries[1].Values["m"] != tt.prev+" one" {
				t.Errorf("the log ends with %v", entries)
			}
			if last := a.c.Get(ctx, k.Last).Val(); last != second {
				t.Errorf("the last is %s, want %s", last, second)
			}
			if life := a.c.PTTL(ctx, k.Last).Val(); life <= time.Hour || life > 2*time.Hour {
				t.Errorf("the last lives for %v", life)
			}
			if life := a.c.PTTL(ctx, k.Log).Val(); tt.log == "" && (life <= time.Hour || life > 70*time.Minute) {
				t.Errorf("the log lives for %v", life)
			}
		})
	}
}

// A message that is sent again is the same message, in the same batch as well, and though the records of its time are the older ones. It
// is a conflict where it is another.
func TestRedisARepeatIsAnsweredFromItsRecord(t *testing.T) {
	a := newAppender(t)
	ctx, k := t.Context(), redis.KeysOf("lobby")
	const this, other = "12345678", "87654321"
	answers, published := a.adds(k, "", 3, 1000, "one", "a", this, "one", "a", this, "two", "b", this, "another", "a", other)
	if len(answers) != 4 || len(published) != 2 || answers[1] != answers[0] || answers[2] == answers[0] || answers[3] != int64(0) {
		t.Fatalf("it answers %v, and publishes %q", answers, published)
	}
	one, two := answers[0], answers[2]
	again := func(when string) {
		t.Helper()
		a.c.Set(ctx, k.Last, two, time.Minute)
		answers, published := a.adds(k, "", 3, 1000, "two", "b", this, "one", "a", this, "another", "b", other)
		if want := []any{two, one, int64(0)}; !slices.Equal(answers, want) || len(published) > 0 {
			t.Errorf("%s it answers %v, and publishes %q; want %v", when, answers, published, want)
		}
		if life := a.c.PTTL(ctx, k.Last).Val(); life <= time.Hour {
			t.Errorf("%s nothing is written for replicas to have", when)
		}
	}
	again("soon")
	for _, records := range k.Records {
		if life := a.c.PTTL(ctx, records).Val(); life != -2 && (life <= 10*time.Minute || life > 2*605*time.Second) {
			t.Errorf("the records live for %v", life)
		}
	}
	for from, to := range map[string]string{k.Records[0]: k.Records[1], k.Records[1]: k.Records[0]} {
		if a.c.Exists(ctx, from).Val() == 1 {
			a.c.Rename(ctx, from, to)
			break
		}
	}
	again("late")
	if n := a.c.XLen(ctx, k.Log).Val(); n != 2 {
		t.Errorf("the log has %d entries, want 2", n)
	}
	if answers, _ := a.adds(k, "", 3, 1, "three", "", this, "four", "", this); len(answers) != 2 || answers[0] == answers[1] || a.c.XLen(ctx, k.Log).Val() != 1 {
		t.Errorf("without keys it answers %v, and keeps %d where one is to be kept", answers, a.c.XLen(ctx, k.Log).Val())
	}
}
