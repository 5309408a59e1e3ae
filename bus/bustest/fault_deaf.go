package bustest

import (
	"time"

	"parley/bus"
)

var deafFaults = []promise{
	{name: "a connection that answers and hears nothing is replaced", test: deafConnection},
	{name: "who entered while it could not be written leaves with a dead node", test: refusedThenDead},
}

// deafConnection has a connection acknowledge what is published over it, and bring no message.
func deafConnection(c *cluster) {
	a, b := c.openProxied(), c.open()
	_, atA := a.subscribe(room)
	b.publish(room, "before")
	atA.WaitBody(c.t, "before")
	since := time.Now()
	for range 50 { // more than come meanwhile
		a.wire.dropMessage("")
	}
	until(c.t, "the connection to be replaced", func() bool { return a.seen.count(&a.seen.reconnects) > 0 })
	c.within(12*time.Second, since, "replacing it")
	a.wire.set(func() { a.wire.drops = nil })
	b.publish(room, "end")
	check(c.t, "delivered", atA.WaitBody(c.t, "end").Bodies(), []string{"before", "end"})
}

func refusedThenDead(c *cluster) {
	a, dead := c.open(), c.openProxied()
	sub, _ := dead.subscribe(room)
	c.configure("maxmemory", "1")
	sub.Enter(bus.Member{ID: "ann"})
	time.Sleep(time.Second) // time enough for a try that fails
	c.configure("maxmemory", "0")
	until(c.t, "ann to be in the room", func() bool { return a.roster(room).Count == 1 })
	dead.die()
	since := time.Now()
	until(c.t, "ann to leave", func() bool { return a.roster(room).Count == 0 })
	c.within(leaseOver, since, "leaving")
}
