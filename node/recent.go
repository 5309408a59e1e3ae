package node

import (
	"slices"
	"time"

	"parley/bus"
)

// Bounds of what a room keeps in memory of its newest messages, so that clients that come back, all at once
// after a restart, are served without asking the bus.
const (
	recentMessages = 128
	recentBytes    = 32 << 10
	recentSlack    = 4 // of so many parts one more may be kept, so that room is not made for each message
)

// recent is the end of a room's log, up to the room's head: an unbroken chain. room.mu guards it.
type recent struct {
	msgs    []bus.Message // oldest first
	bytes   int
	from    bus.ID // what follows this id, up to the head, is all here
	whole   bool   // and before it the log has nothing
	learned bool   // what the log has before was read, whether it joined up or not
	broke   bus.ID // the marker of the newest break: whoever has less may lack something, whatever the chain says
	used    time.Time
}

// add takes the message after the head.
func (c *recent) add(m bus.Message, now time.Time) {
	if len(c.msgs) == 0 {
		c.from = m.Prev
	}
	c.used = now
	c.msgs = append(c.msgs, m)
	c.bytes += len(m.Body)
	if len(c.msgs) <= recentMessages+recentMessages/recentSlack && c.bytes <= recentBytes+recentBytes/recentSlack {
		return
	}
	drop := 0
	for len(c.msgs)-drop > recentMessages || c.bytes > recentBytes && len(c.msgs)-drop > 1 {
		c.bytes -= len(c.msgs[drop].Body)
		c.from = c.msgs[drop].ID
		drop++
	}
	c.whole = c.whole && drop == 0
	c.msgs = slices.Delete(c.msgs, 0, drop)
}

// reset forgets everything; the head is now head.
func (c *recent) reset(head bus.ID) { *c = recent{from: head, broke: c.broke} }

// after returns what follows an id, if that is all here, and no break that was not told of: told is the marker of the newest that
// was.
func (c *recent) after(since, told bus.ID) ([]bus.Message, bool) {
	if since.Less(c.broke) && told.Less(c.broke) {
		return nil, false
	}
	if since == c.from {
		return c.msgs, true
	}
	for i := len(c.msgs) - 1; i >= 0; i-- {
		if c.msgs[i].ID == since {
			return c.msgs[i+1:], true
		}
	}
	return nil, false
}

// start returns the id after which the newest n messages follow, if they are all here.
func (c *recent) start(n int) (bus.ID, bool) {
	switch {
	case n < len(c.msgs):
		return c.msgs[len(c.msgs)-n-1].ID, true
	case n == len(c.msgs) || c.whole:
		return c.from, true
	default:
		return bus.ID{}, false
	}
}

// learn takes the newest messages of the log as they were read, if they join up with the head and what is here.
func (c *recent) learn(page bus.Page, head bus.ID) {
	c.learned = true
	msgs := page.Messages
	if slices.ContainsFunc(msgs, func(m bus.Message) bool { return m.Break }) {
		return
	}
	if i := slices.IndexFunc(msgs, func(m bus.Message) bool { return m.ID == c.from }); i >= 0 {
		msgs = msgs[:i+1] // what follows is here
	} else if page.Last != c.from {
		return
	}
	known := c.msgs
	*c = recent{from: head, whole: !page.More, learned: true, broke: c.broke}
	if len(msgs) > 0 {
		c.from = msgs[0].Prev
	}
	now := time.Now()
	for _, m := range slices.Concat(msgs, known) {
		c.add(m, now)
	}
}
