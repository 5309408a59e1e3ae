package bustest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"parley/bus"
)

// serverFaults are what a redis-server itself may go through.
var serverFaults = []promise{
	{name: "a publish to a paused server is unavailable, and one message after all", test: publishToPaused},
	{name: "after a pause everything is delivered", test: deliveredAfterPause},
	{name: "a subscription that was given up can be tried again", test: subscribeAgain},
	{name: "readiness follows the server", test: readiness},
	{name: "a server that restarts with its data loses nothing", test: restartWithData, conf: durable},
	{name: "forgotten scripts are loaded again", test: scriptsForgotten},
	{name: "what a full server refuses is unavailable", test: serverFull},
	{name: "everything has an expiry", test: everythingExpires},
	{name: "so has what is drawn and counted", test: drawnAndCountedExpires},
}

var durable = []string{"appendonly yes", "appendfsync always"}

// slack is what a busy machine may add to the times that the promises name.
const slack = 5 * time.Second

// within fails the test if a promised time is over.
func (c *cluster) within(promised time.Duration, since time.Time, what string) {
	c.t.Helper()
	took := time.Since(since)
	c.t.Logf("%s took %v", what, took.Round(time.Millisecond))
	if took > promised+slack {
		c.t.Errorf("%s took %v, promised are %v", what, took, promised)
	}
}

func publishToPaused(c *cluster) {
	a, b := c.open(), c.open()
	_, atA := a.subscribe(room)
	_, atB := b.subscribe(room)
	a.publish(room, "before")
	atB.WaitBody(c.t, "before")

	c.server.Pause()
	paused := time.Now()
	d := keyed("u", "k", "meanwhile")
	keyless := a.start(room, bus.Draft{Body: []byte("keyless")})
	if o := a.await(a.start(room, d)); !errors.Is(o.err, bus.ErrUnavailable) {
		c.t.Errorf("publish to a paused server: %v, %v", o.id, o.err)
	}
	if o := a.await(keyless); !errors.Is(o.err, bus.ErrUnavailable) {
		c.t.Errorf("publish to a paused server: %v, %v", o.id, o.err)
	}
	c.within(5*time.Second, paused, "learning that a publish has no answer")
	time.Sleep(time.Until(paused.Add(8 * time.Second))) // past all time-outs
	c.server.Resume()

	id := a.publish(room, "after")
	again, err := a.repeat(room, d)
	if err != nil {
		c.t.Fatal(err)
	}
	end := b.publish(room, "end")
	for _, r := range []*Recorder{atA, atB} {
		check(c.t, "delivered", onceEach(r.WaitBody(c.t, "end").Bodies()), []string{"after", "before", "end", "meanwhile"})
	}
	page := b.after(room, bus.ID{}, 10)
	check(c.t, "log", onceEach(bodies(page.Messages)), []string{"after", "before", "end", "meanwhile"})
	check(c.t, "last", page.Last, end)
	for _, m := range page.Messages {
		if string(m.Body) == "meanwhile" && m.ID != again || string(m.Body) == "after" && m.ID != id {
			c.t.Errorf("%q is %v in the log, but was acknowledged as %v and %v", m.Body, m.ID, again, id)
		}
	}
}

// onceEach sorts what came, since who repeats may come later than who did not have to. The keyless message, of which nobody
// knows whether it was done, is left out, once.
func onceEach(bodies []string) []string {
	if i := slices.Index(bodies, "keyless"); i >= 0 {
		bodies = slices.Delete(bodies, i, i+1)
	}
	slices.Sort(bodies)
	return bodies
}

func deliveredAfterPause(c *cluster) {
	a, b := c.open(), c.open()
	rooms := numbered("room", 5)
	var recorders []*Recorder
	var talks []*traffic
	for _, name := range rooms {
		_, r := b.subscribe(name)
		recorders = append(recorders, r)
		talks = append(talks, c.talk(a, name, name+"/"))
	}
	for _, r := range recorders {
		r.Wait(c.t, "traffic", func(s Seen) bool { return len(s.Messages) > 20 })
	}
	c.server.Pause()
	time.Sleep(8 * time.Second)
	c.server.Resume()
	for i, r := range recorders {
		seen := len(r.Seen().Messages)
		r.Wait(c.t, "traffic to go on", func(s Seen) bool { return len(s.Messages) > seen+20 })
		c.allArrived(r, b, rooms[i], talks[i].stop())
	}
}

// allArrived fails the test unless just these messages were delivered, and are in the log, in this order.
func (c *cluster) allArrived(r *Recorder, n *node, name string, want []string) {
	c.t.Helper()
	if len(want) == 0 {
		c.t.Error("nothing was published")
		return
	}
	got := r.WaitBody(c.t, want[len(want)-1])
	if !slices.Equal(got.Bodies(), want) {
		c.t.Errorf("%d messages were acknowledged in %s, %d delivered, which differ: %s",
			len(want), name, len(got.Messages), difference(got.Bodies(), want))
	}
	check(c.t, "breaks", len(got.Breaks()), 0)
	if page := n.after(name, bus.ID{}, len(want)+1); !slices.Equal(bodies(page.Messages), want) {
		c.t.Errorf("%d messages were acknowledged in %s, %d are in the log", len(want), name, len(page.Messages))
	}
}

func difference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("at %d got %q, want %q", i, got[i], want[i])
		}
	}
	return "one is longer"
}

func subscribeAgain(c *cluster) {
	a := c.open()
	c.server.Pause()
	unused := NewRecorder(c.t)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := a.Subscribe(ctx, room, unused); err == nil {
		c.t.Error("a subscription that nobody confirmed")
	}
	unused.End()
	c.server.Resume()
	_, r := a.subscribe(room)
	a.publish(room, "m")
	r.WaitBody(c.t, "m")
}

func readiness(c *cluster) {
	a := c.open()
	_, r := a.subscribe(room)
	until(c.t, "the bus to be ready", func() bool { return a.Ready() == nil })
	c.server.Pause()
	paused := time.Now()
	until(c.t, "Ready to say that the server is silent", func() bool { return a.Ready() != nil })
	c.within(10*time.Second, paused, "noticing a silent server")
	c.t.Logf("Ready: %v; the heartbeat's age: %v", a.Ready(), a.HeartbeatAge())
	if a.HeartbeatAge() <= 0 {
		c.t.Errorf("the heartbeat's age is %v", a.HeartbeatAge())
	}
	c.server.Resume()
	resumed := time.Now()
	until(c.t, "the bus to be ready again", func() bool { return a.Ready() == nil })
	c.within(10*time.Second, resumed, "being ready again")
	a.publish(room, "after")
	r.WaitBody(c.t, "after")

	c.server.Kill()
	killed := time.Now()
	until(c.t, "Ready to say that the server is gone", func() bool { return a.Ready() != nil })
	c.within(10*time.Second, killed, "noticing a server that is gone")
	c.server.Restart()
	restarted := time.Now()
	until(c.t, "the bus to be ready again", func() bool { return a.Ready() == nil })
	c.within(10*time.Second, restarted, "being ready again")
}

func restartWithData(c *cluster) {
	a, b := c.open(), c.open()
	_, r := b.subscribe(room)
	talk := c.talk(a, room, "m")
	for range 3 {
		seen := len(r.Seen().Messages)
		r.Wait(c.t, "traffic", func(s Seen) bool { return len(s.Messages) > seen+20 })
		c.server.Restart()
	}
	seen := len(r.Seen().Messages)
	r.Wait(c.t, "traffic to go on", func(s Seen) bool { return len(s.Messages) > seen+20 })
	c.allArrived(r, a, room, talk.stop())
}

func scriptsForgotten(c *cluster) {
	a, b := c.open(), c.open()
	sub, r := b.subscribe(room)
	redis := c.server.Client()
	for i := range 5 {
		ctx, cancel := patient()
		if err := redis.ScriptFlush(ctx).Err(); err != nil {
			c.t.Fatal(err)
		}
		cancel()
		var results []<-chan outcome
		for k := range 20 {
			results = append(results, a.start(room, bus.Draft{Body: fmt.Appendf(nil, "%d/%d", i, k)}))
		}
		sub.Enter(bus.Member{ID: fmt.Sprint("u", i)})
		for _, result := range results {
			if o := a.await(result); o.err != nil {
				c.t.Errorf("publish: %v", o.err)
			}
		}
	}
	s := r.Wait(c.t, "all", func(s Seen) bool { return len(s.Messages) >= 100 && len(s.Changes) >= 5 })
	if !slices.IsSortedFunc(s.Bodies(), func(a, b string) int { return position(a) - position(b) }) {
		c.t.Errorf("the order was lost: %v", s.Bodies())
	}
}

func position(body string) (n int) {
	var i, k int
	fmt.Sscanf(body, "%d/%d", &i, &k)
	return 100*i + k
}

func serverFull(c *cluster) {
	a := c.open()
	_, r := a.subscribe(room)
	a.publish(room, "before")
	c.configure("maxmemory", "1")
	if o := a.await(a.start(room, keyed("u", "k", "m"))); !errors.Is(o.err, bus.ErrUnavailable) {
		c.t.Errorf("publish to a full server: %v, %v", o.id, o.err)
	}
	c.configure("maxmemory", "0")
	if _, err := a.repeat(room, keyed("u", "k", "m")); err != nil {
		c.t.Error(err)
	}
	a.publish(room, "after")
	check(c.t, "delivered", r.WaitBody(c.t, "after").Bodies(), []string{"before", "m", "after"})
}

func (c *cluster) configure(name, value string) {
	c.t.Helper()
	c.configureOn(c.server, name, value)
}

func (c *cluster) configureOn(server *RedisServer, name, value string) {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	if err := server.Client().ConfigSet(ctx, name, value).Err(); err != nil {
		c.t.Fatal(err)
	}
}

func everythingExpires(c *cluster) {
	a, b := c.open(), c.open()
	for _, name := range numbered("room", 3) {
		sub, _ := a.subscribe(name)
		_, r := b.subscribe(name)
		sub.Enter(bus.Member{ID: "ann"})
		r.Wait(c.t, "ann to join", changed(bus.Joined, "ann", 1))
		a.mustPublish(name, keyed("u", "k", "m"))
		a.publish(name, "without a key")
	}
	c.checkExpiries("with members")
	a.close()
	b.close()
	c.checkExpiries("after the last handle")
}

// drawnAndCountedExpires: there is a key for each user, whether or not it comes back.
func drawnAndCountedExpires(c *cluster) {
	a := c.open()
	ctx := context.Background()
	_, err := a.Draw(ctx, "ann", 1, 1, 10)
	must(c, err)
	for holder, n := range map[string]int{"has some": 2, "has none": 0} {
		_, err := a.Count(ctx, "ann", holder, n, time.Minute)
		must(c, err)
	}
	until(c.t, "the lease is renewed", func() bool { // whose keys have an expiry from then on
		ttl, err := c.server.Client().PTTL(ctx, "parley:incarnations").Result()
		return err == nil && ttl != -1
	})
	c.checkExpiries("with users")
}

func (c *cluster) checkExpiries(when string) {
	c.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	redis := c.server.Client()
	for keys := redis.Scan(ctx, 0, "*", 1000).Iterator(); keys.Next(ctx); {
		ttl, err := redis.PTTL(ctx, keys.Val()).Result()
		if err != nil {
			c.t.Fatal(err)
		}
		if ttl == -1 {
			c.t.Errorf("%s, the key %q is kept for ever", when, keys.Val())
		}
	}
}
