package bustest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/bus"
)

var deliveryPromises = []promise{
	{name: "what one publishes all hear", test: whatOnePublishesAllHear},
	{name: "bodies arrive as they are", test: bodiesArriveAsTheyAre},
	{name: "one order for all, and each sender's own", test: oneOrder},
	{name: "drafts published one after the other keep that order", test: publishKeepsOrder},
	{name: "subscribing under traffic misses nothing", test: subscribeUnderTraffic},
	{name: "subscribing while a sink is busy begins after what waits", test: subscribeWhileBusy},
	{name: "a sink may publish", test: sinkMayPublish},
	{name: "what was acknowledged is delivered before Sync returns", test: syncDelivers},
	{name: "Sync waits for a sink that is busy", test: syncWhileBusy},
	{name: "signals reach all and are not kept", test: signals},
	{name: "rooms do not mix, whatever their names", test: roomsDoNotMix},
}

const room = "room"

func whatOnePublishesAllHear(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	check(c.t, "last of an empty room", subA.Last(), bus.ID{})
	id := a.publish(room, "hello")
	for _, r := range []*Recorder{atA, atB} {
		if m := r.WaitBody(c.t, "hello").Messages[0]; m.ID != id || !m.Prev.IsZero() {
			c.t.Errorf("delivered %v after %v; published %v, the first", m.ID, m.Prev, id)
		}
	}

	stranger := c.open() // is not subscribed itself
	second := stranger.publish(room, "from outside")
	atA.WaitBody(c.t, "from outside")
	atB.WaitBody(c.t, "from outside")
	late, _ := stranger.subscribe(room)
	check(c.t, "last for who comes later", late.Last(), second)
}

func bodiesArriveAsTheyAre(c *cluster) {
	a, b := c.open(), c.open()
	_, atB := b.subscribe(room)
	all := []string{"", "\x00\xff\r\n$5\r\n", "grüße 👋", strings.Repeat("x", 64<<10), "end"}
	for _, body := range all {
		a.publish(room, body)
	}
	seen := atB.Wait(c.t, "all bodies", func(s Seen) bool { return len(s.Messages) >= len(all) })
	check(c.t, "delivered", seen.Bodies(), all)
	check(c.t, "kept", bodies(a.after(room, bus.ID{}, 10).Messages), all)
}

func oneOrder(c *cluster) {
	const nodes, senders, each = 3, 4, 150
	const total = nodes * senders * each
	var recorders []*Recorder
	var all []*node
	for range nodes {
		n := c.open()
		_, r := n.subscribe(room)
		all, recorders = append(all, n), append(recorders, r)
	}
	var wg sync.WaitGroup
	for i, n := range all {
		for s := range senders {
			wg.Go(func() {
				for k := range each {
					if o := <-n.start(room, bus.Draft{Body: fmt.Appendf(nil, "%d.%d/%d", i, s, k)}); o.err != nil {
						c.t.Errorf("publish: %v", o.err)
					}
				}
			})
		}
	}
	wg.Wait()
	var order []string
	for i, r := range recorders {
		got := r.Wait(c.t, "all messages", func(s Seen) bool { return len(s.Messages) >= total }).Bodies()
		if i == 0 {
			order = got
		} else if !slices.Equal(got, order) {
			c.t.Errorf("handle %d saw another order than handle 0", i)
		}
	}
	next := map[string]int{}
	for _, body := range order {
		sender, k, _ := strings.Cut(body, "/")
		if want := fmt.Sprint(next[sender]); k != want {
			c.t.Fatalf("of sender %s message %s came, where %s was due", sender, k, want)
		}
		next[sender]++
	}
	check(c.t, "number of messages", len(order), total)
}

func publishKeepsOrder(c *cluster) {
	const n = 2000
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	want := numbered("", n)
	var results []<-chan outcome
	for _, body := range want {
		results = append(results, a.start(room, bus.Draft{Body: []byte(body)})) // none waits for the one before
	}
	var last bus.ID
	for i, result := range results {
		o := a.await(result)
		if o.err != nil {
			c.t.Fatalf("publish %d: %v", i, o.err)
		}
		if !last.Less(o.id) {
			c.t.Fatalf("draft %d got id %v, the one before it %v", i, o.id, last)
		}
		last = o.id
	}
	for _, r := range []*Recorder{atA, atB} {
		seen := r.Wait(c.t, "all messages", func(s Seen) bool { return len(s.Messages) >= n })
		if !slices.Equal(seen.Bodies(), want) {
			c.t.Error("delivered in another order than published")
		}
	}
}

func subscribeUnderTraffic(c *cluster) {
	a, b := c.open(), c.open()
	_, first := a.subscribe(room)
	talk := c.talk(a, room, "m")
	var subs []bus.Subscription
	var recorders []*Recorder
	for range 10 {
		seen := len(first.Seen().Messages)
		first.Wait(c.t, "more traffic", func(s Seen) bool { return len(s.Messages) >= seen+20 })
		sub, r := b.subscribe(room)
		after := a.publish(room, fmt.Sprint("after", len(subs)))
		r.WaitBody(c.t, fmt.Sprint("after", len(subs)))
		if !sub.Last().Less(after) {
			c.t.Errorf("last is %v, but %v came after Subscribe", sub.Last(), after)
		}
		sub.Close()
		r.End()
		subs, recorders = append(subs, sub), append(recorders, r)
	}
	talk.stop()
	for i, r := range recorders {
		got := r.Seen().Bodies()
		want := bodies(a.after(room, subs[i].Last(), len(got)).Messages)
		check(c.t, fmt.Sprint("delivered to subscription ", i), got, want)
	}
}

func subscribeWhileBusy(c *cluster) {
	a, b := c.open(), c.open()
	sink := newBusy(c)
	ctx, cancel := patient()
	defer cancel()
	if _, err := a.Subscribe(ctx, room, sink); err != nil {
		c.t.Fatal(err)
	}
	go b.start(room, bus.Draft{Body: []byte("one")}) // may be the one who calls the sink
	c.await(sink.began, "the first message")
	waits := b.publish(room, "two")
	sub, r := b.subscribe(room)
	check(c.t, "last", sub.Last(), waits)
	close(sink.free)
	b.publish(room, "three")
	check(c.t, "delivered", r.WaitBody(c.t, "three").Bodies(), []string{"three"})
	check(c.t, "delivered to the busy one", sink.WaitBody(c.t, "three").Bodies(), []string{"one", "two", "three"})
}

// echo is a sink that publishes whatever it hears in one room in another.
type echo struct {
	*Recorder
	say func(body []byte)
}

func (e *echo) Deliver(m bus.Message) {
	e.Recorder.Deliver(m)
	e.say(m.Body)
}

func sinkMayPublish(c *cluster) {
	const n = 300
	a := c.open()
	_, there := a.subscribe("there")
	e := &echo{Recorder: NewRecorder(c.t)}
	e.say = func(body []byte) {
		a.Publish("there", bus.Draft{Body: body}, func(bus.ID, error) {})
		if body[0] == 'm' { // and once in its own room
			a.Publish(room, bus.Draft{Body: append([]byte("echo of "), body...)}, func(bus.ID, error) {})
		}
	}
	ctx, cancel := patient()
	defer cancel()
	if _, err := a.Subscribe(ctx, room, e); err != nil {
		c.t.Fatal(err)
	}
	for i := range n {
		a.publish(room, fmt.Sprint("m", i))
	}
	here := e.Wait(c.t, "messages and echoes", func(s Seen) bool { return len(s.Messages) >= 2*n })
	echoes := there.Wait(c.t, "all of them there", func(s Seen) bool { return len(s.Messages) >= 2*n })
	check(c.t, "what came there", echoes.Bodies(), here.Bodies())
}

func signals(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	done, settled := make(chan error, 1), once(c.t, "done of Signal")
	body := []byte("typing \x00")
	b.Signal(room, body, func(err error) {
		settled()
		done <- err
	})
	if err := <-done; err != nil {
		c.t.Errorf("signal: %v", err)
	}
	for _, r := range []*Recorder{atA, atB} {
		seen := r.Wait(c.t, "the signal", func(s Seen) bool { return len(s.Signals) > 0 })
		if len(seen.Signals) != 1 || !bytes.Equal(seen.Signals[0], body) {
			c.t.Errorf("signals %q, want %q", seen.Signals, body)
		}
	}
	page := a.after(room, bus.ID{}, 10)
	check(c.t, "log after a signal", page, bus.Page{Complete: true})

	a.publish(room, "m")
	check(c.t, "prev of the first message", atB.WaitBody(c.t, "m").Messages[0].Prev, bus.ID{})
}

func roomsDoNotMix(c *cluster) {
	names := []string{
		"a", "a:b", "a:b:c", "b", "A", "a b", " a", "a ", "{a}", "{a", "a}", "}", "}{", "{}", "{a}b", "a}b{", "a%7D", "%", "%%",
		`a\`, "a\"b", "*", "a*", "?", "[a]", "ä", "a\u0308", "部屋", "🙂", "a\x7f",
		"room:log", "room:last", "log:a", "0", "00", "-", "a/b", "a,b", "1:a",
		strings.Repeat("x", 128), strings.Repeat("x", 127),
	}
	a, b := c.open(), c.open()
	recorders := map[string]*Recorder{}
	ids := map[string]bus.ID{}
	for _, name := range names {
		sub, r := b.subscribe(name)
		recorders[name] = r
		check(c.t, "last of "+name, sub.Last(), bus.ID{})
		sub.Enter(bus.Member{ID: "in " + name, Name: "n"})
	}
	for _, name := range names {
		ids[name] = a.mustPublish(name, keyed("u", "same key", "in "+name))
	}
	for _, name := range names {
		check(c.t, "delivered in "+name, recorders[name].WaitBody(c.t, "in "+name).Bodies(), []string{"in " + name})
		page := a.after(name, bus.ID{}, 10)
		check(c.t, "log of "+name, bodies(page.Messages), []string{"in " + name})
		check(c.t, "last of "+name, page.Last, ids[name])
		until(c.t, "one member in "+name, func() bool {
			r := a.roster(name)
			return r.Count == 1 && r.Members[0].ID == "in "+name
		})
	}
}

// syncDelivers: whoever publishes, and however many wait for it.
func syncDelivers(c *cluster) {
	a, b := c.open(), c.open()
	subA, atA := a.subscribe(room)
	subB, _ := b.subscribe(room)
	talk := c.talk(a, room, "traffic")
	for i := range 60 {
		body := fmt.Sprint("m", i)
		[]*node{a, b, c.open()}[i%2+i/59].publish(room, body)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				c.sync(subA)
				if !atA.Seen().Has(body) {
					c.t.Errorf("%s was acknowledged, and not delivered when Sync returned", body)
				}
				c.sync(subB)
			})
		}
		all.Wait()
	}
	talk.stop()
	subA.Close()
	ctx, cancel := patient()
	defer cancel()
	if err := subA.Sync(ctx); !errors.Is(err, bus.ErrClosed) {
		c.t.Errorf("Sync of a closed subscription: %v", err)
	}
}

func (c *cluster) sync(s bus.Subscription) {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	if err := s.Sync(ctx); err != nil {
		c.t.Errorf("sync: %v", err)
	}
}

func syncWhileBusy(c *cluster) {
	a, b := c.open(), c.open()
	sink := newBusy(c)
	ctx, cancel := patient()
	defer cancel()
	sub, err := a.Subscribe(ctx, room, sink)
	if err != nil {
		c.t.Fatal(err)
	}
	go b.start(room, bus.Draft{Body: []byte("one")}) // may be the one who calls the sink
	c.await(sink.began, "the first message")
	short, over := context.WithTimeout(ctx, 20*time.Millisecond)
	defer over()
	if err := sub.Sync(short); !errors.Is(err, bus.ErrUnavailable) {
		c.t.Errorf("Sync while the sink is busy: %v", err)
	}
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		c.sync(sub)
	}()
	close(sink.free)
	c.await(synced, "Sync")
	if !sink.Seen().Has("one") {
		c.t.Error("not delivered when Sync returned")
	}
}
