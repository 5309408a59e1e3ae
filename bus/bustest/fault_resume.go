package bustest

import (
	"fmt"
	"slices"

	"parley/bus"
)

var resumeFaults = []promise{
	{name: "no resume is told to be whole that is not", test: noResumeLies, retention: bus.Retention{Size: 12}},
}

// noResumeLies takes a room through losses of every kind and asks for what followed each id that anybody may have: whoever is told
// that it is whole must be given exactly what was acknowledged since.
func noResumeLies(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	fresh := c.open()
	type said struct {
		id   bus.ID
		body string
	}
	var all []said            // acknowledged, in order, lost ones included
	lost := map[bus.ID]bool{} // of those
	n := 0
	publish := func(from *node, times int) {
		for range times {
			n++
			body := fmt.Sprint("m", n)
			all = append(all, said{from.publish(room, body), body})
		}
		atA.WaitBody(c.t, all[len(all)-1].body)
	}
	breaks := 0
	lose := func(s snapshot) {
		kept := map[bus.ID]bool{}
		c.rewind(s)
		for _, m := range fresh.after(room, bus.ID{}, 1000).Messages {
			kept[m.ID] = true
		}
		for i := len(all) - 1; i >= 0 && !kept[all[i].id] && len(all)-i <= 20; i-- {
			lost[all[i].id] = true
		}
		breaks++
		atA.Wait(c.t, "the break", func(s Seen) bool { return len(s.Breaks()) >= breaks })
	}
	verify := func(when string) {
		c.t.Helper()
		sinces := []bus.ID{{}, {Ms: 1}, {Ms: 1<<64 - 1, Seq: 1<<64 - 1}}
		for _, s := range all {
			sinces = append(sinces, s.id, bus.ID{Ms: s.id.Ms, Seq: s.id.Seq + 1}, bus.ID{Ms: s.id.Ms - 1, Seq: s.id.Seq})
		}
		wholes := 0
		for _, since := range sinces {
			at := slices.IndexFunc(all, func(s said) bool { return s.id == since })
			for _, limit := range []int{1000, 2, 1} {
				got, isWhole := c.resume(fresh, since, limit)
				if !isWhole {
					continue
				}
				wholes++
				var want []string
				for _, s := range all[at+1:] { // from the beginning on for what is not an id
					want = append(want, s.body)
				}
				if at < 0 && !since.IsZero() || lost[since] || !slices.Equal(got, want) {
					c.t.Errorf("%s, after %v (message %d, lost: %v) by %d: said to be whole, %v of %v",
						when, since, at, lost[since], limit, got, want)
				}
			}
		}
		if last := all[len(all)-1]; !lost[last.id] && wholes == 0 {
			c.t.Errorf("%s: nobody is told to be whole, not even who has the last", when)
		}
	}
	publish(a, 3)
	verify("all is there")
	short := c.snapshot()
	publish(a, 3)
	verify("more came")
	lose(short)
	verify("a lost tail")
	publish(b, 2)
	verify("a lost tail, and more")
	again := c.snapshot()
	publish(a, 2)
	lose(again)
	verify("another lost tail")
	publish(b, 9)
	verify("the first break is trimmed away")
	publish(b, 12)
	verify("both breaks are trimmed away")
	lose(nil)
	verify("a flush")
	publish(b, 3)
	verify("a flush, and more")
	lose(nil)
	publish(a, 1)
	verify("another flush")
}

// resume reads on from since as a node does for who comes back, page by page, and reports whether that was whole.
func (c *cluster) resume(n *node, since bus.ID, limit int) (got []string, isWhole bool) {
	c.t.Helper()
	for at := since; ; {
		p := n.after(room, at, limit)
		if !p.Complete || since.Less(p.LastBreak) {
			return nil, false
		}
		for _, m := range p.Messages {
			got = append(got, string(m.Body))
			at = m.ID
		}
		if !p.More {
			return got, true
		}
		if len(p.Messages) == 0 {
			c.t.Fatalf("nothing after %v, though there is more", at)
		}
	}
}
