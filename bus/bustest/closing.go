package bustest

import (
	"errors"
	"fmt"

	"parley/bus"
)

var closePromises = []promise{
	{name: "nothing comes after a subscription's end", test: nothingAfterSubscriptionClose},
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
	if _, err := a.After(ctx, room, bus.ID{}, 1); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("After: %v", err)
	}
	if _, err := a.Before(ctx, room, bus.ID{}, 1); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Before: %v", err)
	}
	if _, err := a.Roster(ctx, room); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Roster: %v", err)
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
