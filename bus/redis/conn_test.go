package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// A server refuses a subscription with an error in place of confirmations. Were it taken for the answer to a message, all answers
// behind it would be taken for those to others.
func TestRedisARefusedSubscriptionIsNoAnswerToAMessage(t *testing.T) {
	server := bustest.StartRedis(t)
	allow := func(rule ...string) {
		t.Helper()
		args := []any{"ACL", "SETUSER", "node", "on", ">secret", "~*", "+@all"}
		for _, r := range rule {
			args = append(args, r)
		}
		if err := server.Client().Do(context.Background(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	allow("allchannels")
	cfg := redis.Config{
		URL: limitedURL(server), Links: 1,
		HeartbeatInterval: 100 * time.Millisecond, CompareInterval: 200 * time.Millisecond,
	}
	r := openRedis(t, cfg)
	_, told := subscribe(t, r, "lobby")
	allow("resetchannels", "&parley:beat:*", "&"+redis.KeysOf("lobby").Channel)

	acknowledged := make(map[bus.ID]string)
	for round := range 10 { // each in the midst of some messages
		ctx, giveUp := context.WithCancel(t.Context())
		outcome := make(chan error)
		settled := make(chan func(), 10)
		for i := range cap(settled) {
			if i == cap(settled)/2 {
				go func() {
					_, err := r.Subscribe(ctx, "forbidden", &nothing{})
					outcome <- err
				}()
			}
			body := fmt.Sprint("m", round, ".", i)
			r.Publish("lobby", bus.Draft{Body: []byte(body)}, func(id bus.ID, err error) {
				settled <- func() {
					if err == nil {
						acknowledged[id] = body
					}
				}
			})
		}
		for range cap(settled) {
			(<-settled)()
		}
		giveUp()
		if err := <-outcome; !errors.Is(err, bus.ErrUnavailable) {
			t.Errorf("a forbidden subscription: %v", err)
		}
	}
	eventually(t, "the link to work again", func() bool {
		_, err := tryAppend(t, r, "lobby", "the end", "the end")
		return err == nil
	})
	told.until("the end", func(lines []string) bool { return slices.Contains(lines, "the end") })
	page, err := r.After(t.Context(), "lobby", bus.ID{}, 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range page.Messages {
		if said, ok := acknowledged[m.ID]; ok && said != string(m.Body) {
			t.Errorf("%q was acknowledged as %q", m.Body, said)
		}
		delete(acknowledged, m.ID)
	}
	if len(acknowledged) > 0 {
		t.Errorf("acknowledged, and not in the log: %v", acknowledged)
	}
}

// allow gives a user "node" rights to channels, and to all else.
func allow(t *testing.T, server *bustest.RedisServer, rule ...any) {
	t.Helper()
	args := append([]any{"ACL", "SETUSER", "node", "on", ">secret", "~*", "+@all"}, rule...)
	if err := server.Client().Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
}

// limitedURL is where that user connects to.
func limitedURL(server *bustest.RedisServer) string {
	return strings.Replace(server.URL(), "unix://", "unix://node:secret@", 1)
}

// refusals counts how often a command was refused to a user.
func refusals(t *testing.T, server *bustest.RedisServer, command string) (n int) {
	t.Helper()
	denied, err := server.Client().ACLLog(t.Context(), 100).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range denied {
		if e.Object == command {
			n += int(e.Count)
		}
	}
	return n
}

func TestRedisAForbiddenChannelIsNoMatterOfOtherRooms(t *testing.T) {
	const rooms = 700 // more than one command's
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openRedis(t, redis.Config{
		URL: limitedURL(server), Links: 1,
		HeartbeatInterval: 100 * time.Millisecond, CompareInterval: 300 * time.Millisecond,
	})
	all := make(map[string]*listener)
	rights := []any{"resetchannels", "&parley:beat:*"}
	for i := range rooms {
		name := fmt.Sprint("room", i)
		_, all[name] = subscribe(t, r, name)
		if i != 333 {
			rights = append(rights, "&"+redis.KeysOf(name).Channel)
		}
	}
	allow(t, server, rights...)
	r.Reconnect()
	eventually(t, "another connection", func() bool { return r.Sessions() > 1 })
	sessions := r.Sessions()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := r.Subscribe(ctx, "forbidden", &nothing{}); !errors.Is(err, bus.ErrUnavailable) || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("a forbidden subscription: %v", err)
	}
	other := openRedis(t, redis.Config{URL: server.URL()})
	for name, told := range all {
		appendTo(t, other, name, "m", "")
		told.expect("m") // in that which is forbidden now, by comparing it with the log
	}
	eventually(t, "the bus to be ready", func() bool { return r.Ready() == nil })
	if n := r.Sessions(); n != sessions {
		t.Errorf("%d connections were made, %d before", n, sessions)
	}
	allow(t, server, "allchannels")
	eventually(t, "the subscription to be allowed again", func() bool {
		n := server.Client().PubSubNumSub(t.Context(), redis.KeysOf("room333").Channel).Val()
		return n[redis.KeysOf("room333").Channel] == 1
	})
}

// A channel that was forbidden is asked for again and again, and no more once it is allowed.
func TestRedisAChannelThatIsAllowedAgainIsAskedForNoMore(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openRedis(t, redis.Config{
		URL:               limitedURL(server),
		HeartbeatInterval: 100 * time.Millisecond, CompareInterval: 100 * time.Millisecond,
	})
	subscribe(t, r, "lobby")
	calls := func(command string) int { return bustest.Calls(t, server.Client())[command] }
	channel := redis.KeysOf("lobby").Channel
	allow(t, server, "resetchannels", "&parley:beat:*")
	r.Reconnect()
	eventually(t, "some refusals", func() bool {
		denied, err := server.Client().ACLLog(t.Context(), 100).Result()
		return err == nil && slices.ContainsFunc(denied, func(e *goredis.ACLLogEntry) bool { return e.Object == channel && e.Count >= 3 })
	})
	allow(t, server, "allchannels")
	eventually(t, "it to be subscribed to", func() bool {
		return server.Client().PubSubNumSub(t.Context(), channel).Val()[channel] == 1
	})
	heartbeats := func(n int) {
		beats := calls("del")
		eventually(t, "heartbeats", func() bool { return calls("del") >= beats+n })
	}
	heartbeats(5) // what was asked meanwhile has come
	before := calls("subscribe")
	heartbeats(20)
	if n := calls("subscribe") - before; n > 0 {
		t.Errorf("it was asked for %d times more", n)
	}
}

// orderly is a sink that notes which messages it was told.
type orderly struct {
	nothing
	mu   sync.Mutex
	told map[bus.ID]bool // guarded by mu
}

func (o *orderly) Deliver(m bus.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told[m.ID] = true
}

// Where both come together, so that the node can say them to the sender in one write.
func TestRedisTellsAMessageBeforeItsOutcome(t *testing.T) {
	r := openRedis(t, redis.Config{})
	sink := &orderly{told: make(map[bus.ID]bool)}
	if _, err := r.Subscribe(t.Context(), "lobby", sink); err != nil {
		t.Fatal(err)
	}
	const n = 200
	early := 0
	done := make(chan bool)
	for range n {
		r.Publish("lobby", bus.Draft{Body: []byte("m")}, func(id bus.ID, err error) {
			if err != nil {
				t.Error(err)
			}
			sink.mu.Lock()
			defer sink.mu.Unlock()
			done <- sink.told[id]
		})
		if <-done {
			early++
		}
	}
	if early < n*9/10 { // the system may part what the server wrote as one
		t.Errorf("%d of %d messages came before their outcome", early, n)
	}
}

func TestRedisALargeMessageFitsThroughALink(t *testing.T) {
	r := openRedis(t, redis.Config{})
	_, told := subscribe(t, r, "lobby")
	large := strings.Repeat("0123456789", 100_000)
	appendTo(t, r, "lobby", large, "large")
	appendTo(t, r, "lobby", "small", "small")
	told.expect(large, "small")
}

// A batch to a server that forgot the script is sent again; what waits behind it keeps its place.
func TestRedisKeepsTheOrderOfWhatItSendsAgain(t *testing.T) {
	server := bustest.StartRedis(t)
	r := openRedis(t, redis.Config{URL: server.URL()})
	_, told := subscribe(t, r, "lobby")
	var want []string
	var settled sync.WaitGroup
	for i := range 3000 {
		if i == 1000 {
			if err := server.Client().ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		body := fmt.Sprint("m", i)
		want = append(want, body)
		settled.Add(1)
		r.Publish("lobby", bus.Draft{Body: []byte(body)}, func(_ bus.ID, err error) {
			if err != nil {
				t.Error(err)
			}
			settled.Done()
		})
	}
	settled.Wait()
	told.expect(want...)
}

func TestRedisASilentServerIsWaitedForNoLongerThanTheTimeout(t *testing.T) {
	server := bustest.StartRedis(t)
	cfg := redis.Config{
		URL: server.URL(), Links: 1, Timeout: 200 * time.Millisecond, HeartbeatInterval: time.Hour, CompareInterval: time.Hour,
	}
	r := openRedis(t, cfg)
	appendTo(t, r, "lobby", "before", "before")
	<-time.After(2 * cfg.Timeout) // a quiet link is not given up
	appendTo(t, r, "lobby", "after a pause", "after a pause")
	if n := r.Sessions(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
	server.Pause()
	defer server.Resume()
	if _, err := tryAppend(t, r, "lobby", "in vain", "in vain"); !errors.Is(err, bus.ErrUnavailable) {
		t.Error(err)
	}
}
