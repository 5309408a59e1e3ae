package bustest

import (
	"fmt"
	"net"
	"slices"

	"parley/bus"
)

// failoverFaults are about a real replica that takes over.
var failoverFaults = []promise{
	{name: "a replica that has it all takes over", test: promoted, tcp: true, conf: primary},
	{name: "a replica without the tail takes over", test: promotedWithoutTail, tcp: true, conf: primary},
	{name: "two primaries in a split", test: splitBrain, tcp: true, conf: primary},
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

	a.wire.redirect(replica) // which won
	at := c.waitBreak(atA, last)
	c.goesOn(b, atA, atB)
	for _, since := range []bus.ID{kept, last} {
		c.told(c.openOn(replica), since)
	}
	seen := atA.Seen().Messages
	i := slices.IndexFunc(seen, func(m bus.Message) bool { return m.Break })
	var want []string // of what follows the break in the log, without the breaks
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
