package bustest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/bus"
)

var logPromises = []promise{
	{name: "ids rise, though the clock is set back", test: idsRise},
	{name: "resume in an empty room", test: resumeEmpty},
	{name: "resume gives exactly what was missed", test: resumeExactly},
	{name: "resume page by page", test: resumeByPages},
	{name: "resume from an id that is none is not complete", test: resumeFromUnknown},
	{name: "resume from what was trimmed is not complete", test: resumeTrimmed, retention: bus.Retention{Size: 10}},
	{name: "resume from what was trimmed for its bytes is not complete", test: trimmedForBytes, retention: bus.Retention{Bytes: logBytes}},
	{name: "what is too old is not read, and the chain goes on", test: expiredByAge, retention: bus.Retention{Age: time.Second}},
	{name: "what is too old is not read in a busy room either", test: expiredInBusyRoom, retention: bus.Retention{Age: time.Second}},
	{name: "paging back ends at the beginning", test: pageBack},
	{name: "a page has about so many bytes", test: pageBytes},
	{name: "a room outlives its handles", test: roomOutlivesHandles},
}

// whole reports whether a page that was read after since tells all, as bus.Page has it.
func whole(p bus.Page, since bus.ID) bool { return p.Complete && !since.Less(p.LastBreak) }

func idsRise(c *cluster) {
	a := c.open()
	var ids []bus.ID
	for range 50 {
		ids = append(ids, a.publish(room, "m"))
	}
	c.backend.ClockBack(room)
	sub, r := a.subscribe(room)
	ids = append(ids, sub.Last())
	b := c.open()
	for i := range 50 {
		ids = append(ids, []*node{a, b}[i%2].publish(room, "m"))
	}
	r.Wait(c.t, "what came after", func(s Seen) bool { return len(s.Messages) >= 50 })
	ids = slices.Compact(ids) // the clock may have been set back without a message
	for i := range ids[1:] {
		if !ids[i].Less(ids[i+1]) {
			c.t.Errorf("id %v came after %v", ids[i+1], ids[i])
		}
	}
	page := b.after(room, bus.ID{}, 1000)
	check(c.t, "complete", whole(page, bus.ID{}), true)
	check(c.t, "last", page.Last, ids[len(ids)-1])
}

func resumeEmpty(c *cluster) {
	a := c.open()
	check(c.t, "an empty room after 0-0", a.after(room, bus.ID{}, 10), bus.Page{Complete: true})
	check(c.t, "an empty room after another id", a.after(room, bus.ID{Ms: 1, Seq: 1}, 10), bus.Page{})
	check(c.t, "an empty room before 0-0", a.before(room, bus.ID{}, 10), bus.Page{})
	a.publish(room, "first")
	page := a.after(room, bus.ID{}, 10)
	check(c.t, "what came since", bodies(page.Messages), []string{"first"})
	check(c.t, "complete", whole(page, bus.ID{}), true)
}

func resumeExactly(c *cluster) {
	a, b := c.open(), c.open()
	all := numbered("m", 10)
	var ids []bus.ID
	for _, body := range all {
		ids = append(ids, a.publish(room, body))
	}
	prev := bus.ID{}
	for _, m := range b.after(room, prev, 100).Messages {
		check(c.t, "the id before "+m.ID.String(), m.Prev, prev)
		prev = m.ID
	}
	for i, since := range ids {
		page := b.after(room, since, 100)
		check(c.t, "after "+all[i], bodies(page.Messages), all[i+1:])
		check(c.t, "complete", whole(page, since), true)
		check(c.t, "more", page.More, false)
		check(c.t, "last", page.Last, ids[len(ids)-1])
	}
}

func resumeByPages(c *cluster) {
	a := c.open()
	all := numbered("m", 25)
	for _, body := range all {
		a.publish(room, body)
	}
	var got []string
	since := bus.ID{}
	for more := true; more; {
		page := a.after(room, since, 10)
		if !whole(page, since) || len(page.Messages) == 0 || len(page.Messages) > 10 {
			c.t.Fatalf("after %v: %d messages, complete %v", since, len(page.Messages), page.Complete)
		}
		got = append(got, bodies(page.Messages)...)
		since, more = page.Messages[len(page.Messages)-1].ID, page.More
	}
	check(c.t, "all pages", got, all)
	exact := a.after(room, bus.ID{}, 25)
	check(c.t, "more after exactly all", exact.More, false)
}

func resumeFromUnknown(c *cluster) {
	a := c.open()
	first := a.publish(room, "one")
	last := a.publish(room, "two")
	between := bus.ID{Ms: first.Ms, Seq: first.Seq + 1}
	if between == last { // the next number was given in the same millisecond
		between = bus.ID{Ms: last.Ms - 1}
	}
	for name, since := range map[string]bus.ID{
		"before all":  {Ms: 1},
		"after all":   {Ms: last.Ms + 1e9},
		"just after":  {Ms: last.Ms, Seq: last.Seq + 1},
		"between":     between,
		"the largest": {Ms: 1<<64 - 1, Seq: 1<<64 - 1},
	} {
		if page := a.after(room, since, 10); page.Complete {
			c.t.Errorf("%s: after %v is complete: %v", name, since, bodies(page.Messages))
		}
	}
}

func resumeTrimmed(c *cluster) {
	const kept, all, slack = 10, 1000, 250 // a little more may be kept
	a := c.open()
	_, r := a.subscribe(room)
	first := a.publish(room, "m")
	for range all - 2 {
		a.start(room, bus.Draft{Body: []byte("m")})
	}
	a.publish(room, "m")
	seen := r.Wait(c.t, "all", func(s Seen) bool { return len(s.Messages) >= all })
	for _, since := range []bus.ID{{}, first} {
		page := a.after(room, since, all)
		if n := len(page.Messages); page.Complete || n < kept || n > kept+slack {
			c.t.Errorf("after %v: %d messages, complete %v", since, n, page.Complete)
		}
	}
	since := seen.Messages[all-kept-1].ID
	page := a.after(room, since, all)
	check(c.t, "messages after the last that was trimmed at most", len(page.Messages), kept)
	check(c.t, "complete", whole(page, since), true)
}

func expiredByAge(c *cluster) {
	a, b := c.open(), c.open()
	_, r := a.subscribe(room)
	first := a.publish(room, "first")
	last := a.publish(room, "last")
	until(c.t, "the log to be empty", func() bool { return len(b.after(room, bus.ID{}, 10).Messages) == 0 })
	check(c.t, "back", bodies(b.before(room, bus.ID{}, 10).Messages), []string{})
	page := b.after(room, last, 10)
	check(c.t, "complete after the last", whole(page, last), true)
	check(c.t, "last", page.Last, last)
	check(c.t, "complete after the first", b.after(room, first, 10).Complete, false)
	check(c.t, "complete from the beginning", b.after(room, bus.ID{}, 10).Complete, false)

	b.publish(room, "anew")
	seen := r.WaitBody(c.t, "anew") // in the chain, says the recorder
	check(c.t, "breaks", len(seen.Breaks()), 0)
	page = b.after(room, last, 10)
	check(c.t, "messages after the last", bodies(page.Messages), []string{"anew"})
	check(c.t, "complete after the last", whole(page, last), true)
}

func expiredInBusyRoom(c *cluster) {
	const age = time.Second
	a := c.open()
	a.publish(room, "old")
	since := a.publish(room, "old too")
	for expired := time.Now().Add(age + 200*time.Millisecond); time.Now().Before(expired); time.Sleep(age / 20) {
		a.publish(room, "more")
	}
	// A busy machine may take so long to read that what was said last is too old as well.
	var page, back bus.Page
	until(c.t, "what is new to be read", func() bool {
		a.publish(room, "more")
		page, back = a.after(room, bus.ID{}, 1000), a.before(room, bus.ID{}, 1000)
		return slices.Contains(bodies(page.Messages), "more") && slices.Contains(bodies(back.Messages), "more")
	})
	if all := bodies(page.Messages); page.Complete || slices.Contains(all, "old") {
		c.t.Errorf("from the beginning: %v, complete %v", all, page.Complete)
	}
	if page := a.after(room, since, 1000); page.Complete {
		c.t.Errorf("after what is too old: complete, %v", bodies(page.Messages))
	}
	if all := bodies(back.Messages); back.More || slices.Contains(all, "old") {
		c.t.Errorf("back: %v, more %v", all, back.More)
	}
}

func pageBack(c *cluster) {
	a := c.open()
	all := numbered("m", 25)
	var ids []bus.ID
	for _, body := range all {
		ids = append(ids, a.publish(room, body))
	}
	var got []string
	var sizes []int
	before := bus.ID{}
	for more := true; more; {
		page := a.before(room, before, 10)
		check(c.t, "last", page.Last, ids[len(ids)-1])
		if len(page.Messages) == 0 {
			c.t.Fatalf("nothing before %v, though there is more", before)
		}
		got = append(bodies(page.Messages), got...)
		sizes = append(sizes, len(page.Messages))
		before, more = page.Messages[0].ID, page.More
	}
	check(c.t, "all pages", got, all)
	check(c.t, "their sizes", sizes, []int{10, 10, 5})
	check(c.t, "before the first", bodies(a.before(room, ids[0], 10).Messages), []string{})
	between := bus.ID{Ms: ids[4].Ms, Seq: ids[4].Seq + 1}
	check(c.t, "before an id that is none, or the next", bodies(a.before(room, between, 2).Messages), all[3:5])
	check(c.t, "more before exactly all", a.before(room, bus.ID{}, 25).More, false)
	check(c.t, "before what is to come", bodies(a.before(room, bus.ID{Ms: 1<<64 - 1}, 1).Messages), all[24:])
}

func roomOutlivesHandles(c *cluster) {
	a := c.open()
	sub, _ := a.subscribe(room)
	since := a.publish(room, "one")
	last := a.publish(room, "two")
	sub.Close()
	a.close()
	b := c.open()
	page := b.after(room, since, 10)
	check(c.t, "missed", bodies(page.Messages), []string{"two"})
	check(c.t, "complete", whole(page, since), true)
	sub, r := b.subscribe(room)
	check(c.t, "last", sub.Last(), last)
	b.publish(room, "three")
	r.WaitBody(c.t, "three")
}

func pageBytes(c *cluster) {
	const bytes = 10_000
	a := c.open()
	var ids []bus.ID
	for i := range 80 {
		size := 200
		if i%20 >= 10 {
			size = 2000
		}
		if i == 47 {
			size = 5 * bytes // more than a page may have: it comes alone
		}
		ids = append(ids, a.publish(room, strings.Repeat("m", size)))
	}
	pages := 0
	bounded := func(p bus.Page, more bool) {
		c.t.Helper()
		sum := 0
		for _, m := range p.Messages {
			sum += len(m.Body)
		}
		if pages++; len(p.Messages) != 1 && sum > bytes || pages > 50 {
			c.t.Errorf("page %d, of %d bytes, has %d messages of %d", pages, bytes, len(p.Messages), sum)
		}
		check(c.t, "more", p.More, more)
	}
	ctx, cancel := patient()
	defer cancel()
	for read := 0; read < len(ids); {
		var since bus.ID
		if read > 0 {
			since = ids[read-1]
		}
		p, err := a.After(ctx, room, since, 1000, bytes)
		if err != nil || len(p.Messages) == 0 {
			c.t.Fatalf("after %d: %d messages, %v", read, len(p.Messages), err)
		}
		check(c.t, "complete", whole(p, since), true)
		for i, m := range p.Messages {
			check(c.t, "id", m.ID, ids[read+i])
		}
		read += len(p.Messages)
		bounded(p, read < len(ids))
	}
	for left := len(ids); left > 0; {
		var before bus.ID
		if left < len(ids) {
			before = ids[left]
		}
		p, err := a.Before(ctx, room, before, 1000, bytes)
		if err != nil || len(p.Messages) == 0 {
			c.t.Fatalf("before %d: %d messages, %v", left, len(p.Messages), err)
		}
		left -= len(p.Messages)
		for i, m := range p.Messages {
			check(c.t, "id", m.ID, ids[left+i])
		}
		bounded(p, left > 0)
	}
	p, err := a.After(ctx, room, bus.ID{}, 3, bytes)
	check(c.t, "error", err, nil)
	check(c.t, "of three at most", len(p.Messages), 3)
}

const logBytes = 64 << 10

// trimmedForBytes: a log takes no more memory than it may, whatever its messages' sizes, and all of it is told to who is there.
func trimmedForBytes(c *cluster) {
	a := c.open()
	_, r := a.subscribe(room)
	ids := []bus.ID{a.publish(room, "first")}
	var said []string
	for i := range 200 {
		size := 100
		if i >= 100 {
			size = 4000
		}
		said = append(said, fmt.Sprint(i, " ", strings.Repeat("m", size)))
		ids = append(ids, a.publish(room, said[i]))
	}
	check(c.t, "told to who is there", r.WaitBody(c.t, said[199]).Bodies()[1:], said)
	page := a.after(room, ids[0], 1000)
	check(c.t, "complete", whole(page, ids[0]), false)
	kept := bodies(page.Messages)
	sum := 0
	for _, m := range kept {
		sum += len(m)
	}
	if sum > logBytes*5/4 || sum < logBytes/4 {
		c.t.Errorf("%d bytes are kept, in %d messages, of %d", sum, len(kept), logBytes)
	}
	check(c.t, "the newest", kept, said[len(said)-len(kept):])
	oldest := len(ids) - len(kept)
	page = a.after(room, ids[oldest-1], 1000)
	check(c.t, "complete from the last that was trimmed", whole(page, ids[oldest-1]), true)

	huge := strings.Repeat("m", 2*logBytes) // it stays, alone
	last := a.publish(room, huge)
	page = a.after(room, ids[len(ids)-1], 10)
	check(c.t, "complete", whole(page, ids[len(ids)-1]), true)
	check(c.t, "the newest is kept", page.Messages[0].ID, last)
	check(c.t, "all others are not", len(a.before(room, bus.ID{}, 1000).Messages), 1)
}
