package memory_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	"parley/bus"
	"parley/bus/memory"
)

// stepwise is a sink that takes each message only when it is let.
type stepwise struct {
	counter
	let chan struct{}
}

func (s *stepwise) Deliver(m bus.Message) {
	<-s.let
	s.counter.Deliver(m)
}

// What was acknowledged waits behind what the sink is being told: Sync waits for both.
func TestMemorySyncWaitsForWhatIsBehindABusySink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(bus.Retention{}).Open(bus.NoObserver{})
		defer b.Close()
		sink := &stepwise{let: make(chan struct{})}
		sub, err := b.Subscribe(t.Context(), "room", sink)
		if err != nil {
			t.Fatal(err)
		}
		go b.Publish("room", bus.Draft{}, func(bus.ID, error) {}) // tells the sink both
		synctest.Wait()
		publish(t, b, "room", bus.Draft{})
		synced := make(chan error, 1)
		go func() { synced <- sub.Sync(t.Context()) }()
		for taken := range 2 {
			synctest.Wait()
			if len(synced) > 0 {
				t.Errorf("Sync returned when %d of two messages were delivered", taken)
			}
			sink.let <- struct{}{}
		}
		synctest.Wait()
		if len(synced) == 0 {
			t.Fatal("Sync does not return though all is delivered")
		}
		if err := <-synced; err != nil {
			t.Error(err)
		}
	})
}

// A sink is called by one at a time: what happens while it is being told something waits, whatever it is, and who did it does not.
func TestMemoryABusySinkIsNotCalled(t *testing.T) {
	for name, act := range map[string]func(b bus.Bus, sub bus.Subscription){
		"publish":               func(b bus.Bus, _ bus.Subscription) { b.Publish("room", bus.Draft{}, func(bus.ID, error) {}) },
		"publish over the room": func(_ bus.Bus, sub bus.Subscription) { sub.Publish(bus.Draft{}, func(bus.ID, error) {}) },
		"signal":                func(b bus.Bus, _ bus.Subscription) { b.Signal("room", nil, func(error) {}) },
		"signal over the room":  func(_ bus.Bus, sub bus.Subscription) { sub.Signal(nil, func(error) {}) },
		"enter":                 func(_ bus.Bus, sub bus.Subscription) { sub.Enter(bus.Member{ID: "ann"}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := memory.New(bus.Retention{}).Open(bus.NoObserver{})
				defer b.Close()
				sink := &alone{let: make(chan struct{})}
				sub, err := b.Subscribe(t.Context(), "room", sink)
				if err != nil {
					t.Fatal(err)
				}
				go b.Publish("room", bus.Draft{}, func(bus.ID, error) {})
				synctest.Wait() // for the sink to be busy
				acted := make(chan struct{})
				go func() {
					defer close(acted)
					act(b, sub)
				}()
				synctest.Wait()
				select {
				case <-acted:
				default:
					t.Error("it waits for the sink")
				}
				if n := sink.calls.Load(); n != 1 {
					t.Errorf("the sink was called %d times at once", n)
				}
				close(sink.let)
				synctest.Wait()
				if n := sink.calls.Load(); n != 2 {
					t.Errorf("the sink was called %d times, want 2", n)
				}
			})
		})
	}
}

// An alone is a sink that is busy with all that it is told until it is let.
type alone struct {
	calls atomic.Int64
	let   chan struct{}
}

func (s *alone) call()               { s.calls.Add(1); <-s.let }
func (s *alone) Deliver(bus.Message) { s.call() }
func (s *alone) Signal([]byte)       { s.call() }
func (s *alone) Presence(bus.Change) { s.call() }
