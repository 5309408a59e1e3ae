package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"parley/bus"
	"parley/bus/memory"
)

// early is a bus that calls the sink of a room before the room is subscribed to, as a bus may, and for longer than anything waits.
type early struct {
	bus.Bus
	err error // what comes of it
}

func (b *early) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	id := bus.ID{Ms: 1}
	for _, call := range []func(){
		func() { sink.Presence(bus.Change{Kind: bus.Synced, Count: 3}) },
		func() { sink.Presence(bus.Change{Kind: bus.Joined, Member: bus.Member{ID: "ada"}, Count: 4}) },
		func() { sink.Presence(bus.Change{Kind: bus.Synced, Count: 5000}) },
		func() { sink.Presence(bus.Change{Kind: bus.Left, Member: bus.Member{ID: "ada"}, Count: 2}) },
		func() { sink.Signal([]byte("x")) },
		func() { sink.Deliver(bus.Message{ID: id, Body: []byte("x")}) },
		func() { sink.Deliver(bus.Message{ID: id, Lost: id, Marker: id, Break: true}) },
		func() {
			for range maxMessages/(256<<10) + 2 {
				prev := id
				id.Seq++
				sink.Deliver(bus.Message{ID: id, Prev: prev, Body: make([]byte, 256<<10)})
			}
		},
	} {
		call()
		time.Sleep(time.Minute)
		synctest.Wait()
	}
	if b.err != nil {
		return nil, b.err
	}
	return b.Bus.Subscribe(context.WithoutCancel(ctx), room, sink)
}

func TestWhatComesBeforeARoomIsSubscribedToHarmsNothing(t *testing.T) {
	for _, want := range []error{nil, errors.New("refused")} {
		synctest.Test(t, func(t *testing.T) {
			b := &early{memory.New(bus.Retention{}).Open(bus.NoObserver{}), want}
			s := &Server{cfg: Config{Bus: b}.withDefaults(), rooms: make(map[string]*room)}
			s.ctx, s.cancel = context.WithCancel(t.Context())
			s.batches.New = func() any { return new(batch) }
			s.flushers.start()
			defer func() { s.cancel(); s.flushers.stop() }()
			r, err := s.enter(t.Context(), "lobby")
			if err != want {
				t.Fatal(err)
			}
			if err != nil {
				return
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if last := (bus.ID{Ms: 1, Seq: maxMessages/(256<<10) + 2}); r.head != last {
				t.Errorf("the room is at %v, and %v has come", r.head, last)
			}
			if r.presence.timer != nil {
				t.Error("a room in which nobody is waits to tell its roster")
			}
		})
	}
}
