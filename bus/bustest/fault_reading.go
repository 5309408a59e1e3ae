package bustest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/bus"
)

// readingFaults are about what happens while a node reads a room's log or roster, to make it whole. Nothing but what happens may find what is
// missing, so rooms are not compared with the server.
var readingFaults = []promise{
	{name: "what was missed during a read of the log is read after it", test: missedDuringRead, settings: uncompared},
	{name: "what arrives during a read of the log comes after it", test: arrivesDuringRead, settings: uncompared},
	{name: "what could not be held during a read of the log is read after it", test: tooMuchDuringRead, settings: uncompared},
	{name: "what could not be held while somebody joins is read after that", test: tooMuchDuringJoin, settings: uncompared},
	{name: "Sync is not over with a read of the log that began before it", test: syncDuringRead, settings: uncompared},
	{name: "Sync is over once the log was read, however long that takes", test: syncDuringLongRead, settings: uncompared},
	{name: "a change missed during a read of the roster is read after it", test: changedDuringRead, settings: uncompared},
	{name: "a roster that was compared while it was read is read again", test: comparedDuringRead, settings: Settings{Compare: 200 * time.Millisecond, Timeout: 20 * time.Second}},
	{name: "changes that came during a read of the roster are read where one of them is missing", test: missingDuringRead, settings: uncompared},
	{name: "a message of a log that goes on below what was delivered shows the loss", test: goesOnBelow, settings: uncompared},
	{name: "what the log loses after it was asked and before it is read shows", test: lostBeforeRead, settings: uncompared},
	{name: "what the log loses while somebody comes back to a room shows to who was away", test: lostBeforeJoin, settings: uncompared},
	{name: "what was acknowledged, did not arrive and is lost shows in what comes next", test: lostBeforeNext, settings: uncompared},
	{name: "what is acknowledged during a read of the log, and lost before it, shows", test: lostOnceAcknowledged, settings: uncompared},
	{name: "what Sync has found the log to have, and is lost then, shows", test: lostDuringSync, settings: uncompared},
	{name: "what a comparison has found the log to have, and is lost then, shows", test: lostOnceCompared, settings: Settings{Compare: 400 * time.Millisecond}},
	{name: "what a read has found the log to have, and is lost before it is read too, shows", test: lostBetweenPages, settings: uncompared},
	{name: "what is posted is known, at whatever moment it is read", test: postedDuringRead, settings: uncompared},
}

var uncompared = Settings{Compare: time.Hour, Timeout: 20 * time.Second}

// reading has a node miss "one" and read it from the log, of which the answer is held until release.
func (c *cluster) reading(from, to *node) (release func()) {
	c.t.Helper()
	dropped := to.wire.dropMessage("one")
	from.publish(room, "one")
	c.await(dropped, "the message to be dropped")
	held, release := to.wire.holdAnswer("one")
	from.publish(room, "two")
	c.await(held, "the log to be read")
	return release
}

// hears waits until what was said before has arrived, if it was to. Signals are passed on whatever a room waits for.
func (c *cluster) hears(from *node, r *Recorder) {
	c.t.Helper()
	before := len(r.Seen().Signals)
	until(c.t, "a signal", func() bool {
		from.Signal(room, []byte("s"), func(error) {})
		return len(r.Seen().Signals) > before
	})
}

// unsubscribed breaks the connections that subscribe. The node does not hear again until back is called.
func (c *cluster) unsubscribed(n *node) (back func()) {
	c.t.Helper()
	away, back := n.wire.holdRequest("SUBSCRIBE")
	ctx, cancel := patient()
	defer cancel()
	if err := c.server.Client().ClientKillByFilter(ctx, "TYPE", "pubsub").Err(); err != nil {
		c.t.Fatal(err)
	}
	c.await(away, "the node to subscribe again")
	return back
}

// missedDuringRead has the connection break while the log is read. What is said before it is replaced is in neither.
func missedDuringRead(c *cluster) {
	a, b := c.open(), c.openProxied()
	_, r := b.subscribe(room)
	c.hears(a, r)
	release := c.reading(a, b)
	back := c.unsubscribed(b)
	a.publish(room, "three")
	back()
	c.hears(a, r)
	release()
	check(c.t, "delivered", r.WaitBody(c.t, "three").Bodies(), []string{"one", "two", "three"})
}

// arrivesDuringRead has a message arrive that the read is too early for.
func arrivesDuringRead(c *cluster) {
	a, b := c.open(), c.openProxied()
	_, r := b.subscribe(room)
	c.hears(a, r)
	release := c.reading(a, b)
	a.publish(room, "three")
	c.hears(a, r)
	release()
	check(c.t, "delivered", r.WaitBody(c.t, "three").Bodies(), []string{"one", "two", "three"})
}

// syncDuringRead has a message that is acknowledged while the log is read, and does not arrive.
func syncDuringRead(c *cluster) { syncWhileReading(c, 0) }

// syncDuringLongRead has the read last longer than anything that was published takes to arrive.
func syncDuringLongRead(c *cluster) { syncWhileReading(c, 1500*time.Millisecond) }

func syncWhileReading(c *cluster, long time.Duration) {
	a, b := c.open(), c.openProxied()
	sub, r := b.subscribe(room)
	c.hears(a, r)
	release := c.reading(a, b)
	dropped := b.wire.dropMessage("three")
	three := a.publish(room, "three")
	c.await(dropped, "the message to be dropped")
	asked, answer := b.wire.holdAnswer(three.String())
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		c.sync(sub)
	}()
	c.await(asked, "the newest id to be asked for")
	answer()
	c.hears(b, r) // over the same connection, so it has the answer
	time.Sleep(long)
	release()
	c.await(synced, "Sync")
	check(c.t, "delivered when Sync returned", r.Seen().Has("three"), true)
}

// A rosterRead is a read of who is in the room, over b, which has missed that bob entered over a. The answer is held until release.
type rosterRead struct {
	c       *cluster
	a, b    *node
	sub     bus.Subscription // of a
	atA     *Recorder
	atB     *Recorder
	release func()
}

func (c *cluster) readingRoster() *rosterRead {
	c.t.Helper()
	r := &rosterRead{c: c, a: c.open(), b: c.openProxied()}
	r.sub, r.atA = r.a.subscribe(room)
	_, r.atB = r.b.subscribe(room)
	r.enter("ann")
	r.joined("ann")
	r.misses("bob")
	held, release := r.b.wire.holdAnswer("bob")
	r.enter("cay")
	c.await(held, "the roster to be read")
	r.release = release
	return r
}

// enter has a user enter over a.
func (r *rosterRead) enter(user string) {
	r.c.t.Helper()
	r.sub.Enter(bus.Member{ID: user})
	r.atA.Wait(r.c.t, user+" to join", changed(bus.Joined, user, 1))
}

// misses has a user enter of whom b is not told.
func (r *rosterRead) misses(user string) {
	r.c.t.Helper()
	dropped := r.b.wire.dropMessage(user)
	r.enter(user)
	r.c.await(dropped, "the change to be dropped")
}

// joined waits until b has told that users are there.
func (r *rosterRead) joined(users ...string) {
	r.c.t.Helper()
	for _, user := range users {
		r.atB.Wait(r.c.t, user+" to join", changed(bus.Joined, user, 1))
	}
}

// changedDuringRead has the connection break while the roster is read. Who enters before it is replaced is in neither.
func changedDuringRead(c *cluster) {
	r := c.readingRoster()
	back := c.unsubscribed(r.b)
	r.enter("dan")
	back()
	c.hears(r.a, r.atB)
	r.release()
	r.joined("bob", "cay", "dan")
}

// comparedDuringRead has a comparison want the roster read, too, which it is then. What is missed later is read all the same.
func comparedDuringRead(c *cluster) {
	r := c.readingRoster()
	reads := func() int { return Calls(c.t, c.server.Client())["hgetall"] }
	before := reads()
	until(c.t, "comparisons over both nodes", func() bool { return reads() >= before+4 })
	r.release()
	r.joined("bob", "cay")
	r.misses("dan")
	r.enter("eve")
	r.joined("dan", "eve")
}

// tooMuchDuringRead has more come last than is held of a room, so that nothing after it can show that it is missing.
func tooMuchDuringRead(c *cluster) {
	a, b := c.open(), c.openProxied()
	_, r := b.subscribe(room)
	for i, n := range []int{0, 5000, 0} {
		release := c.reading(a, b)
		for range n {
			a.start(room, bus.Draft{Body: make([]byte, 1000)})
		}
		last := fmt.Sprint(i, strings.Repeat("x", 3<<20))
		a.publish(room, last)
		c.hears(a, r)
		release()
		r.WaitBody(c.t, last)
	}
}

// tooMuchDuringJoin has more arrive than is held, before it is known where the log of a room that somebody joins ends.
func tooMuchDuringJoin(c *cluster) {
	a, b := c.open(), c.openProxied()
	a.publish(room, "newest")
	held, release := b.wire.holdAnswer("newest")
	r, subscribed := b.subscribing(room)
	c.await(held, "the log to be read")
	want := []string{"1" + strings.Repeat("x", 700<<10), "2" + strings.Repeat("x", 700<<10), "3"}
	for _, body := range want {
		a.publish(room, body)
	}
	for _, other := range numbered("other", 6) { // over all links: what came before has arrived
		b.subscribe(other)
	}
	release()
	check(c.t, "subscribing", <-subscribed, nil)
	check(c.t, "different from what was said", slices.Equal(r.WaitBody(c.t, "3").Bodies(), want), true)
}

// missingDuringRead has two changes come while the roster is read, of which the first does not arrive.
func missingDuringRead(c *cluster) {
	a, b := c.open(), c.openProxied()
	sub, atA := a.subscribe(room)
	subB, atB := b.subscribe(room)
	enterAll(c, sub, atA, "ann")
	atB.Wait(c.t, "ann to join", changed(bus.Joined, "ann", 1))
	dropped := b.wire.dropMessage("bob")
	enterAll(c, sub, atA, "bob")
	c.await(dropped, "the change to be dropped")
	held, release := b.wire.holdAnswer("bob")
	enterAll(c, sub, atA, "cay")
	c.await(held, "the roster to be read")
	dropped = b.wire.dropMessage("dan")
	enterAll(c, sub, atA, "dan")
	c.await(dropped, "the change to be dropped")
	enterAll(c, sub, atA, "eve", "fay")
	c.hears(a, atB)
	release()
	for _, user := range []string{"bob", "cay", "dan", "eve", "fay"} {
		atB.Wait(c.t, user+" to join", changed(bus.Joined, user, 1))
	}
	check(c.t, "who is there", users(subB.Roster()), []string{"ann", "bob", "cay", "dan", "eve", "fay"})
}

// goesOnBelow has a log that lost its tail go on below what was delivered, as nodes whose clock is behind may make it.
func goesOnBelow(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	c.backend.ClockBack(room)
	b.publish(room, "x")
	atA.WaitBody(c.t, "x")
	s := c.snapshot()
	for _, body := range numbered("lost", 20) {
		b.publish(room, body)
	}
	last := atA.WaitBody(c.t, "lost19").Messages
	c.rewind(s)
	if id := b.publish(room, "from who knows nothing"); !id.Less(last[len(last)-1].ID) {
		c.t.Fatalf("%v is not below what was delivered", id)
	}
	c.waitBreak(atA, last[len(last)-1].ID)
	c.goesOn(b, atA)
}

// lostBeforeRead has the log say that it has lost nothing, and lose all before it is read, though the connections stay. What it has then
// may be nothing at all, or follow what was lost.
func lostBeforeRead(c *cluster) {
	a, b := c.open(), c.openProxied()
	_, r := b.subscribe(room)
	for i, goesOn := range []bool{true, false} {
		seen := fmt.Sprint("seen ", i)
		last := a.publish(room, seen)
		r.WaitBody(c.t, seen)
		asked, pass := b.wire.holdRequest("xrange")
		c.unsubscribed(b)()
		c.await(asked, "the log to be read")
		c.flush()
		if goesOn {
			a.publish(room, "from who knows nothing")
		}
		pass()
		breaks := r.Wait(c.t, "the break", func(s Seen) bool { return len(s.Breaks()) > i }).Breaks()
		if last.Less(breaks[i].Lost) {
			c.t.Errorf("the break says that what followed %v is lost; the last was %v", breaks[i].Lost, last)
		}
		if goesOn {
			r.WaitBody(c.t, "from who knows nothing")
		}
	}
	c.goesOn(a, r)
}

// lostBeforeJoin has the log say that it has lost nothing of what the node knows, and lose it before it is known where it ends. What was
// lost was said before the node came, or as it did; or the connection broke first, as the log was asked.
func lostBeforeJoin(c *cluster) {
	for _, when := range []string{"before", "as it came", "before a break"} {
		for _, goesOn := range []bool{true, false} {
			name := fmt.Sprint("said ", when, ", goes on ", goesOn)
			a, other := c.openProxied(), c.open()
			kept := a.publish(name, "kept")
			s := c.snapshot()
			var asked <-chan struct{}
			var pass func()
			var subscribed <-chan error
			switch when {
			case "before":
				a.publish(name, "lost")
				asked, pass = a.wire.holdRequest("xrevrange")
				_, subscribed = a.subscribing(name)
			case "as it came":
				sent, release := a.wire.holdRequest("lost")
				said := a.start(name, bus.Draft{Body: []byte("lost")})
				c.await(sent, "the message to be sent")
				subscribed = a.beginning(name)
				asked, pass = a.wire.holdRequest("xrevrange")
				release()
				check(c.t, "outcome", a.await(said).err, nil)
			case "before a break":
				lost := a.publish(name, "lost")
				question, release := a.wire.holdRequest(lost.String())
				_, subscribed = a.subscribing(name)
				c.await(question, "the log to be asked")
				asked, pass = a.wire.holdRequest("xrevrange")
				a.wire.cut()
				release()
				until(c.t, "the next connection", func() bool {
					told := make(chan error, 1)
					a.Signal(name, nil, func(err error) { told <- err })
					return <-told == nil
				})
			}
			c.await(asked, "the log to be read")
			c.rewind(s)
			if goesOn {
				other.publish(name, "from who knows nothing")
			}
			pass()
			check(c.t, "subscribing", <-subscribed, nil)
			if p := other.after(name, kept, 100); whole(p, kept) {
				c.t.Errorf("%s: a resume from what was kept seems whole: %v", name, bodies(p.Messages))
			}
		}
	}
}

// beginning is subscribing, and returns once that has begun: who does it at the same time is refused.
func (n *node) beginning(room string) (subscribed <-chan error) {
	n.t.Helper()
	_, one := n.subscribing(room)
	_, other := n.subscribing(room)
	var err error
	select {
	case err = <-one:
		subscribed = other
	case err = <-other:
		subscribed = one
	}
	if err == nil {
		n.t.Error("subscribed twice")
	}
	return subscribed
}

// lostBeforeNext has a message that was acknowledged never arrive at the node that said it, and be lost. What comes next there fits
// what came before.
func lostBeforeNext(c *cluster) {
	for _, next := range []string{"next", "Sync"} {
		a, b := c.openProxied(), c.open()
		sub, r := a.subscribe(next)
		a.publish(next, "kept")
		r.WaitBody(c.t, "kept")
		s := c.snapshot()
		dropped := a.wire.dropMessage("lost")
		lost := a.publish(next, "lost")
		c.await(dropped, "the message to be dropped")
		c.rewind(s)
		c.after(lost)
		if next == "Sync" {
			c.sync(sub)
			check(c.t, "told when Sync returned", bodies(r.Seen().Messages), []string{"kept", "break"})
			continue
		}
		b.publish(next, next)
		check(c.t, "told", bodies(r.WaitBody(c.t, next).Messages), []string{"kept", "break", next})
	}
}

// after waits until who knows nothing of an id makes none below it: in the same millisecond they have no order.
func (c *cluster) after(i bus.ID) {
	c.t.Helper()
	until(c.t, "the next millisecond", func() bool {
		ctx, cancel := patient()
		defer cancel()
		now, err := c.server.Client().Time(ctx).Result()
		return err == nil && now.UnixMilli() > int64(i.Ms)
	})
}

// lostOnceAcknowledged has a node be acknowledged what it says again, and has missed, when the log is on the way of being read.
func lostOnceAcknowledged(c *cluster) {
	a, b := c.openProxied(), c.open()
	_, r := a.subscribe(room)
	a.publish(room, "kept")
	r.WaitBody(c.t, "kept")
	s := c.snapshot()
	d := keyed("u", "k", "lost")
	back := c.unsubscribed(a)
	asked, pass := a.wire.holdRequest("xrange")
	id := b.mustPublish(room, d)
	back()
	c.await(asked, "the log to be read")
	check(c.t, "id of a repeat", a.mustPublish(room, d), id)
	c.rewind(s)
	c.after(id)
	b.publish(room, "next")
	pass()
	check(c.t, "told", bodies(r.WaitBody(c.t, "next").Messages), []string{"kept", "break", "next"})
}

// lostBetweenPages has a node miss more than it reads at once, of which the log loses the end before the node has read that.
func lostBetweenPages(c *cluster) {
	a, b := c.openProxied(), c.open()
	_, r := a.subscribe(room)
	say := func(bodies ...string) (last bus.ID) {
		c.t.Helper()
		var said []<-chan outcome
		for _, body := range bodies {
			said = append(said, b.start(room, bus.Draft{Body: []byte(body)}))
		}
		for _, result := range said {
			last = b.await(result).id
		}
		return last
	}
	first, pass := a.wire.holdRequest("xrange")
	var dropped []<-chan struct{}
	for _, body := range []string{"kept0", "lost", "lost too"} {
		dropped = append(dropped, a.wire.dropMessage(body))
	}
	say(numbered("kept", 1200)...)
	c.await(first, "the log to be read")
	s := c.snapshot()
	last := say("lost", "lost too")
	for _, missed := range dropped {
		c.await(missed, "the message to be dropped")
	}
	second, passToo := a.wire.holdRequest("xrange")
	pass()
	c.await(second, "more of it to be read")
	c.rewind(s)
	passToo()
	c.waitBreak(r, last)
	check(c.t, "messages delivered", len(r.Seen().Bodies()), 1200)
}

// lostDuringSync has the log lose what it had when Sync asked for its end.
func lostDuringSync(c *cluster) {
	lostOnceSeen(c, func(sub bus.Subscription, r *Recorder, lose func()) {
		synced := make(chan struct{})
		go func() {
			defer close(synced)
			c.sync(sub)
		}()
		lose()
		c.await(synced, "Sync")
		check(c.t, "told when Sync returned", bodies(r.Seen().Messages), []string{"kept", "break"})
	})
}

// lostOnceCompared is the same of a comparison.
func lostOnceCompared(c *cluster) {
	lostOnceSeen(c, func(_ bus.Subscription, r *Recorder, lose func()) {
		lose()
		r.Wait(c.t, "the break", func(s Seen) bool { return len(s.Breaks()) == 1 })
	})
}

// lostOnceSeen has a node miss a message from outside the room. lose waits until the node has asked for the newest id and has the log lose
// the message before the answer arrives.
func lostOnceSeen(c *cluster, find func(sub bus.Subscription, r *Recorder, lose func())) {
	a, b := c.openProxied(), c.open()
	sub, r := a.subscribe(room)
	a.publish(room, "kept")
	r.WaitBody(c.t, "kept")
	s := c.snapshot()
	a.wire.hush()
	dropped := a.wire.dropMessage("lost")
	lost := b.publish(room, "lost")
	c.await(dropped, "the message to be dropped")
	asked, answer := a.wire.holdAnswer(lost.String())
	a.wire.thaw()
	find(sub, r, func() {
		c.await(asked, "the newest id to be asked for")
		c.rewind(s)
		answer()
	})
}

// postedDuringRead has a text posted between the two requests of who reads, and the other way round.
func postedDuringRead(c *cluster) {
	a, b := c.openProxied(), c.openProxied()
	ctx := context.Background()
	var known []string
	version := ""
	read := func() {
		texts, v, err := b.Posted(ctx, version)
		check(c.t, "reading", err, nil)
		known, version = append(known, texts...), v
	}
	post := func(text string) {
		check(c.t, "posting "+text, a.Post(ctx, text, time.Now().Add(time.Hour)), nil)
	}
	between := func(n *node, do, meanwhile func()) {
		first, pass := n.wire.holdRequest("{%board}")
		done := make(chan struct{})
		go func() {
			defer close(done)
			do()
		}()
		c.await(first, "the first request")
		second, end := n.wire.holdRequest("{%board}")
		pass()
		c.await(second, "the second request")
		meanwhile()
		end()
		c.await(done, "both")
	}
	post("before")
	between(b, read, func() { post("while it is read") })
	read()
	between(a, func() { post("as it is read") }, read)
	read()
	for _, text := range []string{"before", "while it is read", "as it is read"} {
		if !slices.Contains(known, text) {
			c.t.Errorf("%q is not known; known are %q", text, known)
		}
	}
}
