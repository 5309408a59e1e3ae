package bustest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"parley/bus"
)

var closePromises = []promise{
	{name: "nothing comes after a subscription's end", test: nothingAfterSubscriptionClose},
	{name: "a subscription that has ended does nothing to the next", test: endedIsNotTheNext},
	{name: "a subscription's end waits for its sink", test: closeWaitsForSink},
	{name: "nothing comes after Close", test: nothingAfterClose},
	{name: "calls after Close say so", test: callsAfterClose},
	{name: "Close settles what is being published", test: closeSettles},
}

func nothingAfterSubscriptionClose(c *cluster) {
	a, b := c.open(), c.open()
	_, witness := a.subscribe(room)
	c.talk(a, room, "m")
	for range 20 {
		sub, r := b.subscribe(room)
		r.Wait(c.t, "traffic", func(s Seen) bool { return len(s.Messages) > 3 })
		sub.Close()
		r.End()
		sub.Close() // does no harm
		sub.Enter(bus.Member{ID: "late"})
	}
	seen := len(witness.Seen().Messages)
	s := witness.Wait(c.t, "traffic to go on", func(s Seen) bool { return len(s.Messages) > seen+50 })
	check(c.t, "changes by who entered after the end", len(s.Changes), 0)
}

func endedIsNotTheNext(c *cluster) {
	a, b := c.open(), c.open()
	subB, atB := b.subscribe(room)
	ended, _ := a.subscribe(room)
	ended.Close()
	next, atA := a.subscribe(room)
	enterAll(c, next, atB, "ann")
	ended.Enter(bus.Member{ID: "bob"})
	ended.Leave("ann")
	ended.Close()
	ctx, cancel := patient()
	defer cancel()
	if err := ended.Sync(ctx); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Sync: %v", err)
	}
	enterAll(c, next, atB, "end")
	check(c.t, "who is there", users(subB.Roster()), []string{"ann", "end"})
	check(c.t, "changes", len(atB.Seen().Changes), 2)
	b.publish(room, "m")
	atA.WaitBody(c.t, "m")
}

// busy is a sink that takes its time: for the first message until it is freed, then a little for each.
type busy struct {
	*Recorder
	began, free chan struct{}
	first       sync.Once
	inside      atomic.Bool
}

func newBusy(c *cluster) *busy {
	return &busy{Recorder: NewRecorder(c.t), began: make(chan struct{}), free: make(chan struct{})}
}

func (b *busy) Deliver(m bus.Message) {
	b.first.Do(func() {
		b.inside.Store(true)
		close(b.began)
		<-b.free
		b.inside.Store(false)
	})
	time.Sleep(20 * time.Microsecond)
	b.Recorder.Deliver(m)
}

func closeWaitsForSink(c *cluster) {
	a, b := c.open(), c.open()
	_, witness := b.subscribe(room)
	sink := newBusy(c)
	ctx, cancel := patient()
	defer cancel()
	sub, err := a.Subscribe(ctx, room, sink)
	if err != nil {
		c.t.Fatal(err)
	}
	go b.start(room, bus.Draft{Body: []byte("one")}) // may be the one who calls the sink
	c.await(sink.began, "the first message")
	for _, body := range numbered("m", 100) {
		b.publish(room, body) // and these wait
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		sub.Close()
		sink.End()
		if sink.inside.Load() {
			c.t.Error("the subscription was closed while its sink was being called")
		}
	}()
	select {
	case <-closed:
	case <-time.After(50 * time.Millisecond): // the longer, the more surely a Close that does not wait is caught
	}
	close(sink.free)
	c.await(closed, "the subscription's end")
	b.publish(room, "end")
	witness.WaitBody(c.t, "end")
}

func nothingAfterClose(c *cluster) {
	a, b := c.open(), c.open()
	_, witness := a.subscribe(room)
	var recorders []*Recorder
	for i := range 10 {
		name := room
		if i > 0 {
			name = fmt.Sprint("room", i)
		}
		_, r := b.subscribe(name)
		c.talk(a, name, "m")
		recorders = append(recorders, r)
	}
	for _, r := range recorders {
		r.Wait(c.t, "traffic", func(s Seen) bool { return len(s.Messages) > 3 })
	}
	b.close()
	for _, r := range recorders {
		r.End()
	}
	seen := len(witness.Seen().Messages)
	witness.Wait(c.t, "traffic to go on", func(s Seen) bool { return len(s.Messages) > seen+50 })
}

func callsAfterClose(c *cluster) {
	a, b := c.open(), c.open()
	_, witness := b.subscribe(room)
	a.subscribe(room)
	a.close()
	if err := a.Close(); err != nil {
		c.t.Errorf("Close again: %v", err)
	}
	if o := a.await(a.start(room, keyed("u", "k", "too late"))); !errors.Is(o.err, bus.ErrClosed) {
		c.t.Errorf("Publish: %v", o.err)
	}
	done := make(chan error, 1)
	a.Signal(room, nil, func(err error) { done <- err })
	if err := <-done; !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Signal: %v", err)
	}
	ctx, cancel := patient()
	defer cancel()
	if _, err := a.Subscribe(ctx, room, NewRecorder(c.t)); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Subscribe: %v", err)
	}
	if _, err := a.After(ctx, room, bus.ID{}, 1, 0); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("After: %v", err)
	}
	if _, err := a.Before(ctx, room, bus.ID{}, 1, 0); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Before: %v", err)
	}
	if _, err := a.Roster(ctx, room); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Roster: %v", err)
	}
	if _, err := a.Rooms(ctx); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Rooms: %v", err)
	}
	if err := a.Post(ctx, "too late", time.Now().Add(time.Hour)); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Post: %v", err)
	}
	if _, _, err := a.Posted(ctx, ""); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Posted: %v", err)
	}
	if _, err := a.Draw(ctx, "u", 1, 1, 1); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Draw: %v", err)
	}
	if _, err := a.Count(ctx, "u", "a", 1, time.Hour); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Count: %v", err)
	}
	if err := a.Ready(); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Ready: %v", err)
	}
	b.publish(room, "still here")
	seen := witness.WaitBody(c.t, "still here")
	check(c.t, "what others saw", seen.Bodies(), []string{"still here"})
	check(c.t, "signals that others saw", len(seen.Signals), 0)
}

func closeSettles(c *cluster) {
	a, b := c.open(), c.open()
	var results []<-chan outcome
	want := numbered("m", 500)
	for _, body := range want {
		results = append(results, a.start(room, bus.Draft{Body: []byte(body)}))
	}
	a.close()
	kept := map[bus.ID]string{}
	for _, m := range b.after(room, bus.ID{}, len(want)).Messages {
		kept[m.ID] = string(m.Body)
	}
	for i, result := range results {
		select {
		case o := <-result:
			switch {
			case o.err == nil && kept[o.id] != want[i]:
				c.t.Errorf("draft %d was acknowledged as %v, which is %q", i, o.id, kept[o.id])
			case o.err != nil && !errors.Is(o.err, bus.ErrClosed) && !errors.Is(o.err, bus.ErrUnavailable):
				c.t.Errorf("draft %d: %v", i, o.err)
			}
		default:
			c.t.Errorf("draft %d was not settled when Close returned", i)
		}
	}
}
