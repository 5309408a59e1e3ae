package bustest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"parley/bus"
)

// failoverFaults are about a real replica that takes over.
var failoverFaults = []promise{
	{name: "a replica that has it all takes over", test: promoted, tcp: true, conf: primary},
	{name: "a replica without the tail takes over", test: promotedWithoutTail, tcp: true, conf: primary},
	{name: "two primaries in a split", test: splitBrain, tcp: true, conf: primary},
	{name: "who stays in a split after the loss was told is told too", test: splitOutlasted, tcp: true, conf: primary},
	{name: "what waits for a new server comes after the break", test: queuedForNewServer, tcp: true, conf: primary},
	{name: "a lost tail of a room that all have left is told", test: lostTailOfALeftRoom, tcp: true, conf: primary},
	{name: "a lost tail that came from outside is told", test: lostTailFromOutside, tcp: true, conf: primary},
	{name: "nor is it forgotten by who could not come back", test: lostTailOfWhoGaveUp, tcp: true, conf: primary},
	{name: "nor by who leaves while a full server refuses to note it", test: lostTailRefused, tcp: true, conf: primary},
	{name: "nor by who has been there meanwhile", test: lostTailRefusedAgain, tcp: true, conf: primary},
	{name: "what a full server takes once it has memory comes after the loss", test: func(c *cluster) { saidAfterRefusal(c, false, false) }, tcp: true, conf: primary},
	{name: "from outside the room, too", test: func(c *cluster) { saidAfterRefusal(c, true, false) }, tcp: true, conf: primary},
	{name: "and from who has come back", test: func(c *cluster) { saidAfterRefusal(c, true, true) }, tcp: true, conf: primary},
	{name: "what a server said before a full one took over proves nothing", test: promotedDuringRead, tcp: true, conf: primary, settings: uncompared},
	{name: "what the old server was found to have, and nobody acknowledged, is no loss at the new one", test: foundBefore, tcp: true, conf: primary, settings: uncompared},
	{name: "two failovers from one point are two breaks", test: twoFailovers, tcp: true, conf: primary},
	{name: "a demoted primary that keeps its connections is left", test: demoted, tcp: true, conf: primary},
	{name: "a demoted primary without a successor is no server", test: demotedAlone, tcp: true, conf: primary},
	{name: "an address that moves is followed", test: moved, tcp: true, conf: primary},
}

var primary = []string{"repl-diskless-sync-delay 0"}

// replica starts a server that follows the cluster's.
func (c *cluster) replica() *RedisServer {
	c.t.Helper()
	r := StartRedis(c.t)
	host, port, _ := net.SplitHostPort(c.server.Addr())
	ctx, cancel := patient()
	defer cancel()
	if err := r.Client().ReplicaOf(ctx, host, port).Err(); err != nil {
		c.t.Fatal(err)
	}
	return r
}

// promote ends a replica's following, once it has all that was written so far.
func (c *cluster) promote(r *RedisServer) {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	const probe = "probe"
	if err := c.server.Client().Set(ctx, probe, "written last", 0).Err(); err != nil {
		c.t.Fatal(err)
	}
	client := r.Client()
	until(c.t, "the replica to have all", func() bool { return client.Get(ctx, probe).Val() == "written last" })
	if err := client.ReplicaOf(ctx, "NO", "ONE").Err(); err != nil {
		c.t.Fatal(err)
	}
}

func promoted(c *cluster) {
	replica := c.replica()
	a, b := c.openProxied(), c.openProxied()
	subA, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	enterAll(c, subA, atB, "ann")
	want := numbered("m", 20)
	for _, body := range want {
		a.publish(room, body)
	}
	d := keyed("u", "k", "keyed")
	id := a.mustPublish(room, d)
	c.promote(replica)
	c.server.Kill()
	a.wire.redirect(replica)
	b.wire.redirect(replica)
	again, err := b.repeat(room, d)
	if err != nil {
		c.t.Fatal(err)
	}
	check(c.t, "id of a repeat afterwards", again, id)
	a.publish(room, "end")
	want = append(want, "keyed", "end")
	for _, r := range []*Recorder{atA, atB} {
		check(c.t, "delivered", bodies(r.WaitBody(c.t, "end").Messages), want)
	}
	until(c.t, "ann to be there", func() bool { return slices.Equal(users(b.roster(room)), []string{"ann"}) })
}

func promotedWithoutTail(c *cluster) {
	replica := c.replica()
	a, b := c.openProxied(), c.openProxied()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	kept := a.publish(room, "kept")
	c.promote(replica)
	lost := a.publish(room, "lost")
	last := b.publish(room, "lost too")
	atA.WaitBody(c.t, "lost too")
	atB.WaitBody(c.t, "lost too")
	c.server.Kill()
	a.wire.redirect(replica)
	b.wire.redirect(replica)
	c.waitBreak(atA, last)
	c.waitBreak(atB, last)
	fresh := c.openOn(replica)
	for _, since := range []bus.ID{kept, lost, last} {
		c.told(fresh, since)
	}
	c.goesOn(b, atA, atB)
	page := fresh.after(room, kept, 10)
	check(c.t, "the log after what was kept", bodies(page.Messages), []string{"break", "goes on 1", "goes on 2"})
}

func splitBrain(c *cluster) {
	replica := c.replica()
	a, b := c.openProxied(), c.openProxied()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	kept := a.publish(room, "kept")
	atA.WaitBody(c.t, "kept")
	atB.WaitBody(c.t, "kept")
	c.promote(replica)
	b.wire.redirect(replica)
	var last bus.ID
	for i := range 5 { // at the same time, more or less
		last = a.publish(room, fmt.Sprint("in a ", i))
		b.publish(room, fmt.Sprint("in b ", i))
	}
	atA.WaitBody(c.t, "in a 4")
	atB.WaitBody(c.t, "in b 4")

	a.wire.redirect(replica) // the replica won
	at := c.waitBreak(atA, last)
	c.goesOn(b, atA, atB)
	for _, since := range []bus.ID{kept, last} {
		c.told(c.openOn(replica), since)
	}
	seen := atA.Seen().Messages
	i := slices.IndexFunc(seen, func(m bus.Message) bool { return m.Break })
	var want []string // the bodies that follow the break in the log
	for _, m := range b.after(room, at.ID, 100).Messages {
		if !m.Break {
			want = append(want, string(m.Body))
		}
	}
	check(c.t, "what was delivered after the break", Seen{Messages: seen[i:]}.Bodies(), want)

	said := map[bus.ID]string{}
	for _, m := range slices.Concat(seen, atB.Seen().Messages) {
		if m.Break {
			continue
		}
		if other, ok := said[m.ID]; ok && other != string(m.Body) {
			c.t.Errorf("%v is the id of %q and of %q", m.ID, other, m.Body)
		}
		said[m.ID] = string(m.Body)
	}
}

// splitOutlasted has one node be at the new primary, and has told what is lost, while another has more acknowledged by the old one.
func splitOutlasted(c *cluster) {
	replica := c.replica()
	a, b := c.openProxied(), c.openProxied()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	a.publish(room, "kept")
	atB.WaitBody(c.t, "kept")
	c.promote(replica)
	lost := a.publish(room, "lost")
	atA.WaitBody(c.t, "lost")
	atB.WaitBody(c.t, "lost")
	b.wire.redirect(replica)
	first := c.waitBreak(atB, lost).Marker
	b.publish(room, "in b")
	atB.WaitBody(c.t, "in b")
	more := a.publish(room, "lost too")
	b.publish(room, "in b again")
	atB.WaitBody(c.t, "in b again")
	last := a.publish(room, "lost last")
	a.wire.redirect(replica)
	c.waitBreak(atA, last)
	atB.Wait(c.t, "to be told of all that is lost", func(s Seen) bool {
		return slices.ContainsFunc(s.Breaks(), func(m bus.Message) bool { return first.Less(m.Marker) && m.Lost.Less(more) })
	})
	c.goesOn(b, atA, atB)
	for _, since := range []bus.ID{lost, more, last} {
		c.told(c.openOn(replica), since)
	}
}

// queuedForNewServer has messages wait while there is no connection. They must not overtake the marker: who resumes from one of them
// would be told that nothing is missing.
func queuedForNewServer(c *cluster) {
	replica := c.replica()
	a := c.openProxied()
	_, atA := a.subscribe(room)
	kept := a.publish(room, "kept")
	c.promote(replica)
	last := a.publish(room, "lost")
	atA.WaitBody(c.t, "lost")
	a.wire.redirect(replica)
	talk := c.talk(a, room, "m")
	c.waitBreak(atA, last)
	seen := len(atA.Seen().Messages)
	atA.Wait(c.t, "traffic", func(s Seen) bool { return len(s.Messages) > seen+20 })
	want := append([]string{"break"}, talk.stop()...)
	a.publish(room, "end")
	got := c.openOn(replica).after(room, kept, len(want)+10).Messages
	check(c.t, "the log after what was kept", bodies(got), append(want, "end"))
	atA.WaitBody(c.t, "end")
}

// lostTailOfALeftRoom has a room lose its tail when no node is in it any more that could find out.
func lostTailOfALeftRoom(c *cluster) {
	replica := c.replica()
	a := c.openProxied()
	sub, atA := a.subscribe(room)
	before := a.publish(room, "before")
	kept := a.publish(room, "kept")
	c.promote(replica)
	lost := a.publish(room, "lost")
	last := a.publish(room, "lost too")
	atA.WaitBody(c.t, "lost too")
	sub.Close()
	atA.End()
	a.wire.redirect(replica)
	fresh := c.openOn(replica)
	fresh.publish(room, "from a node that knows nothing")
	c.notedOn(fresh, kept, before, kept, lost, last)
	_, r := a.subscribe(room)
	c.goesOn(fresh, r)
	check(c.t, "breaks told to who comes later", len(r.Seen().Breaks()), 0)
}

// lostTailFromOutside has a message lost of which only its publisher knows, a node that was never in the room.
func lostTailFromOutside(c *cluster) {
	replica := c.replica()
	a := c.openProxied()
	kept := a.publish(room, "kept")
	c.promote(replica)
	lost := a.publish(room, "lost")
	a.wire.redirect(replica)
	c.notedOn(c.openOn(replica), kept, kept, lost)
}

// A tail is what a node has seen and a promoted replica lacks.
type tail struct {
	replica    *RedisServer
	node       *node
	sub        bus.Subscription
	heard      *Recorder
	kept, lost bus.ID
}

// foundBefore has Sync find a message of which its publisher hears nothing, at a server that is left before it is read there.
func foundBefore(c *cluster) {
	replica := c.replica()
	a, b := c.openProxied(), c.openProxied()
	sub, r := a.subscribe(room)
	a.publish(room, "kept")
	r.WaitBody(c.t, "kept")
	c.promote(replica)
	b.wire.deafen()
	dropped := a.wire.dropMessage("unanswered")
	b.start(room, bus.Draft{Body: []byte("unanswered")})
	c.await(dropped, "the message to be dropped")
	asked, pass := a.wire.holdRequest("xrange")
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		c.sync(sub)
	}()
	c.await(asked, "the log to be read")
	a.wire.redirect(replica)
	pass()
	c.await(synced, "Sync")
	c.openOn(replica).publish(room, "next")
	check(c.t, "told", bodies(r.WaitBody(c.t, "next").Messages), []string{"kept", "next"})
}

// losesTail leaves the node with its old server.
func (c *cluster) losesTail() (l tail) {
	c.t.Helper()
	l.replica, l.node = c.replica(), c.openProxied()
	l.sub, l.heard = l.node.subscribe(room)
	l.kept = l.node.publish(room, "kept")
	c.promote(l.replica)
	l.lost = l.node.publish(room, "lost")
	l.heard.WaitBody(c.t, "lost")
	return l
}

// refused has the node go to the replica, which is full and refuses to note the loss.
func (c *cluster) refused(l tail) {
	c.t.Helper()
	c.configureOn(l.replica, "maxmemory", "1")
	l.node.wire.redirect(l.replica)
	until(c.t, "the node to be there", func() bool { return l.node.seen.count(&l.node.seen.reconnects) > 0 })
}

// lostTailOfWhoGaveUp has a node begin to subscribe, and give up, before the tail that it has seen is lost.
func lostTailOfWhoGaveUp(c *cluster) {
	l := c.losesTail()
	a := l.node
	l.sub.Close()
	held, release := a.wire.holdAnswer(l.lost.String())
	ctx, giveUp := context.WithCancel(context.Background())
	gaveUp := make(chan error)
	go func() {
		_, err := a.Subscribe(ctx, room, NewRecorder(c.t))
		gaveUp <- err
	}()
	c.await(held, "the log to be read")
	giveUp()
	if err := <-gaveUp; err == nil {
		c.t.Error("subscribed without the answer")
	}
	release()
	a.wire.redirect(l.replica)
	c.noted(l)
}

// noted waits until the replica has noted the loss.
func (c *cluster) noted(l tail) {
	c.t.Helper()
	c.notedOn(c.openOn(l.replica), l.kept, l.kept, l.lost)
}

// notedOn waits until what followed kept is noted to be lost, and has that told to who comes back from each of these.
func (c *cluster) notedOn(fresh *node, kept bus.ID, each ...bus.ID) {
	c.t.Helper()
	until(c.t, "the break to be in the log", func() bool { return !fresh.after(room, kept, 1).LastBreak.IsZero() })
	for _, since := range each {
		c.told(fresh, since)
	}
}

func lostTailRefused(c *cluster) {
	l := c.losesTail()
	c.refused(l)
	l.sub.Close()
	c.configureOn(l.replica, "maxmemory", "0")
	c.noted(l)
}

// lostTailRefusedAgain has a node be in the room, and leave it, while it can't be noted what the node had seen before.
func lostTailRefusedAgain(c *cluster) {
	l := c.losesTail()
	l.sub.Close()
	c.refused(l)
	again, _ := l.node.subscribe(room)
	again.Close()
	c.configureOn(l.replica, "maxmemory", "0")
	c.noted(l)
}

// saidAfterRefusal has a node say something as soon as a full server may note what the node knows to be lost.
func saidAfterRefusal(c *cluster, leaves, returns bool) {
	l := c.losesTail()
	a := l.node
	if leaves {
		l.sub.Close()
	}
	fresh := c.openOn(l.replica)
	c.refused(l)
	if returns {
		a.subscribe(room)
	}
	if o := a.await(a.start(room, bus.Draft{Body: []byte("too much")})); o.err == nil {
		c.t.Error("a full server takes what is said")
	}
	c.configureOn(l.replica, "maxmemory", "0")
	a.publish(room, "next")
	check(c.t, "the log after what was kept", bodies(fresh.after(room, l.kept, 10).Messages), []string{"break", "next"})
}

// promotedDuringRead has a node be told that a log has what it knows, and read a log that does not: of a server that took over meanwhile,
// and refuses to note the loss.
func promotedDuringRead(c *cluster) {
	l := c.losesTail()
	a, atA := l.node, l.heard
	c.openOn(l.replica).publish(room, "from who knows nothing")
	c.configureOn(l.replica, "maxmemory", "1")
	held, release := a.wire.holdAnswer(l.lost.String())
	a.wire.cut()
	c.await(held, "the log to be read")
	a.wire.redirect(l.replica)
	release()
	c.hears(a, atA)
	time.Sleep(3 * time.Second) // it asks, and reads, again and again
	check(c.t, "delivered while the loss is not told", bodies(atA.Seen().Messages), []string{"kept", "lost"})
	c.configureOn(l.replica, "maxmemory", "0")
	atA.WaitBody(c.t, "from who knows nothing")
	check(c.t, "delivered", bodies(atA.Seen().Messages)[2:], []string{"break", "from who knows nothing"})
}

func twoFailovers(c *cluster) {
	one, other := c.replica(), c.replica()
	a := c.openProxied()
	_, atA := a.subscribe(room)
	kept := a.publish(room, "kept")
	c.promote(one)
	c.promote(other)
	lost := a.publish(room, "lost")
	atA.WaitBody(c.t, "lost")
	for i, server := range []*RedisServer{one, other} { // the second knows nothing of the first
		a.wire.redirect(server)
		s := atA.Wait(c.t, "a break", func(s Seen) bool { return len(s.Breaks()) > i })
		check(c.t, "after which all is lost", s.Breaks()[i].Lost, kept)
		for _, since := range []bus.ID{kept, lost} {
			c.told(c.openOn(server), since)
		}
	}
	c.goesOn(a, atA)
}

// demote makes the cluster's server a replica, of nobody. Its connections stay open.
func (c *cluster) demote() {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	if err := c.server.Client().ReplicaOf(ctx, "127.0.0.1", "1").Err(); err != nil {
		c.t.Fatal(err)
	}
}

func demoted(c *cluster) {
	replica := c.replica()
	a := c.openProxied()
	_, atA := a.subscribe(room)
	a.publish(room, "before")
	atA.WaitBody(c.t, "before")
	c.promote(replica)
	c.demote()
	a.wire.move(replica)
	since := time.Now()
	a.publish(room, "after")
	c.within(10*time.Second, since, "leaving the demoted primary")
	check(c.t, "delivered", bodies(atA.WaitBody(c.t, "after").Messages), []string{"before", "after"})
	until(c.t, "the node to be ready", func() bool { return a.Ready() == nil })
	c.within(10*time.Second, since, "being ready")
	check(c.t, "the log of the new primary", bodies(c.openOn(replica).after(room, bus.ID{}, 10).Messages), []string{"before", "after"})
}

func demotedAlone(c *cluster) {
	a := c.openProxied()
	until(c.t, "the node to be ready", func() bool { return a.Ready() == nil })
	c.demote()
	since := time.Now()
	until(c.t, "Ready to say that nothing is taken", func() bool { return a.Ready() != nil })
	c.within(10*time.Second, since, "noticing")
}

func moved(c *cluster) {
	replica := c.replica()
	a := c.openProxied()
	_, atA := a.subscribe(room)
	kept := a.publish(room, "kept")
	c.promote(replica)
	last := a.publish(room, "lost")
	atA.WaitBody(c.t, "lost")
	a.wire.move(replica) // the old primary lives on, and so do the connections to it
	b := c.waitBreak(atA, last)
	check(c.t, "after which all is lost", b.Lost, kept)
	a.publish(room, "end")
	atA.WaitBody(c.t, "end")
	check(c.t, "the log of the new server", bodies(c.openOn(replica).after(room, bus.ID{}, 10).Messages), []string{"kept", "break", "end"})
}
