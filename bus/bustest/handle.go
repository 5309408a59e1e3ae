package bustest

import (
	"errors"
	"fmt"
	"time"

	"parley/bus"
)

var handlePromises = []promise{
	{name: "a subscription publishes as the bus does", test: subscriptionPublishes},
	{name: "a closed subscription publishes still", test: closedSubscriptionPublishes},
	{name: "a subscription of a closed bus publishes nothing", test: subscriptionOfAClosedBus},
	{name: "a signal is answered, though nobody is there", test: signalToNobody},
	{name: "a handle subscribes to a room once, and again when that is over", test: subscribedTwice},
}

// over publishes over a subscription and must succeed.
func over(c *cluster, s bus.Subscription, d bus.Draft) bus.ID {
	c.t.Helper()
	result := make(chan outcome, 1)
	s.Publish(d, func(i bus.ID, err error) { result <- outcome{i, err} })
	o := <-result
	if o.err != nil {
		c.t.Fatalf("publish %q: %v", d.Body, o.err)
	}
	return o.id
}

func subscriptionPublishes(c *cluster) {
	a, b := c.open(), c.open()
	sub, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	var want []string
	for i := range 20 { // in turns: one order, whichever way
		one, other := fmt.Sprint("over the room ", i), fmt.Sprint("over the bus ", i)
		over(c, sub, keyed("u", one, one))
		a.publish(room, other)
		want = append(want, one, other)
	}
	d := keyed("u", "same", "once")
	check(c.t, "id of a repeat over the bus", a.mustPublish(room, d), over(c, sub, d))
	check(c.t, "id of a repeat over the room", over(c, sub, d), b.mustPublish(room, d))
	told := make(chan error, 1)
	sub.Signal([]byte("typing"), func(err error) { told <- err })
	if err := <-told; err != nil {
		c.t.Errorf("signal: %v", err)
	}
	want = append(want, "once")
	for _, r := range []*Recorder{atA, atB} {
		r.Wait(c.t, "the signal", func(s Seen) bool { return len(s.Signals) == 1 })
		check(c.t, "delivered", r.WaitBody(c.t, "once").Bodies(), want)
	}
}

func closedSubscriptionPublishes(c *cluster) {
	a, b := c.open(), c.open()
	sub, _ := a.subscribe(room)
	_, atB := b.subscribe(room)
	sub.Close()
	over(c, sub, keyed("u", "k", "late"))
	done := make(chan error, 1)
	sub.Signal([]byte("late too"), func(err error) { done <- err })
	if err := <-done; err != nil {
		c.t.Errorf("signal: %v", err)
	}
	atB.WaitBody(c.t, "late")
	atB.Wait(c.t, "the signal", func(s Seen) bool { return len(s.Signals) == 1 })

	empty, _ := a.subscribe("empty")
	empty.Close() // a bus may forget the room with it
	over(c, empty, keyed("u", "k", "late"))
	if page := b.after("empty", bus.ID{}, 10); len(page.Messages) != 1 {
		c.t.Errorf("the log of a room that nobody subscribes to has %d messages", len(page.Messages))
	}
}

func subscriptionOfAClosedBus(c *cluster) {
	a := c.open()
	sub, _ := a.subscribe(room)
	a.close()
	done := make(chan error, 2)
	sub.Publish(keyed("u", "k", "too late"), func(_ bus.ID, err error) { done <- err })
	sub.Signal(nil, func(err error) { done <- err })
	for range 2 {
		if err := <-done; !errors.Is(err, bus.ErrClosed) {
			c.t.Errorf("settled with %v", err)
		}
	}
}

func signalToNobody(c *cluster) {
	a := c.open()
	sub, _ := a.subscribe("left")
	sub.Close() // a bus may forget the room with it
	for name, signal := range map[string]func(done func(error)){
		"into a room that never was": func(done func(error)) { a.Signal("nowhere", []byte("typing"), done) },
		"into a room that was left":  func(done func(error)) { sub.Signal([]byte("typing"), done) },
	} {
		told := make(chan error, 1)
		signal(func(err error) { told <- err })
		select {
		case err := <-told:
			check(c.t, "a signal "+name, err, nil)
		case <-time.After(patience):
			c.t.Errorf("a signal %s is not answered", name)
		}
	}
}

func subscribedTwice(c *cluster) {
	a := c.open()
	sub, first := a.subscribe(room)
	second := NewRecorder(c.t)
	second.End()
	ctx, cancel := patient()
	defer cancel()
	if again, err := a.Subscribe(ctx, room, second); err == nil || again != nil {
		c.t.Errorf("the second subscription: %v, %v", again, err)
	}
	a.publish(room, "m")
	first.WaitBody(c.t, "m")
	sub.Close()
	first.End()
	_, third := a.subscribe(room)
	a.publish(room, "then")
	third.WaitBody(c.t, "then")
}
