package redis_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// A hearer is a sink that keeps all that it is handed.
type hearer struct {
	mu    sync.Mutex
	items []bus.Message // guarded by mu; breaks are among them
}

func (h *hearer) Deliver(m bus.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.items = append(h.items, m)
}

func (h *hearer) Signal([]byte)       {}
func (h *hearer) Presence(bus.Change) {}

// all gives what was handed on, and where the room is then.
func (h *hearer) all() (items []bus.Message, at bus.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.items) > 0 {
		at = h.items[len(h.items)-1].ID
	}
	return slices.Clone(h.items), at
}

// lacks gives the acknowledged messages that were neither heard nor may be missing by what was told of breaks, and what else is wrong
// with what was handed on from at.
func lacks(items []bus.Message, at bus.ID, acked []bus.ID) (lacks []bus.ID, wrong string) {
	heard := make(map[bus.ID]int)
	type hole struct{ after, before bus.ID }
	var holes []hole
	for i, m := range items {
		if m.Break {
			holes = append(holes, hole{after: m.Lost, before: bus.ID{Ms: 1 << 60}})
			at = m.ID
			continue
		}
		if !at.Less(m.ID) {
			wrong = fmt.Sprintf("%v comes after %v", m.ID, at)
		}
		if before, again := heard[m.ID]; again {
			wrong = fmt.Sprintf("%v is heard again, %d later", m.ID, i-before)
		}
		heard[m.ID], at = i, m.ID
		for j := range holes {
			if holes[j].before.Ms == 1<<60 {
				holes[j].before = m.ID
			}
		}
	}
	for _, id := range acked {
		_, has := heard[id]
		if !has && !slices.ContainsFunc(holes, func(h hole) bool { return h.after.Less(id) && id.Less(h.before) }) {
			lacks = append(lacks, id)
		}
	}
	return lacks, wrong
}

// A loser puts the log of a room back to what it was, as the promotion of a replica does that lacks the newest entries.
type loser struct {
	client *goredis.Client
	keys   []string
	was    [][]*goredis.StringCmd // newest last
}

func (l *loser) remember(t *testing.T) {
	var all []*goredis.StringCmd
	_, err := l.client.TxPipelined(context.Background(), func(p goredis.Pipeliner) error {
		for _, k := range l.keys {
			all = append(all, p.Dump(context.Background(), k))
		}
		return nil
	})
	if err != nil && err != goredis.Nil {
		t.Fatal(err)
	}
	l.was = append(l.was[max(0, len(l.was)-3):], all)
}

func (l *loser) lose(t *testing.T, which int) {
	_, err := l.client.TxPipelined(context.Background(), func(p goredis.Pipeliner) error {
		for i, dump := range l.was[which] {
			if dump.Err() == goredis.Nil {
				p.Del(context.Background(), l.keys[i])
			} else {
				p.RestoreReplace(context.Background(), l.keys[i], 0, dump.Val())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l.was = l.was[:which+1]
}

// Four nodes talk, and one comes and goes, while the log is put back again and again, by a moment or by more, with all connections.
// Whoever was to hear what was acknowledged hears it, once and in order, or is told that it may be lost.
func TestRedisWhatAPromotionLosesIsTold(t *testing.T) {
	for name, size := range map[string]int{"a long log": 1_000_000, "a log that is soon trimmed": 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			promoteAgainAndAgain(t, size)
		})
	}
}

func promoteAgainAndAgain(t *testing.T, size int) {
	const room = "lobby"
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	server := bustest.StartRedis(t)
	k := redis.KeysOf(room)
	l := &loser{client: server.Client(), keys: []string{k.Log, k.Last, k.Break, k.Records[0], k.Records[1]}}
	var nodes []*redis.Bus
	for range 4 {
		nodes = append(nodes, openRedis(t, redis.Config{
			URL: server.URL(), Timeout: 300 * time.Millisecond, HeartbeatInterval: 200 * time.Millisecond,
			CompareInterval: 300 * time.Millisecond, Retention: bus.Retention{Size: size},
		}))
	}
	comes := nodes[3]
	hearers := make([]*hearer, 3)
	for i := range hearers {
		hearers[i] = new(hearer)
		if _, err := nodes[i].Subscribe(t.Context(), room, hearers[i]); err != nil {
			t.Fatal(err)
		}
	}

	over := make(chan struct{})
	isOver := func() bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	}
	var mu sync.Mutex
	var acked []bus.ID
	var busy sync.WaitGroup
	for i, n := range nodes {
		busy.Go(func() {
			for said := 0; !isOver(); said++ {
				body := fmt.Sprintf("m%d.%d", i, said)
				if id, err := tryAppend(t, n, room, body, body); err == nil {
					mu.Lock()
					acked = append(acked, id)
					mu.Unlock()
				}
				if n == comes || said%7 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	busy.Go(func() {
		random := rand.New(rand.NewPCG(seed, 1))
		for !isOver() {
			h := new(hearer)
			sub, err := comes.Subscribe(t.Context(), room, h)
			if err != nil {
				continue // it was away
			}
			time.Sleep(time.Duration(random.Int64N(int64(300 * time.Millisecond))))
			sub.Close()
			items, _ := h.all()
			if _, wrong := lacks(items, sub.Last(), nil); wrong != "" {
				t.Error("one who came and went: ", wrong)
			}
		}
	})
	losses := 0
	for began := time.Now(); time.Since(began) < *chaosFor; {
		l.remember(t)
		time.Sleep(time.Duration(random.Int64N(int64(150 * time.Millisecond))))
		if random.IntN(3) > 0 {
			continue
		}
		losses++
		which := random.IntN(len(l.was))
		cut := func() { l.lose(t, which) }
		for _, i := range random.Perm(len(nodes)) {
			next := cut
			cut = func() {
				nodes[i].Cut(func() {
					nodes[i].Elsewhere(0)
					next()
				})
			}
		}
		cut()
	}
	close(over)
	busy.Wait()

	var end bus.ID
	eventually(t, "the last message", func() bool {
		var err error
		end, err = tryAppend(t, nodes[0], room, "end", "end")
		return err == nil
	})
	acked = append(acked, end)
	t.Logf("%d acknowledged, %d losses", len(acked), losses)
	for i, h := range hearers {
		eventually(t, "the last message to be heard", func() bool {
			_, at := h.all()
			return at == end
		})
		items, _ := h.all()
		missing, wrong := lacks(items, bus.ID{}, acked)
		if len(missing) > 0 || wrong != "" {
			slices.SortFunc(missing, bus.ID.Compare)
			t.Errorf("node %d does not tell of %d messages, %v: %s", i, len(missing), missing[:min(3, len(missing))], wrong)
		}
	}
}

// A losing room is one whose log is put back to what it was after one of the texts said in it.
type losing struct {
	*loser
	t     *testing.T
	nodes []*redis.Bus
	ids   []bus.ID // of what was said
}

func newLosing(t *testing.T, nodes int) *losing {
	server := bustest.StartRedis(t)
	k := redis.KeysOf("lobby")
	l := &losing{loser: &loser{client: server.Client(), keys: []string{k.Log, k.Last, k.Break}}, t: t}
	for range nodes {
		l.nodes = append(l.nodes, openRedis(t, redis.Config{URL: server.URL(), CompareInterval: 30 * time.Millisecond}))
	}
	return l
}

// first has a first loss told, after "1".
func (l *losing) first(told *listener) {
	l.t.Helper()
	l.says("1")
	l.says("lost")
	told.expect("1", "lost")
	l.back(0)
	told.expect("1", "lost", "break")
}

// says has the first node say something.
func (l *losing) says(text string) {
	l.ids = append(l.ids, appendTo(l.t, l.nodes[0], "lobby", text, ""))
	l.remember(l.t)
}

// back puts the log back to what it was after one of the last four texts.
func (l *losing) back(which int) {
	cut := func() { l.lose(l.t, which) }
	for _, n := range l.nodes {
		next := cut
		cut = func() { n.Cut(next) }
	}
	cut()
}

// After a loss a node knows still what came before. Should some of that be lost too, nothing that is left is handed on again, though the
// log has a marker of a break before it.
func TestRedisASecondLossRepeatsNothing(t *testing.T) {
	t.Parallel()
	l := newLosing(t, 1)
	_, told := subscribe(t, l.nodes[0], "lobby")
	var want []string
	says := func(text string) {
		l.says(text)
		want = append(want, text)
		told.expect(want...)
	}
	back := func(which int) {
		l.back(which)
		want = append(want, "break")
		told.expect(want...)
	}
	says("1")
	says("lost")
	back(0) // to 1
	says("2")
	says("3")
	says("lost too")
	back(2) // to 3
	says("lost at last")
	back(1) // to 2
	says("4")
}

// Who comes knows the newest break in the log. So he goes back only as far as the log does, should all that he has heard be lost.
func TestRedisWhoComesAfterABreakIsNotToldOfItAtTheNext(t *testing.T) {
	t.Parallel()
	l := newLosing(t, 2)
	_, told := subscribe(t, l.nodes[0], "lobby")
	l.first(told)
	l.says("2")
	l.says("lost too")
	_, late := subscribe(t, l.nodes[1], "lobby")
	l.says("lost at last")
	late.expect("lost at last")
	l.back(1) // to 2
	late.expect("lost at last", "break")
	l.says("3")
	late.expect("lost at last", "break", "3")
}

// What a node knows of a room that it left outlives a loss too: at the next the marker tells of no more than is lost.
func TestRedisASecondLossInARoomThatAllHaveLeft(t *testing.T) {
	t.Parallel()
	l := newLosing(t, 1)
	sub, told := subscribe(t, l.nodes[0], "lobby")
	l.first(told)
	l.says("2")
	l.says("3")
	l.says("lost too")
	told.expect("1", "lost", "break", "2", "3", "lost too")
	sub.Close()
	newest := func() (b bus.Message) {
		p, err := l.nodes[0].After(t.Context(), "lobby", bus.ID{}, 100, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range p.Messages {
			if m.Break {
				b = m
			}
		}
		return b
	}
	l.back(2) // to 3
	eventually(t, "the loss to be noted", func() bool { return newest().Lost == l.ids[3] })
	l.back(1) // to 2
	eventually(t, "the next loss to be noted", func() bool { return newest().Lost == l.ids[2] })
}

// That a log is trimmed past what a node knows is no loss where the server is the same, be the node in the room or not.
func TestRedisATrimmedLogOfTheSameServerHasNoMarker(t *testing.T) {
	t.Parallel()
	for _, stays := range []bool{true, false} {
		t.Run(fmt.Sprint("stays ", stays), func(t *testing.T) {
			t.Parallel()
			server := bustest.StartRedis(t)
			cfg := redis.Config{URL: server.URL(), Retention: bus.Retention{Size: 5}}
			r, other := openRedis(t, cfg), openRedis(t, cfg)
			sub, told := subscribe(t, r, "lobby")
			appendTo(t, r, "lobby", "known", "")
			told.expect("known")
			if !stays {
				sub.Close()
			}
			r.Cut(func() {
				if err := other.Append("lobby", "x", 50); err != nil {
					t.Error(err)
				}
			})
			eventually(t, "the last message", func() bool { // before which it asks
				_, err := tryAppend(t, r, "lobby", "last", "last")
				return err == nil
			})
			if p, err := r.After(t.Context(), "lobby", bus.ID{}, 100, 0); err != nil || !p.LastBreak.IsZero() {
				t.Errorf("a break was noted: %v, %v", p.LastBreak, err)
			}
		})
	}
}
