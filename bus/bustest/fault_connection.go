package bustest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/bus"
)

// connectionFaults are what the connections between nodes and a redis-server may go through.
var connectionFaults = []promise{
	{name: "an answer that is lost is found by the repeat", test: answerLost},
	{name: "a send without a key is not repeated behind its sender's back", test: noHiddenRepeat},
	{name: "what was published later does not overtake what is to be repeated", test: noOvertaking},
	{name: "what is published while a failure is told fails, too", test: publishedWhileFailing},
	{name: "connections that fell silent are replaced", test: silentConnections},
	{name: "killed subscription connections lose nothing", test: pubsubKilled},
	{name: "broken connections lose nothing", test: connectionsCut},
	{name: "an overflowed output buffer loses nothing", test: bufferOverflow},
	{name: "what was trimmed before it arrived is told", test: overflowAndTrim, retention: bus.Retention{Size: 10}},
	{name: "a message that did not arrive comes before the next", test: messageDropped},
	{name: "the last message of a quiet room is missed and found", test: lastMessageDropped},
	{name: "a room whose keys are spoilt harms no other", test: spoiltKeys},
	{name: "Sync finds a message that did not arrive", test: syncFinds, settings: uncompared},
	{name: "a node that stood still catches up", test: stoodStill},
	{name: "Close ends, though the server is out of reach", test: closeOutOfReach},
}

func answerLost(c *cluster) {
	a, b := c.openProxied(), c.open()
	_, atB := b.subscribe(room)
	_, atA := a.subscribe(room)
	a.publish(room, "before")
	a.wire.deafen()
	d := keyed("u", "k", "meanwhile")
	result := a.start(room, d)
	first := atB.WaitBody(c.t, "meanwhile").Messages[1].ID // the first attempt had been carried out
	if o := a.await(result); !errors.Is(o.err, bus.ErrUnavailable) {
		c.t.Errorf("publish without an answer: %v, %v", o.id, o.err)
	}
	a.wire.thaw()
	again, err := a.repeat(room, d)
	if err != nil {
		c.t.Fatal(err)
	}
	check(c.t, "id that the repeat got", again, first)
	b.publish(room, "end")
	for _, r := range []*Recorder{atA, atB} {
		check(c.t, "delivered", r.WaitBody(c.t, "end").Bodies(), []string{"before", "meanwhile", "end"})
	}
}

func noHiddenRepeat(c *cluster) {
	a, b := c.openProxied(), c.open()
	_, atB := b.subscribe(room)
	a.publish(room, "before")
	a.wire.silence()
	if o := a.await(a.start(room, bus.Draft{Body: []byte("without a key")})); !errors.Is(o.err, bus.ErrUnavailable) {
		c.t.Errorf("publish without an answer: %v, %v", o.id, o.err)
	}
	a.publish(room, "end")
	check(c.t, "delivered", atB.WaitBody(c.t, "end").Bodies(), []string{"before", "without a key", "end"})
}

func noOvertaking(c *cluster) {
	a, b := c.openProxied(), c.open()
	_, atB := b.subscribe(room)
	a.publish(room, "before")
	held, release := a.wire.holdRequest("first of two")
	defer release()
	first, second := keyed("u", "1", "first of two"), keyed("u", "2", "second of two")
	results := []<-chan outcome{a.start(room, first)}
	c.await(held, "the publish to be sent")
	results = append(results, a.start(room, second))
	if o := a.await(results[0]); !errors.Is(o.err, bus.ErrUnavailable) {
		c.t.Errorf("publish that did not arrive: %v, %v", o.id, o.err)
	}
	a.await(results[1])
	for _, d := range []bus.Draft{first, second} { // a client repeats in the order in which it sent
		if _, err := a.repeat(room, d); err != nil {
			c.t.Fatal(err)
		}
	}
	release() // the late answer arrives now
	b.publish(room, "end")
	want := []string{"before", "first of two", "second of two", "end"}
	check(c.t, "delivered", atB.WaitBody(c.t, "end").Bodies(), want)
}

// silentConnections has nothing arrive on connections that stay open: no error tells.
// publishedWhileFailing publishes as soon as it hears of a failure, of which others in the room are to hear yet.
func publishedWhileFailing(c *cluster) {
	a := c.open()
	_, r := a.subscribe(room)
	a.publish(room, "before")
	c.server.Pause()
	outcomes := make(chan error, 2)
	a.Publish(room, keyed("u", "1", "first"), func(_ bus.ID, err error) {
		outcomes <- err
		c.server.Resume() // from here on it could be done
		a.Publish(room, keyed("u", "2", "second"), func(_ bus.ID, err error) { outcomes <- err })
	})
	for _, which := range []string{"first", "second"} {
		select {
		case err := <-outcomes:
			if !errors.Is(err, bus.ErrUnavailable) {
				c.t.Errorf("the %s: %v", which, err)
			}
		case <-time.After(patience):
			c.t.Fatalf("the %s is not settled", which)
		}
	}
	a.publish(room, "after")
	r.WaitBody(c.t, "after")
}

func silentConnections(c *cluster) {
	a, b := c.openProxied(), c.open()
	_, atA := a.subscribe(room)
	b.publish(room, "before")
	atA.WaitBody(c.t, "before")
	a.wire.silence()
	silent := time.Now()
	b.publish(room, "meanwhile")
	check(c.t, "delivered", atA.WaitBody(c.t, "meanwhile").Bodies(), []string{"before", "meanwhile"})
	until(c.t, "a signal to arrive again", func() bool { // no log has signals, so only the new connection can bring it
		b.Signal(room, []byte("s"), func(error) {})
		return len(atA.Seen().Signals) > 0
	})
	c.within(10*time.Second, silent, "replacing connections")
	until(c.t, "the node to be ready", func() bool { return a.Ready() == nil })
	a.publish(room, "end")
	atA.WaitBody(c.t, "end")
}

func pubsubKilled(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	talk := c.talk(a, room, "m")
	redis := c.server.Client()
	for range 5 {
		seen := len(atB.Seen().Messages)
		atB.Wait(c.t, "traffic", func(s Seen) bool { return len(s.Messages) > seen+20 })
		ctx, cancel := patient()
		killed, err := redis.ClientKillByFilter(ctx, "TYPE", "pubsub").Result()
		cancel()
		if err != nil {
			c.t.Fatal(err)
		}
		if killed == 0 {
			c.t.Log("no subscription connection was open") // they are being opened again
		}
	}
	seen := len(atB.Seen().Messages)
	atB.Wait(c.t, "traffic to go on", func(s Seen) bool { return len(s.Messages) > seen+20 })
	published := talk.stop()
	c.allArrived(atA, a, room, published)
	c.allArrived(atB, b, room, published)
	check(c.t, "reconnects that the observer was told of", b.seen.count(&b.seen.reconnects) > 0, true)
}

func connectionsCut(c *cluster) {
	a, b := c.openProxied(), c.openProxied()
	_, r := b.subscribe(room)
	talk := c.talk(a, room, "m")
	for i := range 6 {
		seen := len(r.Seen().Messages)
		r.Wait(c.t, "traffic", func(s Seen) bool { return len(s.Messages) > seen+20 })
		[]*node{a, b}[i%2].wire.cut()
	}
	seen := len(r.Seen().Messages)
	r.Wait(c.t, "traffic to go on", func(s Seen) bool { return len(s.Messages) > seen+20 })
	c.allArrived(r, a, room, talk.stop())
}

func bufferOverflow(c *cluster) {
	a, b := c.open(), c.openProxied()
	_, atB := b.subscribe(room)
	want := c.overflow(a, b, atB)
	seen := atB.Wait(c.t, "the burst", func(s Seen) bool { return len(s.Messages) >= len(want) })
	if !slices.Equal(seen.Bodies(), want) {
		c.t.Errorf("not what was published was delivered")
	}
	until(c.t, "the observer to be told of a repair: the buffer overflowed", func() bool { // after the last message
		return b.seen.count(&b.seen.repaired) > 0
	})
}

// overflow publishes more than the server keeps for a subscriber that takes nothing, and gives the bodies.
func (c *cluster) overflow(from, to *node, r *Recorder) []string {
	c.t.Helper()
	c.configure("client-output-buffer-limit", "pubsub 64kb 0 0")
	from.publish(room, "before")
	r.WaitBody(c.t, "before")
	to.wire.deafen()
	want := []string{"before"}
	var results []<-chan outcome
	for i := range 1500 {
		want = append(want, fmt.Sprint(i, strings.Repeat("x", 2000)))
		results = append(results, from.start(room, keyed("u", fmt.Sprint(i), want[i+1])))
	}
	for _, result := range results {
		if o := from.await(result); o.err != nil {
			c.t.Fatalf("publish: %v", o.err)
		}
	}
	to.wire.thaw()
	return want
}

func overflowAndTrim(c *cluster) {
	a, b := c.open(), c.openProxied()
	_, atB := b.subscribe(room)
	want := c.overflow(a, b, atB)
	got := atB.WaitBody(c.t, want[len(want)-1]).Messages
	i := slices.IndexFunc(got, func(m bus.Message) bool { return m.Break })
	if i < 1 {
		c.t.Fatalf("of %d messages %d arrived, without a break", len(want), len(got))
	}
	check(c.t, "what was delivered before the break", slices.Equal(bodies(got[:i]), want[:i]), true)
	check(c.t, "after which all is lost", got[i].Lost, got[i-1].ID)
	rest := bodies(got[i+1:])
	check(c.t, "what was delivered after the break", slices.Equal(rest, want[len(want)-len(rest):]), true)
}

func messageDropped(c *cluster) {
	a, b := c.open(), c.openProxied()
	_, r := b.subscribe(room)
	a.publish(room, "one")
	dropped := b.wire.dropMessage("lost on the way")
	a.publish(room, "lost on the way")
	c.await(dropped, "the message to be dropped")
	a.publish(room, "two")
	check(c.t, "delivered", r.WaitBody(c.t, "two").Bodies(), []string{"one", "lost on the way", "two"})
}

func (c *cluster) await(event <-chan struct{}, what string) {
	c.t.Helper()
	select {
	case <-event:
	case <-time.After(patience):
		c.t.Fatalf("waited %v in vain for %s", patience, what)
	}
}

func lastMessageDropped(c *cluster) {
	a, b := c.open(), c.openProxied()
	_, first := b.subscribe("first")
	_, r := b.subscribe(room)
	a.publish(room, "before")
	r.WaitBody(c.t, "before")
	c.findsLast(a, b, room, r)
	c.findsLast(a, b, "first", first) // without a message before it
}

// findsLast has a node miss a message, and find it though none follows.
func (c *cluster) findsLast(from, to *node, name string, r *Recorder) {
	c.t.Helper()
	dropped := to.wire.dropMessage("last in " + name)
	from.publish(name, "last in "+name)
	c.await(dropped, "the message to be dropped")
	since := time.Now()
	r.WaitBody(c.t, "last in "+name)
	c.within(10*time.Second, since, "finding the last message of "+name)
}

// spoiltKeys has keys of some rooms be of a kind that no command takes. All else goes on: what is missed in others is found, who is there
// is told, and a dead node leaves.
func spoiltKeys(c *cluster) {
	a, b, dead := c.open(), c.openProxied(), c.openProxied()
	sub, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	subDead, _ := dead.subscribe(room)
	enterAll(c, subDead, atA, "ann")
	heard := make(map[string]*Recorder)
	for _, name := range numbered("spoilt", 100) { // so many that each is compared together with some of them
		s, r := b.subscribe(name)
		s.Enter(bus.Member{ID: "bob"})
		heard[name] = r
	}
	for name, r := range heard {
		r.Wait(c.t, "bob to be in "+name, changed(bus.Joined, "bob", 1))
	}
	ctx, cancel := patient()
	defer cancel()
	client := c.server.Client()
	spoilt := 0
	for _, key := range client.Keys(ctx, "*spoilt*").Val() {
		if client.Type(ctx, key).Val() == "hash" {
			must(c, client.Del(ctx, key).Err())
			must(c, client.Set(ctx, key, "spoilt", 0).Err())
			spoilt++
		}
	}
	check(c.t, "keys of members that are spoilt", spoilt >= 200, true)
	c.findsLast(a, b, room, atB)
	enterAll(c, sub, atB, "dan")
	dead.die()
	since := time.Now()
	atB.Wait(c.t, "ann to leave", changed(bus.Left, "ann", 1))
	c.within(leaseOver, since, "leaving")
	until(c.t, "the node to be ready", func() bool { return a.Ready() == nil && b.Ready() == nil })
}

func stoodStill(c *cluster) {
	a, b := c.openProxied(), c.open()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	talk := c.talk(b, room, "m")
	atA.Wait(c.t, "traffic", func(s Seen) bool { return len(s.Messages) > 20 })
	a.wire.freeze()
	frozen := time.Now()
	until(c.t, "the frozen node to say that it is deaf", func() bool { return a.Ready() != nil })
	c.within(10*time.Second, frozen, "noticing that all is silent")
	a.wire.thaw()
	until(c.t, "the node to be ready again", func() bool { return a.Ready() == nil })
	published := talk.stop()
	c.allArrived(atA, a, room, published)
	c.allArrived(atB, b, room, published)
}

func closeOutOfReach(c *cluster) {
	a := c.openProxied()
	sub, _ := a.subscribe(room)
	sub.Enter(bus.Member{ID: "ann"})
	a.wire.freeze()
	results := []<-chan outcome{a.start(room, keyed("u", "1", "m")), a.start(room, keyed("u", "2", "m"))}
	began := time.Now()
	a.close()
	c.within(10*time.Second, began, "Close")
	for _, result := range results {
		select {
		case o := <-result:
			if o.err == nil {
				c.t.Errorf("acknowledged without an answer: %v", o.id)
			}
		default:
			c.t.Error("a publish was not settled when Close returned")
		}
	}
}

func syncFinds(c *cluster) {
	a, b := c.open(), c.openProxied()
	sub, r := b.subscribe(room)
	for i := range 2 {
		body := fmt.Sprint("missed ", i)
		dropped := b.wire.dropMessage(body)
		a.publish(room, body)
		c.await(dropped, "the message to be dropped")
		since := time.Now()
		c.sync(sub)
		c.within(2*time.Second, since, "Sync")
		check(c.t, "delivered when Sync returned", r.Seen().Has(body), true)
	}
	a.publish(room, "before the loss")
	c.sync(sub)
	s := c.snapshot()
	a.publish(room, "lost")
	c.sync(sub)
	c.rewind(s)
	c.sync(sub)
	check(c.t, "breaks told when Sync returned", len(r.Seen().Breaks()), 1)
	b.wire.cut()
	c.sync(sub)
}
