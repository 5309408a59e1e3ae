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

// Where the log that a node comes back to was trimmed past what it knows, it is told of a loss if this is another server: its chain goes on
// from what the node knows, but others may have heard of more. So it is where the server can't note that at first, and where the room is
// compared with it before a link can ask.
func TestRedisWhatIsTrimmedOnAnotherServerIsTold(t *testing.T) {
	for name, tt := range map[string]struct {
		elsewhere, refuses, compared bool
		told                         []string
	}{
		"the same server":                   {false, false, false, []string{"known", "next"}},
		"another server":                    {true, false, false, []string{"known", "break", "next"}},
		"another server, which is full yet": {true, true, false, []string{"known", "break", "next"}},
		"another server, compared first":    {true, false, true, []string{"known", "break", "next"}},
	} {
		t.Run(name, func(t *testing.T) {
			server := bustest.StartRedis(t)
			allow(t, server, "allchannels")
			cfg := slow
			if tt.refuses {
				cfg = often // and so asks again soon where nobody is
			}
			cfg.URL = limitedURL(server)
			r := openRedis(t, cfg)
			sub, told := subscribe(t, r, "lobby")
			known := map[string]bus.ID{"lobby": appendTo(t, r, "lobby", "known", ""), "left": appendTo(t, r, "left", "known", "")}
			told.expect("known")
			if tt.elsewhere {
				r.Elsewhere(0)
			}
			r.Cut(func() {
				for room, id := range known {
					next := id
					next.Seq++
					rewind(t, r, room, id, entry{next, id, "next"})
					if err := r.Client().XDel(t.Context(), redis.KeysOf(room).Log, id.String()).Err(); err != nil {
						t.Fatal(err)
					}
				}
				if tt.refuses {
					allow(t, server, "allchannels", "-xadd")
				}
				if tt.compared {
					r.Compare(t, sub)
					r.Compare(t, sub) // by now it seems to lack something
					eventually(t, "it to be read, if it is", func() bool { return !redis.IsRead(sub) })
				}
			})
			if tt.refuses {
				eventually(t, "refusals", func() bool { return refusals(t, server, "xadd") >= len(known) })
				allow(t, server, "allchannels")
			}
			told.expect(tt.told...)
			broken := func() bool {
				p, err := r.After(t.Context(), "left", known["left"], 10, 0)
				return err == nil && !p.LastBreak.IsZero()
			}
			if tt.elsewhere {
				eventually(t, "the loss where nobody is to be noted", broken)
			} else if broken() {
				t.Error("a loss is noted of a room that nobody is in")
			}
		})
	}
}

// So it is however long no server could be reached in between: what counts is for how long the node knew it from the one before.
func TestRedisWhatIsTrimmedDuringALongOutageIsTold(t *testing.T) {
	const outage = 2 * time.Minute
	for name, tt := range map[string]struct {
		before time.Duration // that the node knew it, of the server that was left
		told   []string
	}{
		"known just before it": {time.Second, []string{"break", "next"}},
		"known for long":       {2 * time.Minute, []string{"next"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := openRedis(t, slow)
			known := bus.ID{Ms: uint64(time.Now().Add(-outage - tt.before).UnixMilli()), Seq: 1}
			rewind(t, r, "lobby", bus.ID{}, entry{known, bus.ID{}, "known"})
			_, told := subscribe(t, r, "lobby")
			r.Elsewhere(outage)
			r.Cut(func() {
				next := known
				next.Seq++
				rewind(t, r, "lobby", bus.ID{}, entry{next, known, "next"})
			})
			told.expect(tt.told...)
		})
	}
}

// What was acknowledged and did not arrive is told as lost, too, where the room was left before that was noticed.
func TestRedisALossIsNotedThoughTheRoomWasLeft(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openAt(t, limitedURL(server), never)
	sub, told := subscribe(t, r, "lobby")
	kept := appendTo(t, r, "lobby", "kept", "")
	told.expect("kept")
	allow(t, server, "allchannels", "-publish")
	lost := appendTo(t, r, "lobby", "lost", "") // and nobody is told
	allow(t, server, "allchannels")
	sub.Close()
	r.Cut(func() { rewind(t, r, "lobby", kept) })
	eventually(t, "the loss to be noted", func() bool {
		p, err := r.After(t.Context(), "lobby", lost, 10, 0)
		return err == nil && !p.LastBreak.IsZero()
	})
}

// Whoever saw what is lost has less than the marker, also where the clock is behind and the room was left.
func TestRedisAMarkerFollowsWhatIsLostThoughTheRoomWasLeft(t *testing.T) {
	server := bustest.StartRedis(t)
	r := openAt(t, server.URL(), never)
	redis.ClockBack(t, server.URL(), "lobby")
	sub, told := subscribe(t, r, "lobby")
	lost := appendTo(t, r, "lobby", "lost", "")
	told.expect("lost")
	sub.Close()
	k := redis.KeysOf("lobby")
	if err := server.Client().Del(t.Context(), k.Log, k.Last).Err(); err != nil {
		t.Fatal(err)
	}
	subscribe(t, r, "lobby")
	p, err := r.After(t.Context(), "lobby", bus.ID{}, 10, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !lost.Less(p.LastBreak) {
		t.Errorf("the marker is %v, and %v was lost", p.LastBreak, lost)
	}
}

// The questions about rooms in which much was said do not leave all at once: what is said elsewhere does not wait for megabytes of them.
func TestRedisQuestionsThatAreLongLeaveInPieces(t *testing.T) {
	server := bustest.StartRedis(t)
	cfg := redis.Config{URL: server.URL(), Links: 1}
	p := &tap{release: make(chan struct{})}
	close(p.release)
	cfg.SetDial(p.dial)
	r := openRedis(t, cfg)
	var subs []bus.Subscription
	long := 0
	for all := 0; all < 3*redis.MendBytes; all += long {
		s, _ := subscribe(t, r, fmt.Sprint("room", len(subs)))
		long = redis.Remember(s)
		subs = append(subs, s)
	}
	p.holds.Store(true)
	r.Reconnect()
	eventually(t, "all to be asked about", func() bool { return strings.Count(p.wrote(), redis.MendSHA) >= len(subs) })
	for _, s := range subs {
		eventually(t, "all rooms to be read", func() bool { return redis.IsLive(s) })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if most := redis.MendBytes + 2*long; p.largest > most {
		t.Errorf("a write has %d bytes, want at most %d", p.largest, most)
	}
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

// What a node knows of a room that it has left, or only published to, it knows for ten minutes, and not for ever.
func TestRedisRoomsThatANodeHasLeftAreForgotten(t *testing.T) {
	r := openRedis(t, redis.Config{CompareInterval: 100 * time.Millisecond})
	known := func(rooms ...string) bool {
		return !slices.ContainsFunc(rooms, func(room string) bool { return !r.HasTrail(room) })
	}
	sub, told := subscribe(t, r, "left")
	sub.Enter(bus.Member{ID: "ann"})
	told.change(bus.Joined, "ann")
	appendTo(t, r, "left", "m", "")
	sub.Close()
	appendTo(t, r, "published to", "m", "")
	r.AgeTrails(9 * time.Minute)
	appendTo(t, r, "used again", "m", "")
	if !known("left", "published to", "used again") {
		t.Error("one is forgotten too early")
	}
	r.AgeTrails(2 * time.Minute)
	eventually(t, "them to be forgotten", func() bool { return !r.HasTrail("left") && !r.HasTrail("published to") })
	if !known("used again") {
		t.Error("one that was used since is forgotten")
	}
	eventually(t, "who was in it to be forgotten", func() bool { return r.Rosters() == 0 })
}

// A link that has a new connection forgets nothing that is to be asked: who comes to a room just then is not kept waiting.
func TestRedisWhoComesAsALinkBeginsIsNotForgotten(t *testing.T) {
	r := openRedis(t, never)
	appendTo(t, r, "lobby", "m", "") // so that there is something to be asked
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.SubscribeAsALinkBegins(ctx, "lobby", &nothing{}); err != nil {
		t.Error(err)
	}
}

// A room is subscribed to before anything is asked about it: a connection that is made in between knows of it, and asks.
func TestRedisARoomIsSubscribedToBeforeItIsAskedAbout(t *testing.T) {
	r := openRedis(t, never)
	appendTo(t, r, "lobby", "m", "")
	ctx, cancel := context.WithTimeout(t.Context(), patience/4)
	defer cancel()
	if err := r.SubscribeUnasked(ctx, "lobby", &nothing{}); err != nil {
		t.Error(err)
	}
}

// A tap notes what is written to the connections that subscribe while it holds, of which nothing is read until the release.
type tap struct {
	holds   atomic.Bool
	release chan struct{}

	mu      sync.Mutex
	written strings.Builder // guarded by mu
	largest int             // guarded by mu; bytes in one write
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
		p.largest = max(p.largest, len(b))
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

// What was acknowledged and not delivered may be lost between the answer that the log has it and the read of the log. It is not
// forgotten for that: the log is asked about again.
func TestRedisWhatIsLostBeforeItIsReadIsTold(t *testing.T) {
	for _, follows := range []string{"nothing", "another message"} {
		t.Run(follows+" follows", func(t *testing.T) {
			t.Parallel()
			server := bustest.StartRedis(t)
			allow(t, server, "allchannels")
			before := appendTo(t, openRedis(t, redis.Config{URL: server.URL()}), "lobby", "before", "")
			read := newBrake("(" + before.String()) // of what follows
			cfg := redis.Config{URL: limitedURL(server), HeartbeatInterval: time.Hour}
			cfg.SetDial(read.dial)
			r := openRedis(t, cfg)
			_, told := subscribe(t, r, "lobby")
			allow(t, server, "allchannels", "-publish") // so that it does not arrive
			lost := appendTo(t, r, "lobby", "lost", "")
			r.Reconnect()
			select {
			case <-read.reached:
			case <-time.After(patience):
				t.Fatal("the log is not read")
			}
			want := []string{"break"}
			if follows == "nothing" {
				rewind(t, r, "lobby", before)
			} else {
				next := lost
				next.Seq++
				rewind(t, r, "lobby", before, entry{next, before, "next"})
				want = append(want, "next")
			}
			allow(t, server, "allchannels")
			close(read.release)
			told.until("what was lost", func(lines []string) bool { return slices.Equal(lines, want) })
		})
	}
}
