package memory_test

import (
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
