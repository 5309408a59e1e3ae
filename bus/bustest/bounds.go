package bustest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"parley/bus"
)

// boundFaults are about what is bounded: that the bound holds, and that what was taken is given back, to the last byte, whichever
// way it goes. Each way is gone again and again, so that a leak of any size fills the bound.
var boundFaults = []promise{
	{
		name: "a full queue takes as much again once it is empty", test: queueFrees,
		settings: Settings{QueueBytes: queueBytes, Timeout: 20 * time.Second},
	},
	{
		name: "what is held during a read is given back", test: heldIsGivenBack,
		settings: Settings{Compare: time.Hour, Timeout: 20 * time.Second},
	},
}

const queueBytes = 48 << 10

// queueFrees fills the queue behind a flight that is held, empties it in each way that there is, and fills it again.
func queueFrees(c *cluster) {
	a := c.openProxied()
	_, r := a.subscribe(room)
	server := c.server.Client()
	ctx, cancel := patient()
	defer cancel()
	var counts []int // of the messages that were taken, by round
	var accepted []string
	for i := range 60 {
		way := []string{"answered", "refused", "sent again", "broken"}[i%4]
		until(c.t, "the link to work", func() bool { return a.await(a.start(room, keyed("u", "probe", "probe"))).err == nil })
		first := fmt.Sprint("first of ", i)
		held, release := a.wire.holdRequest(first)
		results := []<-chan outcome{a.start(room, bus.Draft{Body: []byte(first)})}
		c.await(held, "the first to be on its way")
		bodies := []string{first}
		for refused := false; !refused; {
			body := fmt.Sprint(i, ".", len(bodies), " ", string(bytes.Repeat([]byte("x"), 300)))[:300]
			result := a.start(room, bus.Draft{Body: []byte(body)})
			select {
			case o := <-result: // nothing else can settle it now
				if refused = true; !errors.Is(o.err, bus.ErrUnavailable) {
					c.t.Errorf("a full queue: %v, %v", o.id, o.err)
				}
			default:
				results, bodies = append(results, result), append(bodies, body)
			}
			if len(bodies)*300 > queueBytes {
				c.t.Fatalf("%d messages of 300 bytes wait, more than %d bytes", len(bodies), queueBytes)
			}
		}
		counts = append(counts, len(bodies))
		switch way {
		case "refused":
			c.configure("maxmemory", "1")
		case "sent again":
			if err := server.ScriptFlush(ctx).Err(); err != nil {
				c.t.Fatal(err)
			}
		case "broken":
			a.wire.cut()
		}
		release()
		for k, result := range results {
			switch o := a.await(result); {
			case o.err == nil:
				accepted = append(accepted, bodies[k])
			case way == "answered" || way == "sent again" || !errors.Is(o.err, bus.ErrUnavailable):
				c.t.Errorf("%s: message %d: %v", way, k, o.err)
			}
		}
		if way == "refused" {
			c.configure("maxmemory", "0")
		}
		if c.t.Failed() {
			return
		}
	}
	const some = 8 // a heartbeat takes a place now and then
	if slices.Max(counts[:some]) != slices.Max(counts[len(counts)-some:]) {
		c.t.Errorf("messages that were taken, round after round: %v", counts)
	}
	a.publish(room, "end")
	delivered := slices.DeleteFunc(r.WaitBody(c.t, "end").Bodies(), func(b string) bool { return b == "probe" })
	check(c.t, "whether what was acknowledged is what was delivered", slices.Equal(delivered, append(accepted, "end")), true)
}

// heldIsGivenBack has a message missed again and again, and what follows it held while the log is read. What could not be held
// counts as missed too, so the observer is told of more than one message a round when nothing can be held any more.
func heldIsGivenBack(c *cluster) {
	const rounds, size = 40, 64 << 10 // in all more than any node holds of a room
	a, b := c.open(), c.openProxied()
	_, r := b.subscribe(room)
	for i := range rounds {
		missed, next := fmt.Sprint("missed ", i, "."), fmt.Sprint("next ", i, ".")
		dropped := b.wire.dropMessage(missed)
		a.publish(room, missed)
		c.await(dropped, "the message to be dropped")
		a.publish(room, next+string(make([]byte, size)))
		r.Wait(c.t, "both", func(s Seen) bool { return len(s.Messages) >= 2*(i+1) })
		until(c.t, "the repair to be over", func() bool { return b.seen.count(&b.seen.repaired) > i })
		check(c.t, "messages that had not arrived", b.seen.count(&b.seen.repaired), i+1)
		if c.t.Failed() {
			return
		}
	}
}
