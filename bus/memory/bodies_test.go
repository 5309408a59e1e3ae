package memory_test

import (
	"context"
	"runtime"
	"testing"

	"parley/bus"
)

// A busy is a sink that does not return from the first message until it is let.
type busy struct {
	counter
	entered, leave chan struct{}
}

func (s *busy) Deliver(m bus.Message) {
	if s.messages.Load() == 0 {
		close(s.entered)
		<-s.leave
	}
	s.counter.Deliver(m)
}

// What was delivered is kept by the log alone, for as long as that may.
func TestMemoryKeepsNothingOfWhatWasDelivered(t *testing.T) {
	const most, size, n = 64 << 10, 64 << 10, 24
	m, _ := newMemory(bus.Retention{Bytes: most})
	b := open(t, m)
	sink := &busy{entered: make(chan struct{}), leave: make(chan struct{})}
	sub, err := b.Subscribe(context.Background(), "room", sink)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	before := heap()
	go b.Publish("room", bus.Draft{}, func(bus.ID, error) {})
	<-sink.entered
	for range n { // which wait
		publish(t, b, "room", bus.Draft{Body: make([]byte, size)})
	}
	close(sink.leave)
	if err := sub.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if grown := heap() - before; grown > n*size/4 {
		t.Errorf("%d bytes are kept, of a log of %d", grown, most)
	}
	runtime.KeepAlive(m)
}
