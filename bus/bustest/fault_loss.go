package bustest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"parley/bus"
)

// lossFaults are those where the server loses what it had acknowledged. The nodes can't bring it back, but must say so.
var lossFaults = []promise{
	{name: "a flushed room breaks, for those there and those who come back", test: flushed},
	{name: "a flush noticed by the next message", test: flushedThenMessage},
	{name: "a server that restarts empty", test: restartEmpty},
	{name: "a lost tail, with the members present", test: lostTail},
	{name: "a lost tail, noticed by the next message", test: lostTailThenMessage},
	{name: "ids rise over a loss, though the clock lags", test: lossWithLaggingClock},
	{name: "a lost tail, and the connections with it", test: lostTailReconnect},
	{name: "a long lost tail is told from where it begins", test: longTail},
	{name: "a room whose last id was put back goes on, though the clock lags", test: lastIDPutBack},
	{name: "a lost tail, noticed by who published it", test: lostTailOfPublisher},
	{name: "a lost tail that was acknowledged and never delivered", test: lostUndelivered},
	{name: "a lost tail that was acknowledged once its publisher had left", test: lostAfterLeaving},
	{name: "a lost tail of a room that all leave before it shows", test: lostBeforeLeaving},
	{name: "what was posted is known though it is lost, and posted again", test: lostPosted},
}

// breakNoticed is how soon the comparison of last ids must find what no message tells.
const breakNoticed = 10 * time.Second

func (c *cluster) flush() {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	if err := c.server.Client().FlushAll(ctx).Err(); err != nil {
		c.t.Fatal(err)
	}
}

// waitBreak waits for a break that says that what followed some id, at most upTo, is lost.
func (c *cluster) waitBreak(r *Recorder, upTo bus.ID) bus.Message {
	c.t.Helper()
	since := time.Now()
	s := r.Wait(c.t, "the break", func(s Seen) bool { return len(s.Breaks()) > 0 })
	c.within(breakNoticed, since, "telling of the break")
	b := s.Breaks()[0]
	if upTo.Less(b.Lost) {
		c.t.Errorf("the break says that what followed %v is lost; the last was %v", b.Lost, upTo)
	}
	return b
}

// told fails the test if who resumes from since would not learn that something is lost.
func (c *cluster) told(n *node, since bus.ID) {
	c.t.Helper()
	if p := n.after(room, since, 100); whole(p, since) {
		c.t.Errorf("a resume from %v seems whole: %v after it, the newest break at %v", since, bodies(p.Messages), p.LastBreak)
	}
}

// goesOn fails the test unless what is published now arrives, and the log can be read on after the break.
func (c *cluster) goesOn(from *node, to ...*Recorder) {
	c.t.Helper()
	first := from.publish(room, "goes on 1")
	last := from.publish(room, "goes on 2")
	for _, r := range to {
		s := r.WaitBody(c.t, "goes on 2")
		tail := bodies(s.Messages[len(s.Messages)-2:])
		check(c.t, "the end of what was delivered", tail, []string{"goes on 1", "goes on 2"})
	}
	page := from.after(room, first, 10)
	check(c.t, "messages after the first that went on", bodies(page.Messages), []string{"goes on 2"})
	check(c.t, "complete", whole(page, first), true)
	check(c.t, "last", page.Last, last)
}

func flushed(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	first := a.publish(room, "one")
	last := a.publish(room, "two")
	atA.WaitBody(c.t, "two")
	atB.WaitBody(c.t, "two")
	c.flush()
	c.waitBreak(atA, last)
	c.waitBreak(atB, last)
	fresh := c.open()
	c.told(fresh, first)
	c.told(fresh, last) // nobody can know what followed it
	c.told(fresh, bus.ID{})
	c.goesOn(b, atA, atB)
	c.told(fresh, last)

	last = a.publish(room, "three")
	atA.WaitBody(c.t, "three")
	c.flush() // a second time
	for _, r := range []*Recorder{atA, atB} {
		r.Wait(c.t, "the second break", func(s Seen) bool { return len(s.Breaks()) > 1 })
	}
	c.told(fresh, last)
	c.told(fresh, bus.ID{})
}

func flushedThenMessage(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	a.publish(room, "one")
	last := a.publish(room, "two")
	atA.WaitBody(c.t, "two")
	c.flush()
	b.publish(room, "from a node that knows nothing")
	c.waitBreak(atA, last)
	c.told(b, last)
	c.goesOn(b, atA)
	c.told(b, bus.ID{})
	c.told(b, last)
}

func restartEmpty(c *cluster) {
	a, b := c.open(), c.open()
	sub, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	sub.Enter(bus.Member{ID: "ann", Name: "Ann"})
	atB.Wait(c.t, "ann to join", changed(bus.Joined, "ann", 1))
	last := a.publish(room, "one")
	atA.WaitBody(c.t, "one")
	atB.WaitBody(c.t, "one")
	c.server.Restart()
	c.waitBreak(atA, last)
	c.waitBreak(atB, last)
	c.goesOn(a, atA, atB)
	c.told(b, last)
	fresh := c.open()
	until(c.t, "ann to be registered again", func() bool {
		ctx, cancel := patient()
		defer cancel()
		r, err := fresh.Roster(ctx, room)
		return err == nil && r.Count == 1 && r.Members[0] == bus.Member{ID: "ann", Name: "Ann"}
	})
}

// A snapshot is all that a server held.
type snapshot []struct {
	key, dump string
	ttl       time.Duration
}

func (c *cluster) snapshot() snapshot {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	server := c.server.Client()
	var s snapshot
	for keys := server.Scan(ctx, 0, "*", 1000).Iterator(); keys.Next(ctx); {
		dump, err := server.Dump(ctx, keys.Val()).Result()
		if err == redis.Nil {
			continue // expired meanwhile
		}
		ttl, err2 := server.PTTL(ctx, keys.Val()).Result()
		if err != nil || err2 != nil {
			c.t.Fatal(err, err2)
		}
		s = append(s, struct {
			key, dump string
			ttl       time.Duration
		}{keys.Val(), dump, max(0, ttl)})
	}
	return s
}

// rewind puts an older state underneath the nodes, as a replica has it that was promoted before it had seen all.
func (c *cluster) rewind(s snapshot) {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	_, err := c.server.Client().TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.FlushAll(ctx)
		for _, k := range s {
			p.Restore(ctx, k.key, k.ttl, k.dump)
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// loseTail publishes "kept" and two messages more, which the server then loses. It gives their ids.
func (c *cluster) loseTail(n *node, seenBy ...*Recorder) (kept, lost, last bus.ID) {
	c.t.Helper()
	n.publish(room, "long ago")
	kept = n.publish(room, "kept")
	s := c.snapshot()
	lost = n.publish(room, "lost")
	last = n.publish(room, "lost too")
	for _, r := range seenBy {
		r.WaitBody(c.t, "lost too")
	}
	c.rewind(s)
	return kept, lost, last
}

func lostTail(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	kept, lost, last := c.loseTail(a, atA, atB)
	atBreak := c.waitBreak(atA, last)
	c.waitBreak(atB, last)
	fresh := c.open()
	for _, since := range []bus.ID{{}, kept, lost, last} { // whoever was away since then
		c.told(fresh, since)
	}
	page := fresh.after(room, kept, 10)
	check(c.t, "what follows the last that was kept", bodies(page.Messages), []string{"break"})
	check(c.t, "what who resumes from the break gets", whole(fresh.after(room, atBreak.ID, 10), atBreak.ID), true)
	c.goesOn(b, atA, atB)
	page = fresh.after(room, kept, 10)
	want := []string{"break", "goes on 1", "goes on 2"} // one break for all nodes
	check(c.t, "the log after what was kept", bodies(page.Messages), want)
	check(c.t, "breaks told to a", len(atA.Seen().Breaks()), 1)
	check(c.t, "breaks told to b", len(atB.Seen().Breaks()), 1)
	sub, r := fresh.subscribe(room)
	check(c.t, "last for who comes later", sub.Last(), page.Last)
	a.publish(room, "end")
	check(c.t, "what who comes later is told", bodies(r.WaitBody(c.t, "end").Messages), []string{"end"})
}

func lostTailThenMessage(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	kept, lost, last := c.loseTail(a, atA)
	b.publish(room, "from a node that knows nothing")
	c.waitBreak(atA, last)
	c.goesOn(b, atA)
	for _, since := range []bus.ID{kept, lost, last} {
		c.told(b, since)
	}
}

func lossWithLaggingClock(c *cluster) {
	a, b := c.open(), c.open()
	a.publish(room, "long ago")
	s := c.snapshot()
	c.backend.ClockBack(room)
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	a.publish(room, "lost")
	last := a.publish(room, "lost too")
	atB.WaitBody(c.t, "lost too")
	c.rewind(s)
	id := b.publish(room, "from who has seen them") // but did not publish them
	if !last.Less(id) {
		c.t.Errorf("id %v came after %v", id, last)
	}
	c.waitBreak(atA, last)
	c.waitBreak(atB, last)
	c.goesOn(a, atA, atB)
}

func lostTailReconnect(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	kept, lost, last := c.loseTail(a, atA, atB)
	if err := c.server.Client().ClientKillByFilter(context.Background(), "TYPE", "pubsub").Err(); err != nil {
		c.t.Fatal(err)
	}
	c.waitBreak(atA, last)
	c.waitBreak(atB, last)
	fresh := c.open()
	for _, since := range []bus.ID{kept, lost, last} {
		c.told(fresh, since)
	}
	c.goesOn(a, atA, atB)
	for _, since := range []bus.ID{kept, lost, last} {
		c.told(fresh, since)
	}
}

// longTail is longer than what nodes remember of what they delivered.
func longTail(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	var kept bus.ID
	want := numbered("kept", 40)
	for _, body := range want {
		kept = a.publish(room, body)
	}
	s := c.snapshot()
	lost := numbered("lost", 100)
	var last bus.ID
	for _, body := range lost {
		last = b.publish(room, body)
	}
	for _, r := range []*Recorder{atA, atB} {
		r.WaitBody(c.t, "lost99")
	}
	c.rewind(s)
	for _, r := range []*Recorder{atA, atB} {
		c.waitBreak(r, last)
	}
	c.goesOn(a, atA, atB)
	want = slices.Concat(want, lost, []string{"break", "goes on 1", "goes on 2"})
	for _, r := range []*Recorder{atA, atB} {
		check(c.t, "delivered", bodies(r.Seen().Messages), want)
		check(c.t, "after which all is lost", r.Seen().Breaks()[0].Lost, kept)
	}
	for _, since := range []bus.ID{kept, last} {
		c.told(c.open(), since)
	}
}

// lastIDPutBack has the keys of a room be of different ages, as where some were evicted, or restored by hand.
func lastIDPutBack(c *cluster) {
	a := c.open()
	a.publish(room, "one")
	var old snapshot
	for _, k := range c.snapshot() {
		if strings.Contains(k.key, "{"+room+"}") && k.dump[0] == 0 { // a string of the room's
			old = append(old, k)
		}
	}
	c.backend.ClockBack(room)
	_, r := a.subscribe(room)
	last := a.publish(room, "two")
	ctx, cancel := patient()
	defer cancel()
	for i, keep := range []bool{true, false} {
		for _, k := range old {
			c.server.Client().Del(ctx, k.key)
			if keep {
				c.server.Client().RestoreReplace(ctx, k.key, k.ttl, k.dump)
			}
		}
		b := c.open() // knows no id that is higher
		id := b.publish(room, fmt.Sprint("more", i))
		if !last.Less(id) {
			c.t.Errorf("%v came after %v", id, last)
		}
		last = id
		r.WaitBody(c.t, fmt.Sprint("more", i))
	}
	check(c.t, "delivered", bodies(r.Seen().Messages), []string{"two", "more0", "more1"})
}

// lostTailOfPublisher has messages lost that were acknowledged to their publisher, and reached no other node.
func lostTailOfPublisher(c *cluster) {
	a, b := c.open(), c.openProxied()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	a.publish(room, "long ago")
	kept := a.publish(room, "kept")
	atB.WaitBody(c.t, "kept")
	s := c.snapshot()
	dropped := b.wire.dropMessage("lost")
	last := a.publish(room, "lost")
	c.await(dropped, "the message to be dropped")
	atA.WaitBody(c.t, "lost")
	c.rewind(s)
	c.waitBreak(atA, last)
	if !atB.Seen().Has("lost") { // else b had repaired before the server lost it
		c.waitBreak(atB, last)
	}
	c.told(c.open(), kept)
	c.goesOn(b, atA, atB)
}

func lostUndelivered(c *cluster) {
	a := c.openProxied()
	_, atA := a.subscribe(room)
	kept := a.publish(room, "kept")
	atA.WaitBody(c.t, "kept")
	s := c.snapshot()
	dropped := a.wire.dropMessage("lost")
	last := a.publish(room, "lost")
	c.await(dropped, "the message to be dropped")
	c.rewind(s)
	c.waitBreak(atA, last)
	c.told(c.open(), kept)
	c.goesOn(a, atA)
}

// lostAfterLeaving has messages lost whose publisher had left the room: the one was under way then, the other was published after.
func lostAfterLeaving(c *cluster) {
	for _, underWay := range []bool{true, false} {
		name := fmt.Sprint("under way ", underWay)
		a := c.openProxied()
		sub, atA := a.subscribe(name)
		kept := a.publish(name, "kept")
		atA.WaitBody(c.t, "kept")
		s := c.snapshot()
		settled := make(chan outcome, 1)
		publish := func() {
			sub.Publish(bus.Draft{Body: []byte("lost")}, func(i bus.ID, err error) { settled <- outcome{i, err} })
		}
		if underWay {
			held, release := a.wire.holdRequest("lost")
			publish()
			c.await(held, "the message to be sent")
			sub.Close()
			release()
		} else {
			sub.Close()
			publish()
		}
		check(c.t, "outcome", a.await(settled).err, nil)
		c.rewind(s)
		a.wire.cut()
		fresh := c.open()
		until(c.t, "a resume from what was kept to be told of the loss, "+name, func() bool { return !whole(fresh.after(name, kept, 100), kept) })
	}
}

// lostBeforeLeaving has the last who knows what is lost leave the room before anything shows it.
func lostBeforeLeaving(c *cluster) {
	a := c.open()
	sub, atA := a.subscribe(room)
	kept, lost, last := c.loseTail(a, atA)
	sub.Close()
	c.notedOn(c.open(), kept, kept, lost, last)
}

// lostPosted has the server lose texts that one node has posted, and another has read. What is over by then stays so.
func lostPosted(c *cluster) {
	a, b := c.open(), c.open()
	ctx := context.Background()
	posted := func(n *node, known string) (texts []string, version string) {
		c.t.Helper()
		texts, version, err := n.Posted(ctx, known)
		must(c, err)
		slices.Sort(texts)
		return texts, version
	}
	must(c, a.Post(ctx, "kept", time.Now().Add(time.Hour)))
	s := c.snapshot()
	must(c, a.Post(ctx, "read", time.Now().Add(time.Hour)))
	must(c, a.Post(ctx, "soon over", time.Now().Add(200*time.Millisecond)))
	posted(b, "")
	for _, n := range []*node{a, b} { // each by its own clock
		until(c.t, "one to be over", func() bool {
			texts, _ := posted(n, "")
			return !slices.Contains(texts, "soon over")
		})
	}
	_, version := posted(b, "")
	must(c, a.Post(ctx, "unread", time.Now().Add(time.Hour)))
	for _, lose := range []func(){func() { c.rewind(s) }, c.flush} {
		lose()
		texts, now := posted(b, version)
		check(c.t, "known to who had read it", texts, []string{"kept", "read"})
		texts, _ = posted(a, "")
		check(c.t, "known to who had posted it", texts, []string{"kept", "read", "unread"})
		texts, _ = posted(c.open(), "")
		check(c.t, "known to who comes", texts, []string{"kept", "read", "unread"})
		version = now
	}
}
