package node

import (
	"testing"
	"time"

	"parley/bus"
)

func messages(from, to uint64) []bus.Message {
	var out []bus.Message
	for i := from; i <= to; i++ {
		out = append(out, bus.Message{ID: bus.ID{Ms: i}, Prev: bus.ID{Ms: i - 1}, Body: make([]byte, 100)})
	}
	return out
}

func at(ms uint64) bus.ID { return bus.ID{Ms: ms} }

func TestRecentKnowsWhatItHasAndWhatNot(t *testing.T) {
	var c recent
	c.reset(at(10))
	for _, m := range messages(11, 20) {
		c.add(m, time.Now())
	}
	for since, want := range map[uint64]int{10: 10, 11: 9, 20: 0, 9: -1, 21: -1} {
		if msgs, ok := c.after(at(since), bus.ID{}); ok != (want >= 0) || ok && len(msgs) != want {
			t.Errorf("after %d: %d, %v", since, len(msgs), ok)
		}
	}
	for n, want := range map[int]uint64{1: 19, 10: 10, 11: 0} {
		if start, ok := c.start(n); ok != (want > 0) || ok && start != at(want) {
			t.Errorf("start of %d: %v, %v", n, start, ok)
		}
	}
	for _, m := range messages(21, 1000) {
		c.add(m, time.Now())
	}
	n := len(c.msgs)
	if _, ok := c.after(at(10), bus.ID{}); ok || n < recentMessages || n > recentMessages*5/4 || c.from != at(1000-uint64(n)) {
		t.Errorf("it keeps %d messages from %v", n, c.from)
	}
	big := messages(1001, 1001)[0]
	big.Body = make([]byte, 2*recentBytes)
	if c.add(big, time.Now()); len(c.msgs) != 1 || c.from != at(1000) || c.bytes != len(big.Body) {
		t.Errorf("with one that is too large it keeps %d messages from %v", len(c.msgs), c.from)
	}
}

func TestRecentLearnsOnlyWhatJoinsUp(t *testing.T) {
	live := func() *recent { // the room was entered at 10, and 11 to 12 came since
		c := &recent{from: at(10)}
		for _, m := range messages(11, 12) {
			c.add(m, time.Now())
		}
		return c
	}
	for name, tc := range map[string]struct {
		page bus.Page
		n    int    // messages it has afterwards
		from uint64 // after this id
	}{
		"the page ends where it begins": {bus.Page{Messages: messages(6, 10), Last: at(10), More: true}, 7, 5},
		"the page overlaps":             {bus.Page{Messages: messages(6, 12), Last: at(12), More: true}, 7, 5},
		"the page is ahead":             {bus.Page{Messages: messages(6, 14), Last: at(14), More: true}, 7, 5},
		"the page begins later":         {bus.Page{Messages: messages(11, 14), Last: at(14), More: true}, 2, 10},
		"an empty log":                  {bus.Page{Last: at(10)}, 2, 10},
		"a break":                       {bus.Page{Messages: append(messages(6, 9), bus.Message{ID: at(10), Break: true}), Last: at(10)}, 2, 10},
	} {
		c := live()
		c.learn(tc.page, at(12))
		if len(c.msgs) != tc.n || c.from != at(tc.from) || c.msgs[len(c.msgs)-1].ID != at(12) {
			t.Errorf("%s: %d messages after %v", name, len(c.msgs), c.from)
		}
		for i := 1; i < len(c.msgs); i++ {
			if c.msgs[i].Prev != c.msgs[i-1].ID {
				t.Errorf("%s: no chain: %v", name, c.msgs)
			}
		}
	}
}

// The marker of a break, 15, comes behind messages that a node published that did not know of it.
func TestRecentAnswersForNoCursorBelowABreak(t *testing.T) {
	var c recent
	c.reset(at(10))
	c.broke = at(15)
	for _, m := range messages(11, 14) {
		c.add(m, time.Now())
	}
	for since := uint64(10); since < 15; since++ {
		if _, ok := c.after(at(since), bus.ID{}); ok {
			t.Errorf("after %d: answered", since)
		}
		if msgs, ok := c.after(at(since), at(15)); !ok || len(msgs) != int(14-since) {
			t.Errorf("after %d, where the break was told: %d, %v", since, len(msgs), ok)
		}
	}
	c.reset(at(15))
	for _, m := range messages(16, 17) {
		c.add(m, time.Now())
	}
	c.learn(bus.Page{Last: at(15)}, at(17))
	if msgs, ok := c.after(at(15), bus.ID{}); !ok || len(msgs) != 2 {
		t.Errorf("after the break: %d, %v", len(msgs), ok)
	}
}
