package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// often has rooms compared with Redis in no time.
var often = redis.Config{CompareInterval: 30 * time.Millisecond}

// An entry is a message as the log has it.
type entry struct {
	id, prev bus.ID
	body     string
}

// rewind makes the room's log end with the entry last, as on a promoted replica that lacks the rest, and with what was
// published there by a node that knows nothing of what is lost. Nothing of that is published.
func rewind(t *testing.T, r *redis.Bus, room string, last bus.ID, unaware ...entry) {
	t.Helper()
	ctx, k := context.Background(), redis.KeysOf(room)
	entries, err := r.Client().XRange(ctx, k.Log, "-", last.String()).Result()
	if err != nil {
		t.Fatal(err)
	}
	p := r.Client().TxPipeline()
	p.Del(ctx, k.Log, k.Break)
	for _, e := range entries {
		for field, text := range e.Values {
			p.XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, ID: e.ID, Values: []any{field, text}})
		}
	}
	for _, e := range unaware {
		p.XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, ID: e.id.String(), Values: []any{"m", e.prev.String() + " " + e.body}})
		last = e.id
	}
	p.Set(ctx, k.Last, last.String(), time.Hour)
	if _, err := p.Exec(ctx); err != nil {
		t.Fatal(err)
	}
}

// slow is a configuration that compares nothing, so that a test may change the log in peace.
var slow = redis.Config{CompareInterval: time.Hour}

func TestRedisBreakIsWhereTheLogForked(t *testing.T) {
	for name, c := range map[string]struct {
		ids  func(m [4]bus.ID) []bus.ID // of what was published unaware, after m[1]
		want []string
	}{
		"ids above what is lost": {
			func(m [4]bus.ID) []bus.ID { return []bus.ID{{Ms: m[3].Ms + 1}, {Ms: m[3].Ms + 2}} },
			[]string{"m0", "m1", "m2", "m3", "break", "x0", "x1"},
		},
		"ids in the midst of what is lost": {
			func(m [4]bus.ID) []bus.ID {
				return []bus.ID{{Ms: m[1].Ms, Seq: m[1].Seq + 1}, {Ms: m[1].Ms, Seq: m[1].Seq + 2}}
			},
			[]string{"m0", "m1", "m2", "m3", "break", "x0", "x1"},
		},
		"ids below and above": {
			func(m [4]bus.ID) []bus.ID { return []bus.ID{{Ms: m[1].Ms, Seq: m[1].Seq + 1}, {Ms: m[3].Ms + 2}} },
			[]string{"m0", "m1", "m2", "m3", "break", "x0", "x1"},
		},
		"nothing was published": {
			func(m [4]bus.ID) []bus.ID { return nil },
			[]string{"m0", "m1", "m2", "m3", "break"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := openRedis(t, slow)
			sub, told := subscribe(t, r, "lobby")
			var m [4]bus.ID
			for i := range m {
				m[i] = bus.ID{Ms: uint64(time.Now().UnixMilli() + 10*int64(i)), Seq: 5}
			}
			rewind(t, r, "lobby", bus.ID{}, entry{m[0], bus.ID{}, "m0"}, entry{m[1], m[0], "m1"})
			for i, prev := range []bus.ID{{}, m[0], m[1], m[2]} {
				redis.Receive(sub, redis.Payload(m[i], prev, fmt.Sprint("m", i)))
			}
			told.expect("m0", "m1", "m2", "m3")
			var unaware []entry
			prev := m[1]
			for i, id := range c.ids(m) {
				unaware = append(unaware, entry{id, prev, fmt.Sprint("x", i)})
				prev = id
			}
			rewind(t, r, "lobby", m[1], unaware...)
			r.Reconnect()
			told.expect(c.want...)
			after := appendTo(t, r, "lobby", "after", "")
			told.expect(append(c.want, "after")...)
			if !m[3].Less(after) {
				t.Errorf("the id %v is not above %v, which was delivered", after, m[3])
			}
			if lost := told.breaks[0].Lost; lost != m[1] {
				t.Errorf("what followed %v is said to be lost, it was %v", lost, m[1])
			}
			page, err := r.After(t.Context(), "lobby", m[0], 10, 0)
			if err != nil {
				t.Fatal(err)
			}
			if page.LastBreak.IsZero() || !page.Complete {
				t.Errorf("who comes back is not told: %+v", page)
			}
		})
	}
}

// A node that was alone with a primary that was replaced may have heard a lot that is lost. What others said meanwhile is new to it.
func TestRedisBreakIsWhereTheLogForkedHoweverMuchIsLost(t *testing.T) {
	r := openRedis(t, slow)
	sub, told := subscribe(t, r, "lobby")
	began := time.Now().UnixMilli()
	at := func(i int) bus.ID { return bus.ID{Ms: uint64(began + 10*int64(i)), Seq: 5} }
	rewind(t, r, "lobby", bus.ID{}, entry{at(0), bus.ID{}, "m0"}, entry{at(1), at(0), "m1"})
	want := []string{"m0"}
	redis.Receive(sub, redis.Payload(at(0), bus.ID{}, "m0"))
	for i := range 1000 {
		want = append(want, fmt.Sprint("m", i+1))
		redis.Receive(sub, redis.Payload(at(i+1), at(i), fmt.Sprint("m", i+1)))
	}
	told.expect(want...)
	new1, new2 := bus.ID{Ms: at(1).Ms + 1}, bus.ID{Ms: at(500).Ms + 1}
	rewind(t, r, "lobby", at(1), entry{new1, at(1), "new 1"}, entry{new2, new1, "new 2"})
	r.Reconnect()
	told.expect(append(want, "break", "new 1", "new 2")...)
	if lost := told.breaks[0].Lost; lost != at(1) {
		t.Errorf("what followed %v is said to be lost, it was %v", lost, at(1))
	}
}

// What a break said is lost is not known any more: where the log has it again, as on the old primary or from a backup, whoever came
// meanwhile gets it.
func TestRedisWhatWasLostAndIsThereAgainIsTold(t *testing.T) {
	began := time.Now().UnixMilli()
	at := func(i int64) bus.ID { return bus.ID{Ms: uint64(began + 10*i), Seq: 5} }
	m := []entry{{at(0), bus.ID{}, "m0"}, {at(1), at(0), "m1"}, {at(2), at(1), "m2"}, {at(3), at(2), "m3"}}
	for name, c := range map[string]struct {
		kept  bus.ID
		again []string
	}{
		"a part": {at(1), []string{"m2", "m3"}},
		"all":    {bus.ID{}, []string{"m0", "m1", "m2", "m3"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := openRedis(t, slow)
			sub, told := subscribe(t, r, "lobby")
			rewind(t, r, "lobby", bus.ID{}, m...)
			for _, e := range m {
				redis.Receive(sub, redis.Payload(e.id, e.prev, e.body))
			}
			want := []string{"m0", "m1", "m2", "m3", "break", "new"}
			rewind(t, r, "lobby", c.kept, entry{at(4), c.kept, "new"})
			r.Reconnect()
			told.expect(want...)
			rewind(t, r, "lobby", bus.ID{}, m...)
			r.Reconnect()
			told.expect(slices.Concat(want, []string{"break"}, c.again)...)
			if lost := told.breaks[1].Lost; lost != c.kept {
				t.Errorf("what followed %v is said to be lost, it was %v", lost, c.kept)
			}
		})
	}
}

// Rooms are compared with Redis in turn: all as often as each other, few of them and many.
func TestRedisRoomsAreComparedInTurn(t *testing.T) {
	for _, tt := range []struct{ rooms, steps, least, most int }{
		{rooms: 1, steps: 100, least: 4, most: 6}, // 20 steps are a round
		{rooms: 7, steps: 100, least: 4, most: 6},
		{rooms: 1000, steps: 100, least: 4, most: 6},
		{rooms: 100_000, steps: 1000, least: 2, most: 3}, // 300 in a step
	} {
		if rarest, frequent := redis.Compared(tt.rooms, tt.steps, 300); rarest < tt.least || frequent > tt.most {
			t.Errorf("of %d rooms the rarest was compared %d times, and the most frequent %d times", tt.rooms, rarest, frequent)
		}
	}
}

// What a comparison finds may be on its way, so it counts only once it is found again. Both together take 3 s at most.
func TestRedisWhatSeemsToLagIsComparedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := redis.ComparedAgain(1000)
		if most := 500 * time.Millisecond; took < 100*time.Millisecond || took > most {
			t.Errorf("it was compared again after %v, want %v at most", took, most)
		}
	})
}

// A room remembers the ids of half a minute, and neither less than a few nor more than some thousands.
func TestRedisIDsOfHalfAMinuteAreRemembered(t *testing.T) {
	for _, tt := range []struct {
		every       uint64 // ms
		least, most int    // ids, and ids that there is room for
	}{
		{every: 60_000, least: 16, most: 32},
		{every: 1000, least: 30, most: 64},
		{every: 100, least: 300, most: 512},
		{every: 1, least: 3000, most: 6000},
	} {
		kept, space, whole := redis.Remembered(20_000, tt.every)
		if kept < tt.least || space > tt.most || !whole {
			t.Errorf("one in %d ms: %d are remembered in the space for %d, without a hole: %v", tt.every, kept, space, whole)
		}
	}
}

func TestRedisLastIDAloneGoneIsNoBreak(t *testing.T) {
	r := openRedis(t, slow)
	own, told := subscribe(t, r, "lobby")
	last := appendTo(t, r, "lobby", "m0", "")
	told.expect("m0")
	if err := r.Client().Del(context.Background(), redis.KeysOf("lobby").Last).Err(); err != nil {
		t.Fatal(err)
	}
	if p, err := r.After(t.Context(), "lobby", bus.ID{}, 10, 0); err != nil || p.Last != last {
		t.Errorf("the last that is read is %v, not %v, %v", p.Last, last, err)
	}
	r.Reconnect()
	eventually(t, "the room to be whole", func() bool { return r.Sessions() > 2 && redis.IsLive(own) })
	sub, _ := subscribe(t, openRedis(t, redis.Config{URL: "unix://" + r.Client().Options().Addr}), "lobby")
	if sub.Last() != last {
		t.Errorf("who comes begins after %v, the last is %v", sub.Last(), last)
	}
	appendTo(t, r, "lobby", "m1", "")
	told.expect("m0", "m1")
}

// Where the last id's key is behind the log, what comes next names an earlier entry than it follows. Who was there is told no break, and
// the chain goes on from what he has.
func TestRedisLastIDThatIsBehindIsNoBreak(t *testing.T) {
	r := openRedis(t, slow)
	h := new(hearer)
	sub, err := r.Subscribe(t.Context(), "lobby", h)
	if err != nil {
		t.Fatal(err)
	}
	first, second := appendTo(t, r, "lobby", "m0", ""), appendTo(t, r, "lobby", "m1", "")
	eventually(t, "both", func() bool { _, at := h.all(); return at == second })
	if err := r.Client().Set(t.Context(), redis.KeysOf("lobby").Last, first.String(), time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	other := openRedis(t, redis.Config{URL: "unix://" + r.Client().Options().Addr})
	third := appendTo(t, other, "lobby", "m2", "")
	eventually(t, "the next", func() bool { _, at := h.all(); return at == third && redis.IsLive(sub) })
	items, _ := h.all()
	if len(items) != 3 || items[2].Break || items[2].Prev != second {
		t.Errorf("told %+v", items)
	}
}

// Who gives up waiting for what does not come is not kept: while a room is deaf, many come and go.
func TestRedisWhoGivesUpWaitingIsForgotten(t *testing.T) {
	r := openRedis(t, slow)
	sub, _ := subscribe(t, r, "lobby")
	last := bus.ID{Ms: uint64(time.Now().Add(time.Minute).UnixMilli())} // of a message that does not arrive
	if err := r.Client().Set(t.Context(), redis.KeysOf("lobby").Last, last.String(), time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = sub.Sync(ctx)
	}()
	eventually(t, "it to wait", func() bool {
		select {
		case <-over: // on a machine that stood still: what is missing was looked for
			return true
		default:
			return redis.Waiters(sub) == 1
		}
	})
	giveUp()
	<-over
	if n := redis.Waiters(sub); n != 0 {
		t.Errorf("%d are kept who gave up", n)
	}
}

// Who waits for what does not come waits no longer than the subscription lasts.
func TestRedisWhoWaitsIsToldOfTheEnd(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openRedis(t, redis.Config{URL: limitedURL(server)})
	sub, _ := subscribe(t, r, "lobby")
	allow(t, server, "allchannels", "-xrange") // so that the log can't be read
	before := r.Sessions()
	r.Reconnect()
	eventually(t, "the links to come back", func() bool { return r.Sessions() >= before+2 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- sub.Sync(ctx) }()
	eventually(t, "it to wait", func() bool { return redis.Waiters(sub) == 1 })
	sub.Close()
	if err := <-over; !errors.Is(err, bus.ErrClosed) {
		t.Errorf("told %v", err)
	}
}

// What was read of a server that is left meanwhile is not taken: the next one may never have had it.
func TestRedisWhatWasReadOfAServerThatIsLeftIsNotTaken(t *testing.T) {
	k := redis.KeysOf("lobby")
	begin := func(t *testing.T) (r, other *redis.Bus, sub bus.Subscription, told *listener, before bus.ID) {
		r = openRedis(t, slow)
		other = openAt(t, "unix://"+r.Client().Options().Addr, slow)
		sub, told = subscribe(t, r, "lobby")
		before = appendTo(t, r, "lobby", "before", "")
		told.expect("before")
		return r, other, sub, told, before
	}
	goesOn := func(t *testing.T, r *redis.Bus, told *listener) {
		eventually(t, "an acknowledgement", func() bool { _, err := tryAppend(t, r, "lobby", "after", "k"); return err == nil })
		told.expect("before", "after")
	}
	t.Run("its log", func(t *testing.T) {
		r, other, sub, told, before := begin(t)
		r.Cut(func() {
			appendTo(t, other, "lobby", "lost", "")
			if err := r.ReadLate(sub, false, func() { rewind(t, other, "lobby", before) }); err != nil {
				t.Error(err)
			}
		})
		goesOn(t, r, told)
	})
	t.Run("who is there", func(t *testing.T) {
		r, other, sub, told, _ := begin(t)
		from, atOther := subscribe(t, other, "lobby")
		r.Cut(func() {
			from.Enter(bus.Member{ID: "ann"})
			atOther.change(bus.Joined, "ann")
			if err := r.ReadLate(sub, true, func() {
				if err := other.Client().Del(t.Context(), k.Incarnations, other.OwnUsers("lobby")).Err(); err != nil {
					t.Error(err)
				}
			}); err != nil {
				t.Error(err)
			}
		})
		goesOn(t, r, told)
	})
}

// A connection that was begun before the node went to another server, and comes late, ends none to that one.
func TestRedisAConnectionToAServerThatIsLeftComesTooLate(t *testing.T) {
	t.Parallel()
	var at atomic.Pointer[string]
	goTo := func(s *bustest.RedisServer) {
		addr := s.Client().Options().Addr
		at.Store(&addr)
	}
	old, now := bustest.StartRedis(t), bustest.StartRedis(t)
	goTo(old)
	var late atomic.Pointer[lateComer]
	cfg := never
	cfg.URL, cfg.Links, cfg.Timeout = old.URL(), 1, patience
	cfg.SetDial(func(ctx context.Context, network, _ string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, *at.Load())
		if l := late.Swap(nil); l != nil && err == nil {
			close(l.came)
			l.Conn, c = c, l
		}
		return c, err
	})
	r := openRedis(t, cfg)
	appendTo(t, r, "lobby", "before", "")
	l := &lateComer{came: make(chan struct{}), greeted: make(chan struct{})}
	late.Store(l)
	read := make(chan error, 1)
	go func() { read <- r.Client().Ping(context.Background()).Err() }()
	<-l.came
	goTo(now)
	r.Reconnect()
	eventually(t, "the node to be at the other server", func() bool {
		_, err := tryAppend(t, r, "lobby", "there", "there")
		return err == nil && now.Client().XLen(t.Context(), redis.KeysOf("lobby").Log).Val() > 0
	})
	close(l.greeted)
	if err := <-read; err == nil {
		t.Error("the server that was left is asked still")
	}
	appendTo(t, r, "lobby", "after", "")
	if n := r.Sessions(); n != 2 {
		t.Errorf("%d connections were made, to two servers", n)
	}
}

// A lateComer is a connection on which nothing arrives until the node was greeted.
type lateComer struct {
	net.Conn
	came, greeted chan struct{}
}

func (c *lateComer) Read(b []byte) (int, error) {
	<-c.greeted
	return c.Conn.Read(b)
}

func TestRedisHerdReconnectsAtOnce(t *testing.T) {
	const rooms = 5000
	r := openRedis(t, slow) // so that nothing but the reconnection finds what is missing
	other := openRedis(t, redis.Config{URL: "unix://" + r.Client().Options().Addr})
	sinks := make([]*listener, rooms)
	began := time.Now()
	all := make(chan struct{}, rooms)
	for i := range rooms {
		sinks[i] = &listener{t: t, more: make(chan struct{})}
		go func() {
			if _, err := r.Subscribe(t.Context(), fmt.Sprint("room", i), sinks[i]); err != nil {
				t.Error(err)
			}
			all <- struct{}{}
		}()
	}
	for range rooms {
		<-all
	}
	t.Logf("subscribed after %v", time.Since(began))
	r.Cut(func() {
		for i := range rooms {
			other.Publish(fmt.Sprint("room", i), bus.Draft{Body: []byte("missed")}, func(_ bus.ID, err error) {
				if err != nil {
					t.Error(err)
				}
				all <- struct{}{}
			})
		}
		for range rooms {
			<-all
		}
	})
	began = time.Now()
	for _, s := range sinks {
		s.expect("missed")
	}
	t.Logf("made whole after %v", time.Since(began))
}

func TestRedisReceivingAllocatesNothing(t *testing.T) {
	r := openRedis(t, slow)
	sub, err := r.Subscribe(t.Context(), "lobby", &nothing{})
	if err != nil {
		t.Fatal(err)
	}
	payloads := make([]string, 1001)
	prev := sub.Last()
	for i := range payloads {
		id := bus.ID{Ms: prev.Ms + 1, Seq: 7}
		payloads[i] = redis.Payload(id, prev, "body")
		prev = id
	}
	n := 0
	if got := testing.AllocsPerRun(1000, func() { redis.Receive(sub, payloads[n]); n++ }); got != 0 {
		t.Errorf("%v allocations per message received", got)
	}
}

// tally is a sink that counts who joins.
type tally struct {
	nothing
	joined atomic.Int32
}

func (t *tally) Presence(c bus.Change) {
	if c.Kind == bus.Joined {
		t.joined.Add(1)
	}
}

// nothing is a sink that ignores what it is told.
type nothing struct{}

func (*nothing) Deliver(bus.Message) {}
func (*nothing) Signal([]byte)       {}
func (*nothing) Presence(bus.Change) {}

func FuzzRedisPayload(f *testing.F) {
	f.Add(redis.Payload(bus.ID{Ms: 1, Seq: 2}, bus.ID{}, "body"))
	f.Add("g1-2 0-0 0-0")
	f.Add("w17 2 INC 0 5 d+2 6 id1 name-1 0 a")
	f.Add("w17 1 INC 5 9 d+99999999999 -1 id")
	f.Add("w17 3 INC 9 9 x")
	f.Fuzz(func(_ *testing.T, s string) { redis.ParsePayload(s) })
}

func TestRedisRosterMendsItself(t *testing.T) {
	k := redis.KeysOf("lobby")
	for name, damage := range map[string]func(ctx context.Context, c *goredis.Client, own string) error{
		"all of it gone": func(ctx context.Context, c *goredis.Client, own string) error {
			return c.Del(ctx, k.Incarnations, own).Err()
		},
		"what tells which incarnations there are": func(ctx context.Context, c *goredis.Client, _ string) error {
			return c.Del(ctx, k.Incarnations).Err()
		},
		"the node's own": func(ctx context.Context, c *goredis.Client, own string) error {
			return c.Del(ctx, own).Err()
		},
		"one is gone from the node's own": func(ctx context.Context, c *goredis.Client, own string) error {
			return c.HDel(ctx, own, "ann").Err()
		},
		"one too many": func(ctx context.Context, c *goredis.Client, own string) error {
			return c.HSet(ctx, own, "ghost", "1 Ghost").Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := openRedis(t, often)
			ctx := context.Background()
			sub, told := subscribe(t, r, "lobby")
			for _, user := range []string{"ann", "bob"} {
				sub.Enter(bus.Member{ID: user, Name: user})
				told.change(bus.Joined, user)
			}
			own := r.OwnUsers("lobby")
			if err := damage(ctx, r.Client(), own); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the members to be there again", func() bool {
				users, err := r.Client().HKeys(ctx, own).Result()
				slices.Sort(users)
				roster, err2 := r.Roster(ctx, "lobby")
				return err == nil && err2 == nil && slices.Equal(users, []string{"ann", "bob"}) && roster.Count == 2
			})
		})
	}
}

func TestRedisLargeRoomsStayCheap(t *testing.T) {
	const n = 20_000
	server := bustest.StartRedis(t)
	r := openRedis(t, redis.Config{URL: server.URL()})
	told := &tally{}
	sub, err := r.Subscribe(t.Context(), "stadium", told)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i := range n {
		sub.Enter(bus.Member{ID: fmt.Sprint("user-", i), Name: "A Name"})
	}
	eventually(t, "all to join", func() bool { return told.joined.Load() == n })
	_, cpu := redisUse(t, r)
	t.Logf("%d members joined after %v, with %.0f µs of Redis CPU each", n, time.Since(began), cpu*1e6/n)
	began = time.Now()
	other := openRedis(t, redis.Config{URL: server.URL()})
	late, _ := subscribe(t, other, "stadium")
	roster := late.Roster()
	t.Logf("another node knew them after %v", time.Since(began))
	if roster.Count != n || len(roster.Members) != bus.RosterMax {
		t.Errorf("%d members, %d listed", roster.Count, len(roster.Members))
	}
	began = time.Now()
	sub.Close()
	if left := sub.Roster(); left.Count != 0 {
		t.Errorf("a closed subscription has %d members", left.Count)
	}
	eventually(t, "all to leave", func() bool { return late.Roster().Count == 0 })
	t.Logf("all had left after %v", time.Since(began))
}

func TestRedisPassesOverForeignEntries(t *testing.T) {
	r := openRedis(t, often)
	sub, told := subscribe(t, r, "lobby")
	appendTo(t, r, "lobby", "m0", "")
	told.expect("m0")
	ctx, k := context.Background(), redis.KeysOf("lobby")
	for _, entry := range [][]any{{"who", "knows"}, {"m", "says"}, {"m", "says what"}, {"g", "0-1 what"}} {
		if err := r.Client().XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, Values: entry}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	r.Reconnect()
	eventually(t, "another connection", func() bool {
		_, err := tryAppend(t, r, "lobby", "m1", "again")
		return err == nil
	})
	told.until("m1", func(lines []string) bool { return slices.Contains(lines, "m1") })
	eventually(t, "the room to be whole", func() bool { return redis.IsLive(sub) })
	for _, limit := range []int{-1, 0, 1, 10} {
		page, err := r.After(t.Context(), "lobby", bus.ID{}, limit, 0)
		if err != nil || len(page.Messages) != max(0, min(limit, 2)) {
			t.Errorf("%d messages of at most %d, %v", len(page.Messages), limit, err)
		}
		if page, err = r.Before(t.Context(), "lobby", bus.ID{}, limit, 0); err != nil || len(page.Messages) != max(0, min(limit, 2)) {
			t.Errorf("%d messages of at most %d before the end, %v", len(page.Messages), limit, err)
		}
	}
}

func TestRedisRoomsOfTwoAreSpreadOverLinks(t *testing.T) {
	r := openRedis(t, redis.Config{Links: 2})
	first := 0
	for i := range 1000 {
		user := fmt.Sprint("user", i)
		if r.LinkOf("dm:"+user+":"+user) == r.LinkOf("dm::") {
			first++
		}
	}
	if first < 400 || first > 600 {
		t.Errorf("of 1000 rooms %d are on one of two links", first)
	}
}
