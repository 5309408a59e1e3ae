package judge

import (
	"fmt"
	"maps"
	"time"

	"parley/bus/id"
)

// A Verdict counts what the records of rooms show.
type Verdict struct {
	// What must never be; Notes describe some of it.
	Missing    int // acknowledged, not heard by a member who stayed or came back, and in no true gap
	Twice      int // heard again by the same member, though nothing of it was lost
	Disordered int // heard after a greater id, or after something that its sender said later, and not said again as Redis lost it
	Strange    int // never acknowledged, or under another id than that
	FalseGaps  int // told, though neither the id that it names was lost nor anything that followed
	Misled     int // came back and was told that nothing is missing, or that something is, and that was wrong
	Late       int // acknowledged before the member asked to join, and heard only after it was told that all that follows is new
	Ghosts     int // in a list at the end, and not there
	Unlisted   int // there at the end, and not in a list

	Acked, Heard int // by all members together
	Gone         int // acknowledged, and not in the log any more
	Gaps         int // told
	Excused      int // acknowledged and not heard, but in a true gap
	Notes        []string
}

const maxNotes = 12

func (v *Verdict) note(count *int, format string, args ...any) {
	*count++
	if len(v.Notes) < maxNotes {
		v.Notes = append(v.Notes, fmt.Sprintf(format, args...))
	}
}

// Wrong counts what must never be.
func (v *Verdict) Wrong() int {
	return v.Missing + v.Twice + v.Disordered + v.Strange + v.FalseGaps + v.Misled + v.Late + v.Ghosts + v.Unlisted
}

func (v *Verdict) String() string {
	return fmt.Sprintf("%d acknowledged, %d heard, %d gone from Redis: %d missing, %d twice, %d out of order, %d strange; "+
		"%d gaps, %d of them false, %d messages in true ones; %d misled, %d late; %d ghosts, %d unlisted",
		v.Acked, v.Heard, v.Gone, v.Missing, v.Twice, v.Disordered, v.Strange, v.Gaps, v.FalseGaps, v.Excused, v.Misled, v.Late, v.Ghosts, v.Unlisted)
}

// Judge adds what the record of a room shows.
func (v *Verdict) Judge(r *Room) {
	c := newHearing(v, r)
	v.Acked += len(r.Acked)
	for _, a := range r.Acked {
		if !r.Kept[a.ID] {
			v.Gone++
		}
	}
	there := make(map[string]bool)
	for i := range r.Members {
		m := &r.Members[i]
		c.order(m)
		c.whole(m)
		c.live(m)
		if !m.Gone {
			there[m.User] = true
		}
	}
	for i := range r.Members {
		if m := &r.Members[i]; !m.Gone {
			m.List.Of = "the list of " + m.Name
			c.list(m.List, there)
		}
	}
	for _, l := range r.Lists {
		c.list(l, there)
	}
}

// A hearing is one room's.
type hearing struct {
	*Verdict
	room *Room
	lost []id.ID         // known, and not in the log any more
	gone map[Words]bool  // which a lost entry had
	ids  map[id.ID]Words // acknowledged
}

func newHearing(v *Verdict, r *Room) *hearing {
	c := &hearing{Verdict: v, room: r, gone: make(map[Words]bool), ids: make(map[id.ID]Words, len(r.Acked))}
	known := maps.Clone(r.Known)
	if known == nil {
		known = make(map[id.ID]Words)
	}
	for w, a := range r.Acked {
		if other, ok := c.ids[a.ID]; ok {
			v.note(&v.Strange, "%s: %v and %v were both acknowledged as %v", r.Name, w, other, a.ID)
		}
		c.ids[a.ID] = w
		known[a.ID] = w
	}
	for _, m := range r.Members {
		for _, e := range m.Told {
			if e.Kind == Message {
				known[e.ID] = e.Words
			}
		}
	}
	for i, w := range known {
		if !r.Kept[i] {
			c.lost = append(c.lost, i)
			c.gone[w] = true
		}
	}
	return c
}

// isTrue reports whether something was lost from the gap's id on: where the id itself is lost, nobody can know what followed.
func (c *hearing) isTrue(gap Event) bool {
	for _, l := range c.lost {
		if !l.Less(gap.ID) {
			return true
		}
	}
	return false
}

// order judges what a member heard: all of it once, in order. After a gap the order starts anew.
func (c *hearing) order(m *Member) {
	who := c.room.Name + ", " + m.Name
	had := make(map[Words]id.ID)
	var newest id.ID
	latest := map[int]Words{} // by sender
	for _, e := range m.Told {
		switch e.Kind {
		case Gap:
			c.Gaps++
			if !c.isTrue(e) {
				c.note(&c.FalseGaps, "%s was told of a gap after %v, and neither that nor what followed is lost", who, e.ID)
			}
			newest = id.ID{}
			clear(latest)
			continue
		case Message:
		default:
			continue
		}
		c.Heard++
		ack, acked := c.room.Acked[e.Words]
		if !acked && !c.room.Open[e.Words] {
			c.note(&c.Strange, "%s heard %v as %v, which has no acknowledgement", who, e.Words, e.ID)
		} else if acked && ack.ID != e.ID && c.room.Kept[ack.ID] && c.room.Kept[e.ID] {
			c.note(&c.Strange, "%s heard %v as %v, which was acknowledged as %v", who, e.Words, e.ID, ack.ID)
		}
		if first, again := had[e.Words]; again {
			// Who said it again, since the log had lost the first, may be heard again: as another message.
			if first == e.ID || c.room.Kept[first] && c.room.Kept[e.ID] {
				c.note(&c.Twice, "%s heard %v twice, as %v and as %v", who, e.Words, first, e.ID)
			}
			continue
		}
		had[e.Words] = e.ID
		before, spoke := latest[e.Sender]
		// Of what was said together the log may have lost the beginning only. Who repeats it all adds that after the rest.
		again := spoke && before.N > e.N && c.gone[e.Words]
		if !newest.Less(e.ID) || spoke && before.N > e.N && !again {
			c.note(&c.Disordered, "%s heard %v as %v after %v, and after %v of the same sender", who, e.Words, e.ID, newest, before)
		}
		newest = e.ID
		if !again {
			latest[e.Sender] = e.Words
		}
	}
}

// whole judges what a member did not hear, and what it was told of that when it came back.
func (c *hearing) whole(m *Member) {
	who := c.room.Name + ", " + m.Name
	heard := make(map[Words]bool)
	var from, until id.ID // what concerns it
	entered := false
	for _, e := range m.Told {
		switch {
		case e.Kind == Message:
			heard[e.Words] = true
			until = e.ID
		case e.Kind == Joined && !entered:
			entered, from = true, e.ID
		}
	}
	if !entered {
		return
	}
	var missing []id.ID
	for w, a := range c.room.Acked {
		switch {
		case heard[w] || !from.Less(a.ID) || m.Gone && !a.ID.Less(until):
		case c.excused(m.Told, a):
			c.Excused++
		default:
			c.note(&c.Missing, "%s did not hear %v, acknowledged as %v", who, w, a.ID)
			missing = append(missing, a.ID)
		}
	}
	for i, e := range m.Told {
		if e.Kind == Joined && e.Recovered != nil && e.Since != nil {
			c.recovery(who, e, m.Told[i+1:], missing)
		}
	}
}

// excused reports whether a true gap was told that a message is in: it follows the id that the gap names, and comes before
// what was heard next; or it had been acknowledged when the gap was told, and is lost.
func (c *hearing) excused(told []Event, a Ack) bool {
	lost := !c.room.Kept[a.ID]
	open := false // a gap that it may be in, up to what is heard next
	for _, e := range told {
		switch e.Kind {
		case Gap:
			if e.ID.Less(a.ID) && c.isTrue(e) {
				if lost && !a.At.After(e.At) {
					return true
				}
				open = true
			}
		case Message:
			if open && a.ID.Less(e.ID) {
				return true
			}
			open = false
		}
	}
	return open
}

// recovery judges the answer to a member that came back. What follows is what it was told then.
func (c *hearing) recovery(who string, joined Event, follows []Event, missing []id.ID) {
	gap, live := false, false
	var next *id.ID // what it heard next
	for _, e := range follows {
		if e.Kind == Joined {
			break
		}
		gap = gap || e.Kind == Gap && !live
		live = live || e.Kind == Live
		if e.Kind == Message && next == nil {
			next = &e.ID
		}
	}
	switch {
	case *joined.Recovered && gap && !c.room.lostSince(joined.Asked):
		c.note(&c.Misled, "%s came back after %v and was told that nothing is missing, and then of a gap", who, *joined.Since)
	case !*joined.Recovered && !gap && live:
		c.note(&c.Misled, "%s came back after %v and was told that something is missing, and of no gap", who, *joined.Since)
	case *joined.Recovered:
		for _, i := range missing {
			if joined.Since.Less(i) && (next == nil || i.Less(*next)) {
				c.note(&c.Misled, "%s came back after %v and was told that nothing is missing, and %v is", who, *joined.Since, i)
				break
			}
		}
	}
}

// live judges what a member was told to be new: nothing that was acknowledged before it asked to join is that.
func (c *hearing) live(m *Member) {
	var asked time.Time // of what was asked last, once it is told that it has all until then
	var joined Event
	for _, e := range m.Told {
		switch e.Kind {
		case Joined:
			joined, asked = e, time.Time{}
		case Live:
			asked = joined.Asked
		case Message:
			if a, ok := c.room.Acked[e.Words]; ok && a.ID == e.ID && a.At.Before(asked) {
				c.note(&c.Late, "%s, %s heard %v as %v after it was live, which was acknowledged %s before it asked to join",
					c.room.Name, m.Name, e.Words, e.ID, asked.Sub(a.At))
			}
		}
	}
}

// list compares a list with who is there.
func (c *hearing) list(l List, there map[string]bool) {
	for u := range l.Users {
		if !there[u] {
			c.note(&c.Ghosts, "%s: %s has %s, who is not there", c.room.Name, l.Of, u)
		}
	}
	for u := range there {
		if !l.Users[u] {
			c.note(&c.Unlisted, "%s: %s lacks %s, who is there", c.room.Name, l.Of, u)
		}
	}
}
