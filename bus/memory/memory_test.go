package memory_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/memory"
)

// A clock runs, and can be set.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func newMemory(keep bus.Retention) (*memory.Store, *clock) {
	m, c := memory.New(keep), &clock{}
	m.SetClock(c.now)
	return m, c
}

func open(t testing.TB, m *memory.Store) bus.Bus {
	b := m.Open(bus.NoObserver{})
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestMemory(t *testing.T) {
	bustest.Run(t, func(t testing.TB, keep bus.Retention) bustest.Backend {
		m, c := newMemory(keep)
		return bustest.Backend{
			Open:      func(o bus.Observer) (bus.Bus, error) { return m.Open(o), nil },
			ClockBack: func(string) { c.advance(-time.Hour) },
		}
	})
}

func publish(t testing.TB, b bus.Bus, room string, d bus.Draft) (at bus.ID) {
	t.Helper()
	b.Publish(room, d, func(i bus.ID, err error) {
		if err != nil {
			t.Fatal(err)
		}
		at = i
	})
	return at
}

func TestMemoryRemembersKeysForTenMinutes(t *testing.T) {
	m, c := newMemory(bus.Retention{})
	b := open(t, m)
	key := func(n int) bus.Draft { return bus.Draft{Key: bus.KeyOf("u", fmt.Sprint(n)), Sum: 1} }
	// Keys of every minute, so that some meet the change of generations just before and some just after it.
	ids := map[int]bus.ID{}
	for minute := range 60 {
		for n := max(0, minute-9); n < minute; n++ {
			if again := publish(t, b, "room", key(n)); again != ids[n] {
				t.Fatalf("after %d minutes a repeat got %v, the first had %v", minute-n, again, ids[n])
			}
		}
		ids[minute] = publish(t, b, "room", key(minute))
		c.advance(time.Minute)
	}
	if again := publish(t, b, "room", key(39)); again == ids[39] {
		t.Error("a key is still remembered after 20 minutes")
	}
	last := publish(t, b, "room", key(60))
	c.advance(25 * time.Minute) // in which nobody came by
	if again := publish(t, b, "room", key(60)); again == last {
		t.Error("a key is still remembered after 25 quiet minutes")
	}
}

func TestMemoryForgetsRoomsThatNobodyUses(t *testing.T) {
	const age = 24 * time.Hour
	m, c := newMemory(bus.Retention{Age: age})
	b := open(t, m)
	ctx := context.Background()
	for i := range 10 {
		room := fmt.Sprint("room", i)
		s, err := b.Subscribe(ctx, room, bustest.NewRecorder(t))
		if err != nil {
			t.Fatal(err)
		}
		s.Enter(bus.Member{ID: "u"})
		if i%2 == 0 {
			publish(t, b, room, bus.Draft{Key: bus.KeyOf("u", "k")})
		}
		s.Close()
	}
	for range 10 { // asking makes no room
		if _, err := b.After(ctx, "nowhere", bus.ID{}, 1, 0); err != nil {
			t.Fatal(err)
		}
		b.Signal("nowhere", nil, func(error) {})
	}
	if n := m.Rooms(); n != 5 {
		t.Errorf("%d rooms are kept, of which 5 have messages", n)
	}
	occupied, err := b.Subscribe(ctx, "room0", bustest.NewRecorder(t))
	if err != nil {
		t.Fatal(err)
	}
	c.advance(age + time.Minute)
	m.Sweep()
	if n := m.Rooms(); n != 5 {
		t.Errorf("%d rooms are kept; of 5 the last id was to outlive the log", n)
	}
	if p, _ := b.After(ctx, "room2", bus.ID{}, 10, 0); len(p.Messages) > 0 || p.Last.IsZero() {
		t.Errorf("of a room that is expired: %+v", p)
	}
	c.advance(age)
	m.Sweep()
	if n := m.Rooms(); n != 1 {
		t.Errorf("%d rooms are kept, of which one is occupied", n)
	}
	if p, _ := b.After(ctx, "room0", occupied.Last(), 10, 0); !p.Complete {
		t.Error("an occupied room has forgotten its last id")
	}
	occupied.Close()
	if n := m.Rooms(); n != 0 {
		t.Errorf("%d rooms are kept of none", n)
	}
}

// TestMemoryFreesWhatExpires: messages that have expired hold no memory, though their room does.
func TestMemoryFreesWhatExpires(t *testing.T) {
	m, c := newMemory(bus.Retention{})
	b := open(t, m)
	for range 200 {
		publish(t, b, "room", bus.Draft{Body: make([]byte, 64<<10)})
	}
	before := heap()
	c.advance(25 * time.Hour)
	publish(t, b, "room", bus.Draft{})
	if freed := before - heap(); freed < 10<<20 {
		t.Errorf("%d bytes were freed, of more than 12 MB", freed)
	}
	runtime.KeepAlive(m)
}

func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// A counter is a sink that counts.
type counter struct{ messages atomic.Int64 }

func (c *counter) Deliver(bus.Message) { c.messages.Add(1) }
func (c *counter) Signal([]byte)       {}
func (c *counter) Presence(bus.Change) {}

// TestMemoryUnderContention has many publish, subscribe, enter and close at once, for the race detector and for deadlocks.
func TestMemoryUnderContention(t *testing.T) {
	m, _ := newMemory(bus.Retention{Size: 50})
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			b := m.Open(bus.NoObserver{})
			defer b.Close()
			for i := range 300 {
				room := fmt.Sprint("room", (n+i)%3)
				s, err := b.Subscribe(context.Background(), room, &counter{})
				if err != nil {
					t.Error(err)
					return
				}
				s.Enter(bus.Member{ID: fmt.Sprint("u", n%3)})
				empty := fmt.Sprint("empty", i%3) // which is made and forgotten all the time
				e, err := b.Subscribe(context.Background(), empty, &counter{})
				if err != nil {
					t.Error(err)
					return
				}
				e.Enter(bus.Member{ID: fmt.Sprint("u", n)})
				if r, _ := b.Roster(context.Background(), empty); !slices.Contains(r.Members, bus.Member{ID: fmt.Sprint("u", n)}) {
					t.Errorf("u%d entered, but the roster is %v", n, r.Members)
				}
				e.Close()
				b.Publish(room, bus.Draft{Key: bus.KeyOf("u", fmt.Sprint(n, i))}, func(_ bus.ID, err error) {
					if err != nil {
						t.Error(err)
					}
				})
				if i%50 == 0 {
					m.Sweep()
				}
				s.Close()
			}
		})
	}
	wg.Wait()
	b := m.Open(bus.NoObserver{})
	defer b.Close()
	for i := range 3 {
		r, err := b.Roster(context.Background(), fmt.Sprint("room", i))
		if err != nil || r.Count != 0 {
			t.Errorf("roster %+v, %v after all have left", r, err)
		}
	}
}

// TestMemoryKeepsNoCallerForEver: with others adding all the time, whoever delivers is relieved, and whoever waits for what was before does
// not wait for that.
func TestMemoryKeepsNoCallerForEver(t *testing.T) {
	m, _ := newMemory(bus.Retention{})
	b, other := open(t, m), open(t, m)
	s := &endless{again: func() { b.Publish("room", bus.Draft{}, func(bus.ID, error) {}) }}
	sub, err := b.Subscribe(context.Background(), "room", s)
	if err != nil {
		t.Fatal(err)
	}
	second, err := other.Subscribe(context.Background(), "room", &counter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct {
		what string
		do   func()
	}{
		{"publish", func() { b.Publish("room", bus.Draft{}, func(bus.ID, error) {}) }},
		{"Sync", func() { _ = sub.Sync(t.Context()) }},
		{"Close", second.Close},
	} {
		returned := make(chan struct{})
		go func() {
			defer close(returned)
			call.do()
		}()
		select {
		case <-returned:
		case <-time.After(30 * time.Second):
			t.Errorf("%s does not return while others add to the room", call.what)
			s.stop.Store(true)
		}
	}
	s.stop.Store(true)
	sub.Close()
}

// endless publishes for each message another.
type endless struct {
	counter
	stop  atomic.Bool
	again func()
}

func (e *endless) Deliver(m bus.Message) {
	if !e.stop.Load() {
		e.again()
	}
}

func TestMemoryPublishAllocatesNothing(t *testing.T) {
	m, _ := newMemory(bus.Retention{Size: 64})
	b := open(t, m)
	sink := &counter{}
	if _, err := b.Subscribe(context.Background(), "room", sink); err != nil {
		t.Fatal(err)
	}
	d := bus.Draft{Body: []byte("hello")}
	done := func(bus.ID, error) {}
	for range 200 { // the log has its full size
		b.Publish("room", d, done)
	}
	if n := testing.AllocsPerRun(1000, func() { b.Publish("room", d, done) }); n > 0 {
		t.Errorf("%v allocations per publish and delivery", n)
	}
}

func TestMemorySubscribesOnceAtATime(t *testing.T) {
	m, _ := newMemory(bus.Retention{})
	b := open(t, m)
	s, err := b.Subscribe(context.Background(), "room", &counter{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Subscribe(context.Background(), "room", &counter{}); err == nil {
		t.Error("subscribed twice")
	}
	s.Close()
	if s, err = b.Subscribe(context.Background(), "room", &counter{}); err != nil {
		t.Errorf("subscribe again: %v", err)
	}
	s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.Subscribe(ctx, "room", &counter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("subscribe with a context that is over: %v", err)
	}
}

// BenchmarkMemoryPublish is one publisher and a room; 120 bytes, as clients' messages have on the wire.
func BenchmarkMemoryPublish(b *testing.B) {
	for _, handles := range []int{0, 1, 4} {
		b.Run(fmt.Sprintf("subscribers=%d", handles), func(b *testing.B) { benchmarkMemoryPublish(b, handles, false) })
	}
	b.Run("subscribers=1/keyed", func(b *testing.B) { benchmarkMemoryPublish(b, 1, true) })
}

func benchmarkMemoryPublish(b *testing.B, handles int, keyed bool) {
	m := memory.New(bus.Retention{})
	var sinks []*counter
	for range handles {
		sink := &counter{}
		if _, err := open(b, m).Subscribe(context.Background(), "room", sink); err != nil {
			b.Fatal(err)
		}
		sinks = append(sinks, sink)
	}
	from := open(b, m)
	d := bus.Draft{Body: make([]byte, 120)}
	done := func(bus.ID, error) {}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if keyed {
			d.Key = bus.Key{1, byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}
		}
		from.Publish("room", d, done)
	}
	b.StopTimer()
	delivered := int64(0)
	for _, s := range sinks {
		delivered += s.messages.Load()
	}
	b.ReportMetric(float64(delivered)/b.Elapsed().Seconds(), "deliveries/s")
}

// BenchmarkMemoryPublishParallel is a room per processor, and then one for all.
func BenchmarkMemoryPublishParallel(b *testing.B) {
	for _, shared := range []bool{false, true} {
		b.Run(fmt.Sprintf("shared=%v", shared), func(b *testing.B) {
			m := memory.New(bus.Retention{})
			from := open(b, m)
			var n atomic.Int64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				room, i := "room", n.Add(1)
				if !shared {
					room = fmt.Sprint("room", i)
				}
				if !shared || i == 1 {
					s, err := from.Subscribe(context.Background(), room, &counter{})
					if err != nil {
						b.Error(err)
						return
					}
					defer s.Close()
				}
				d := bus.Draft{Body: make([]byte, 120)}
				done := func(bus.ID, error) {}
				for pb.Next() {
					from.Publish(room, d, done)
				}
			})
		})
	}
}

// told is a sink that notes what it was told.
type told struct {
	counter
	last bus.ID
}

func (s *told) Deliver(m bus.Message) { s.last = m.ID }

func TestANodeAloneIsToldAMessageBeforeItsOutcome(t *testing.T) {
	b := memory.New(bus.Retention{}).Open(bus.NoObserver{})
	defer b.Close()
	sink := &told{}
	s, err := b.Subscribe(t.Context(), "room", sink)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.Publish(bus.Draft{Body: []byte("m")}, func(id bus.ID, err error) {
			if err != nil || sink.last != id {
				t.Errorf("the outcome is %v, %v, and %v was told", id, err, sink.last)
			}
		})
	}
}
