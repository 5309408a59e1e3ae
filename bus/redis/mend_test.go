package redis_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// After a reconnection a link asks about each of its rooms, and not all at once. What is said meanwhile waits only for the question
// about its own room.
func TestRedisWhatIsSaidWaitsForTheQuestionAboutItsRoomOnly(t *testing.T) {
	const rooms = redis.MendAwaited + 300
	server := bustest.StartRedis(t)
	cfg := redis.Config{URL: server.URL(), Links: 1, Timeout: patience, HeartbeatInterval: patience}
	p := &tap{release: make(chan struct{})}
	cfg.SetDial(p.dial)
	r := openRedis(t, cfg)
	subs := make([]bus.Subscription, rooms)
	var joined sync.WaitGroup
	for i := range rooms {
		joined.Go(func() { subs[i], _ = subscribe(t, r, fmt.Sprint("room", i)) })
	}
	joined.Wait()

	p.holds.Store(true)
	r.Reconnect()
	questions := func() int { return strings.Count(p.wrote(), redis.MendSHA) }
	eventually(t, "the questions", func() bool { return questions() >= redis.MendAwaited })
	late := ""
	for i := range rooms {
		if name := fmt.Sprint("room", i); !strings.Contains(p.wrote(), redis.KeysOf(name).Log) {
			late = name
		}
	}
	said := make(chan error, 1)
	r.Publish(late, bus.Draft{Body: []byte("what is said")}, func(_ bus.ID, err error) { said <- err })
	eventually(t, "what is said to leave", func() bool { return strings.Contains(p.wrote(), "what is said") })
	if n := questions(); n != redis.MendAwaited+1 {
		t.Errorf("%d questions are not answered", n)
	}
	_, after, _ := strings.Cut(p.wrote()[:strings.Index(p.wrote(), "what is said")], redis.KeysOf(late).Log)
	if !strings.Contains(after, redis.KeysOf(late).Log) {
		t.Error("the message left before the question about its room")
	}
	close(p.release)
	if err := <-said; err != nil {
		t.Errorf("what is said: %v", err)
	}
	for _, s := range subs {
		eventually(t, "all rooms to be read", func() bool { return redis.IsLive(s) })
	}
	if n := questions(); n < rooms {
		t.Errorf("%d questions about %d rooms", n, rooms)
	}
}

// Where a log broke is what the node knows of it, and nothing that was appended while the node was still at the old primary: there the
// ids are below those of what the node knows.
func TestRedisALogBreaksBeforeAllThatIsNewToTheNode(t *testing.T) {
	server := bustest.StartRedis(t)
	openRedis(t, redis.Config{URL: server.URL()}) // loads the scripts
	ctx, c, now := t.Context(), server.Client(), time.Now().UnixMilli()
	at := func(ago time.Duration) string { return fmt.Sprint(now-ago.Milliseconds(), "-1") }
	both, marker, fresh := at(5*time.Second), at(3*time.Second), at(2500*time.Millisecond)
	var lost []any // newest first, more than a node remembers
	for i := range 16 {
		lost = append(lost, at(time.Second+time.Duration(i)*time.Millisecond))
	}
	for name, tt := range map[string]struct {
		marker string // of another node, which was here first
		acked  any
		known  []any
		want   string
	}{
		"what it knows last":                    {marker, "", append(lost[:3:3], both), both},
		"all that it remembers is lost":         {marker, "", lost, both},
		"it was acknowledged, and not heard":    {marker, lost[0], []any{both}, both},
		"the marker is of a break long before":  {at(5 * time.Minute), "", lost, fresh},
		"there is none, and all of it is lost":  {"", "", lost, fresh},
		"there is none, and it was not heard":   {"", lost[0], []any{both}, both},
		"it only published, and knows no entry": {"", lost[0], []any{"0-0"}, fresh},
	} {
		t.Run(name, func(t *testing.T) {
			k := redis.KeysOf(name)
			prev, first := "0-0", both
			add := func(id, kind, body string) {
				if err := c.Do(ctx, "xadd", k.Log, id, kind, prev+" "+body).Err(); err != nil {
					t.Fatal(err)
				}
				prev = id
			}
			if tt.marker < both && tt.marker != "" {
				first = at(6 * time.Minute)
				add(first, "m", "before")
				add(tt.marker, "g", first)
			}
			add(both, "m", "both")
			if tt.marker == marker {
				add(marker, "g", both)
			}
			add(fresh, "m", "fresh")
			c.Set(ctx, k.Last, fresh, time.Hour)
			if tt.marker != "" {
				c.Set(ctx, k.Break, tt.marker+" "+first, time.Hour)
			}
			args := []any{k.Channel, "", 1, 1000, time.Hour.Milliseconds(), time.Hour.Milliseconds(), 1 << 20, tt.acked}
			answer, err := c.EvalSha(ctx, redis.MendSHA, []string{k.Log, k.Last, k.Records[0], k.Records[1], k.Break}, append(args, spaced(tt.known))...).Slice()
			if err != nil || len(answer) != 2 || answer[1] != tt.want {
				t.Errorf("it answers %v (%v), want a break after %s", answer, err, tt.want)
			}
		})
	}
}

// A marker that another node wrote is told again, but where the node knows of something lost that is newer: who heard of the marker has
// not been told of that.
func TestRedisAMarkerTellsOfNothingThatIsNewer(t *testing.T) {
	server := bustest.StartRedis(t)
	openRedis(t, redis.Config{URL: server.URL()}) // loads the scripts
	ctx, c, now := t.Context(), server.Client(), time.Now().UnixMilli()
	at := func(ago time.Duration) string { return fmt.Sprint(now-ago.Milliseconds(), "-1") }
	both, older, marker, newer := at(5*time.Second), at(4*time.Second), at(3*time.Second), at(time.Second)
	for name, tt := range map[string]struct {
		acked any
		known []any
		again bool
	}{
		"it heard of what came before":             {"", []any{older, both}, true},
		"it heard of what came after":              {"", []any{newer, older, both}, false},
		"what came before was acknowledged":        {older, []any{both}, true},
		"what came after was acknowledged":         {newer, []any{both}, false},
		"what came after was, it heard of another": {newer, []any{older, both}, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := redis.KeysOf(name)
			c.XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, ID: both, Values: []any{"m", "0-0 both"}})
			c.XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, ID: marker, Values: []any{"g", both + " " + both}})
			c.Set(ctx, k.Last, marker, time.Hour)
			c.Set(ctx, k.Break, marker+" "+both, time.Hour)
			args := []any{k.Channel, "", 1, 1000, time.Hour.Milliseconds(), time.Hour.Milliseconds(), 1 << 20, tt.acked, spaced(tt.known)}
			answer, err := c.EvalSha(ctx, redis.MendSHA, []string{k.Log, k.Last, k.Records[0], k.Records[1], k.Break}, args...).Slice()
			if err != nil || len(answer) != 2 || answer[1] != both || (answer[0] == marker) != tt.again {
				t.Errorf("it answers %v (%v); the marker was %s, and is told again: %v", answer, err, marker, tt.again)
			}
		})
	}
}

// What a room that was left has lost is asked again where the server refused to say so: who comes back is told then.
func TestRedisALossThatCouldNotBeNotedIsNotedLater(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	cfg := often
	cfg.URL = strings.Replace(server.URL(), "unix://", "unix://node:secret@", 1)
	r := openRedis(t, cfg)
	sub, told := subscribe(t, r, "lobby")
	kept := appendTo(t, r, "lobby", "kept", "")
	lost := appendTo(t, r, "lobby", "lost", "")
	told.expect("kept", "lost")
	sub.Close()
	r.Cut(func() {
		rewind(t, r, "lobby", kept)
		allow(t, server, "allchannels", "-xadd")
	})
	eventually(t, "a refusal", func() bool {
		denied, err := server.Client().ACLLog(t.Context(), 100).Result()
		return err == nil && slices.ContainsFunc(denied, func(e *goredis.ACLLogEntry) bool { return e.Object == "xadd" })
	})
	allow(t, server, "allchannels")
	eventually(t, "the loss to be noted", func() bool {
		p, err := r.After(t.Context(), "lobby", lost, 10, 0)
		return err == nil && !p.LastBreak.IsZero()
	})
}

// What was asked about a room that nobody was in may be answered while somebody comes, who asks anew.
func TestRedisALateAnswerAboutARoomIsNobodys(t *testing.T) {
	r := openRedis(t, redis.Config{})
	appendTo(t, r, "lobby", "hi", "")
	answer := r.AnswersAboutTrail("lobby")
	came, over := make(chan struct{}), make(chan struct{})
	r.Cut(func() {
		go func() {
			defer close(came)
			subscribe(t, r, "lobby")
		}()
		eventually(t, "somebody to come", func() bool { return !r.HasTrail("lobby") })
		go func() {
			defer close(over)
			for {
				select {
				case <-came:
					return
				default:
					answer("1-1")
				}
			}
		}()
	})
	<-came
	<-over
}

func spaced(ids []any) (s string) {
	for _, id := range ids {
		s += fmt.Sprint(id, " ")
	}
	return s
}

// A tap notes what is written to the connections that subscribe while it holds, of which nothing is read until the release.
type tap struct {
	holds   atomic.Bool
	release chan struct{}

	mu      sync.Mutex
	written strings.Builder // guarded by mu
}

func (p *tap) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return &tapped{Conn: c, tap: p}, err
}

func (p *tap) wrote() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.written.String()
}

type tapped struct {
	net.Conn
	tap  *tap
	held atomic.Bool
}

func (c *tapped) Write(b []byte) (int, error) {
	p := c.tap
	if p.holds.Load() && strings.Contains(string(b), "SUBSCRIBE") {
		c.held.Store(true)
	}
	if c.held.Load() {
		p.mu.Lock()
		p.written.Write(b)
		p.mu.Unlock()
	}
	return c.Conn.Write(b)
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.held.Load() {
		select {
		case <-c.tap.release:
		case <-time.After(patience):
		}
	}
	return n, err
}
