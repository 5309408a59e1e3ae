package bustest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"parley/bus"
)

// momentFaults break the connections of a node at a bad moment: in each state that has to start anew on the next one.
var momentFaults = []promise{
	{name: "a break before a subscription was asked for", test: func(c *cluster) { brokenSubscribe(c, (*proxy).holdRequest, "SUBSCRIBE") }},
	{name: "a break before a subscription is confirmed", test: func(c *cluster) { brokenSubscribe(c, (*proxy).holdAnswer, "subscribe") }},
	{name: "a break before a subscription is ended", test: func(c *cluster) { brokenUnsubscribe(c, (*proxy).holdRequest, "UNSUBSCRIBE") }},
	{name: "a break before a subscription's end is confirmed", test: func(c *cluster) { brokenUnsubscribe(c, (*proxy).holdAnswer, "unsubscribe") }},
	{name: "a break before sends arrive", test: func(c *cluster) { brokenSends(c, (*proxy).holdRequest, "m0.") }},
	{name: "a break before sends are answered", test: brokenAnswers},
	{name: "a break before the script is missed", test: func(c *cluster) { brokenWithoutScript(c, (*proxy).holdAnswer, "NOSCRIPT") }},
	{name: "a break before the script is sent again", test: func(c *cluster) { brokenWithoutScript(c, (*proxy).holdRequest, "LOAD") }},
	{name: "a break in the midst of an answer", test: tornAnswer},
	{name: "a break in the midst of a message", test: tornMessage},
	{name: "a break before the log is read", test: func(c *cluster) { brokenRead(c, (*proxy).holdRequest, "xrange") }},
	{name: "a break before the log was read", test: func(c *cluster) { brokenRead(c, (*proxy).holdAnswer, "missed") }},
	{name: "a break in the midst of reading the log", test: tornRead},
	{name: "a break before a loss is written down", test: func(c *cluster) { brokenMarker(c, (*proxy).holdRequest) }},
	{name: "after scripts were forgotten each send gets its own answer", test: answersAfterReload},
}

// hold is a method of proxy that keeps something from passing.
type hold func(p *proxy, match string) (held <-chan struct{}, release func())

// subscribing subscribes in the background.
func (n *node) subscribing(room string) (r *Recorder, subscribed <-chan error) {
	r = NewRecorder(n.t)
	done := make(chan error, 1)
	go func() {
		ctx, cancel := patient()
		defer cancel()
		s, err := n.Subscribe(ctx, room, r)
		if err == nil {
			r.From(s.Last())
		}
		done <- err
	}()
	return r, done
}

func (n *node) awaitSubscribed(subscribed <-chan error) {
	n.t.Helper()
	select {
	case err := <-subscribed:
		if err != nil {
			n.t.Errorf("subscribe: %v", err)
		}
	case <-time.After(patience + slack):
		n.t.Errorf("not subscribed after %v", patience)
	}
}

func brokenSubscribe(c *cluster, hold hold, match string) {
	a, b := c.openProxied(), c.open()
	_, before := a.subscribe("before") // after it the heartbeats' own subscription is over
	recorders := map[string]*Recorder{"before": before}
	for _, name := range numbered("room", 3) {
		held, release := hold(a.wire, match)
		r, subscribed := a.subscribing(name)
		c.await(held, "the subscription")
		a.wire.cut()
		release()
		a.awaitSubscribed(subscribed)
		recorders[name] = r
		for name, r := range recorders {
			body := fmt.Sprint("in ", name, " after ", len(recorders))
			b.publish(name, body)
			r.WaitBody(c.t, body)
		}
	}
}

// brokenUnsubscribe has a room left and joined again, while the end of the first subscription is on its way.
func brokenUnsubscribe(c *cluster, hold hold, match string) {
	a, b := c.openProxied(), c.open()
	_, other := a.subscribe("other")
	for _, name := range numbered("room", 3) {
		sub, r := a.subscribe(name)
		held, release := hold(a.wire, match)
		sub.Close()
		r.End()
		c.await(held, "the end of the subscription")
		again, subscribed := a.subscribing(name)
		a.wire.cut()
		release()
		a.awaitSubscribed(subscribed)
		for in, r := range map[string]*Recorder{name: again, "other": other} {
			body := fmt.Sprint("in ", in, " after ", name)
			b.publish(in, body)
			r.WaitBody(c.t, body)
		}
	}
}

// sends starts keyed sends between before and broken, repeats them in their order once all are settled, as a client does, and
// expects each once and in order.
func (c *cluster) sends(from *node, before, broken func()) {
	c.t.Helper()
	_, r := c.open().subscribe(room)
	_, own := from.subscribe(room)
	before()
	all := numbered("m", 600) // several flights
	for i := range all {
		all[i] += "."
	}
	var results []<-chan outcome
	for _, body := range all {
		results = append(results, from.start(room, keyed("u", body, body)))
	}
	broken()
	for i, result := range results {
		if o := from.await(result); o.err != nil && !errors.Is(o.err, bus.ErrUnavailable) {
			c.t.Errorf("%s: %v", all[i], o.err)
		}
	}
	ids := make([]bus.ID, len(all))
	for i, body := range all {
		var err error
		if ids[i], err = from.repeat(room, keyed("u", body, body)); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, r := range []*Recorder{r, own} {
		c.allArrived(r, from, room, all)
		for i, m := range r.Seen().Messages {
			if m.ID != ids[i] {
				c.t.Fatalf("%q was delivered as %v and acknowledged as %v", m.Body, m.ID, ids[i])
			}
		}
	}
}

func brokenSends(c *cluster, hold hold, match string) {
	a := c.openProxied()
	held, release := hold(a.wire, match)
	c.sends(a, func() {}, func() {
		c.await(held, "the first send")
		a.wire.cut()
		release()
	})
}

func brokenAnswers(c *cluster) {
	a, b := c.openProxied(), c.open()
	_, r := b.subscribe("elsewhere")
	a.publish("elsewhere", "before")
	r.WaitBody(c.t, "before")
	c.sends(a, func() {}, func() {
		a.wire.deafen()
		until(c.t, "something to be in the log", func() bool { return len(b.after(room, bus.ID{}, 1).Messages) > 0 })
		a.wire.cut()
		a.wire.thaw()
	})
}

func (c *cluster) forgetScripts() {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	if err := c.server.Client().ScriptFlush(ctx).Err(); err != nil {
		c.t.Fatal(err)
	}
}

func brokenWithoutScript(c *cluster, hold hold, match string) {
	a := c.openProxied()
	var held <-chan struct{}
	var release func()
	c.sends(a, func() {
		c.forgetScripts()
		held, release = hold(a.wire, match)
	}, func() {
		c.await(held, "the script to be missed")
		a.wire.cut()
		release()
	})
}

// answersAfterReload has the answers to what is sent again come one by one, the last of them late.
func answersAfterReload(c *cluster) {
	a := c.openProxied()
	d := keyed("u", "k", "once")
	first := a.mustPublish(room, d)
	for range 3 {
		held, release := a.wire.holdAnswer(first.String())
		c.forgetScripts()
		result := a.start(room, d)
		c.await(held, "the answer")
		select {
		case o := <-result:
			c.t.Errorf("settled before the answer came: %v, %v", o.id, o.err)
		case <-time.After(20 * time.Millisecond): // the longer, the more surely one that does not wait is caught
		}
		release()
		if o := a.await(result); o.id != first || o.err != nil {
			c.t.Errorf("got %v, %v; the first was %v", o.id, o.err, first)
		}
	}
}

func tornAnswer(c *cluster) {
	a, b := c.openProxied(), c.open()
	_, r := b.subscribe(room) // and not a, who would be told of that id otherwise too
	d := keyed("u", "k", "once")
	first := a.mustPublish(room, d)
	for range 3 {
		torn := a.wire.tear(first.String())
		result := a.start(room, d)
		c.await(torn, "the answer")
		if o := a.await(result); !errors.Is(o.err, bus.ErrUnavailable) {
			c.t.Errorf("of half an answer: %v, %v", o.id, o.err)
		}
		again, err := a.repeat(room, d)
		if err != nil || again != first {
			c.t.Errorf("the repeat got %v, %v; the first was %v", again, err, first)
		}
	}
	a.publish(room, "end")
	check(c.t, "delivered", r.WaitBody(c.t, "end").Bodies(), []string{"once", "end"})
}

func tornMessage(c *cluster) {
	a, b := c.open(), c.openProxied()
	_, r := b.subscribe(room)
	for i := range 3 {
		torn := b.wire.tear("torn")
		a.publish(room, fmt.Sprint("torn", i, ".", string(make([]byte, 1000))))
		c.await(torn, "the message")
		r.Wait(c.t, "it all the same", func(s Seen) bool { return len(s.Messages) > i })
	}
}

// brokenRead has a read go wrong. It is tried again, though nothing happens in the room.
func brokenRead(c *cluster, hold hold, match string) {
	a, b := c.open(), c.openProxied()
	_, r := b.subscribe(room)
	dropped := b.wire.dropMessage("missed")
	a.publish(room, "missed")
	c.await(dropped, "the message to be dropped")
	held, release := hold(b.wire, match)
	a.publish(room, "next")
	c.await(held, "the log to be read")
	b.wire.cut()
	release()
	c.readAgain(r, "missed", "next")
}

func (c *cluster) readAgain(r *Recorder, want ...string) {
	c.t.Helper()
	since := time.Now()
	check(c.t, "delivered", r.WaitBody(c.t, want[len(want)-1]).Bodies(), want)
	c.within(10*time.Second, since, "reading again")
}

func tornRead(c *cluster) {
	a, b := c.open(), c.openProxied()
	_, r := b.subscribe(room)
	dropped := b.wire.dropMessage("missed")
	a.publish(room, "missed")
	c.await(dropped, "the message to be dropped")
	torn := b.wire.tear("missed") // in the answer to the read
	a.publish(room, "next")
	c.await(torn, "the log to be read")
	c.readAgain(r, "missed", "next")
}

// brokenMarker has a node find that the tail is lost, when it can't say so yet.
func brokenMarker(c *cluster, hold hold) {
	a := c.openProxied()
	_, r := a.subscribe(room)
	kept := a.publish(room, "kept")
	s := c.snapshot()
	lost := a.publish(room, "lost")
	last := a.publish(room, "lost too")
	r.WaitBody(c.t, "lost too")
	held, release := hold(a.wire, "\r\n"+last.String()+"\r\n") // the node's last id, as an argument
	c.rewind(s)
	c.await(held, "the node to write the loss down")
	a.wire.cut()
	release()
	c.waitBreak(r, last)
	for _, since := range []bus.ID{kept, lost, last} {
		c.told(c.open(), since)
	}
	c.goesOn(a, r)
	if breaks := r.Seen().Breaks(); len(breaks) != 1 || breaks[0].Lost != kept {
		c.t.Errorf("told of %v; what followed %v is lost", breaks, kept)
	}
	in := a.after(room, kept, 10).Messages
	check(c.t, "breaks in the log", len(slices.DeleteFunc(in, func(m bus.Message) bool { return !m.Break })), 1)
}
