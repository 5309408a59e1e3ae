package bustest

import (
	"errors"
	"slices"

	"parley/bus"
)

var keyPromises = []promise{
	{name: "a repeated key gives the first id, over any handle", test: repeatGivesFirstID},
	{name: "many repeats at once make one message", test: repeatsAtOnce},
	{name: "a key used for another content is a conflict", test: conflict},
	{name: "a conflict concerns no other draft", test: conflictAlone},
	{name: "keys count per room, and no key is none", test: keysPerRoom},
	{name: "a key is remembered when its handle is gone", test: keyOutlivesHandle},
	{name: "a key outlives its message", test: keyOutlivesMessage, retention: bus.Retention{Size: 5}},
}

func repeatGivesFirstID(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	d := keyed("u", "k", "once")
	first := a.mustPublish(room, d)
	check(c.t, "id of a repeat over the same handle", a.mustPublish(room, d), first)
	check(c.t, "id of a repeat over another", b.mustPublish(room, d), first)
	a.publish(room, "end")
	for _, r := range []*Recorder{atA, atB} {
		check(c.t, "delivered", r.WaitBody(c.t, "end").Bodies(), []string{"once", "end"})
	}
	check(c.t, "log", bodies(b.after(room, bus.ID{}, 10).Messages), []string{"once", "end"})
	check(c.t, "id of a repeat later", b.mustPublish(room, d), first)
}

func repeatsAtOnce(c *cluster) {
	nodes := []*node{c.open(), c.open(), c.open()}
	_, r := nodes[0].subscribe(room)
	var want []string
	for _, body := range numbered("m", 20) {
		var results []<-chan outcome
		for i := range 9 {
			results = append(results, nodes[i%3].start(room, keyed("u", body, body)))
		}
		first := nodes[0].await(results[0])
		for _, result := range results[1:] {
			if o := nodes[0].await(result); o.err != nil || o.id != first.id {
				c.t.Errorf("%s: got %v, %v, another got %v", body, o.id, o.err, first.id)
			}
		}
		want = append(want, body)
	}
	nodes[0].publish(room, "end")
	check(c.t, "delivered", r.WaitBody(c.t, "end").Bodies(), append(want, "end"))
}

func conflict(c *cluster) {
	a, b := c.open(), c.open()
	_, r := b.subscribe(room)
	first := a.mustPublish(room, keyed("u", "k", "one"))
	for _, n := range []*node{a, b} {
		if o := n.await(n.start(room, keyed("u", "k", "other"))); !errors.Is(o.err, bus.ErrConflict) {
			c.t.Errorf("the same key with another content: %v, %v", o.id, o.err)
		}
	}
	check(c.t, "id of a repeat after conflicts", b.mustPublish(room, keyed("u", "k", "one")), first)
	b.mustPublish(room, keyed("v", "k", "of another user"))
	check(c.t, "delivered", r.WaitBody(c.t, "of another user").Bodies(), []string{"one", "of another user"})
}

// conflictAlone has drafts of which every tenth is a conflict wait for each other.
func conflictAlone(c *cluster) {
	a, b := c.open(), c.open()
	_, r := b.subscribe(room)
	a.mustPublish(room, keyed("u", "k", "first"))
	all := numbered("m", 2000)
	results := make([]<-chan outcome, len(all))
	for i, body := range all {
		d := bus.Draft{Body: []byte(body)}
		if i%10 == 0 {
			d = keyed("u", "k", body)
		}
		results[i] = a.start(room, d)
	}
	want := []string{"first"}
	for i, result := range results {
		o := a.await(result)
		if i%10 == 0 && !errors.Is(o.err, bus.ErrConflict) || i%10 != 0 && o.err != nil {
			c.t.Fatalf("draft %d: %v, %v", i, o.id, o.err)
		}
		if i%10 != 0 {
			want = append(want, all[i])
		}
	}
	check(c.t, "whether the others were delivered", slices.Equal(r.WaitBody(c.t, want[len(want)-1]).Bodies(), want), true)
}

func keysPerRoom(c *cluster) {
	a := c.open()
	for _, name := range []string{"one", "two"} {
		a.mustPublish(name, keyed("u", "k", "in "+name)) // no conflict
		a.mustPublish(name, bus.Draft{Body: []byte("same")})
		a.mustPublish(name, bus.Draft{Body: []byte("same")})
		check(c.t, "log of "+name, bodies(a.after(name, bus.ID{}, 10).Messages), []string{"in " + name, "same", "same"})
	}
}

func keyOutlivesHandle(c *cluster) {
	a := c.open()
	d := keyed("u", "k", "once")
	first := a.mustPublish(room, d)
	a.close()
	b := c.open()
	check(c.t, "id of a repeat over a new handle", b.mustPublish(room, d), first)
	check(c.t, "log", bodies(b.after(room, bus.ID{}, 10).Messages), []string{"once"})
}

func keyOutlivesMessage(c *cluster) {
	a := c.open()
	_, r := a.subscribe(room)
	d := keyed("u", "k", "once")
	first := a.mustPublish(room, d)
	for range 500 {
		a.start(room, bus.Draft{Body: []byte("more")})
	}
	last := a.publish(room, "last")
	r.WaitBody(c.t, "last")
	if page := a.after(room, bus.ID{}, 1000); page.Messages[0].ID == first {
		c.t.Fatal("the message is still in the log")
	}
	check(c.t, "id of a repeat", a.mustPublish(room, d), first)
	check(c.t, "last", a.before(room, bus.ID{}, 1).Last, last)
}
