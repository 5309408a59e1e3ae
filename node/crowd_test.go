package node

import (
	"strings"
	"testing"

	"parley/bus"
)

// A room of 50,000 that ends must not cost their square: who leaves, and a flush that has nothing to write, look at nobody else. All
// but a few members are none, so whoever looks at them falls; and who leaves is there twice more, for who searches.
func TestWhoLeavesIsNotLookedForInACrowd(t *testing.T) {
	r := roomOf(t, 2)
	leaves, last := r.members[0], r.members[1]
	r.members = make([]*member, 50_000)
	const place = 20_000
	for i, m := range map[int]*member{1: leaves, place: leaves, 49_998: leaves, 49_999: last} {
		r.members[i], m.place = m, i
	}
	leaves.place = place
	r.presence.large = true
	r.holders++
	r.dismiss(leaves, false)
	if len(r.members) != 49_999 || r.members[place] != last || last.place != place || r.members[1] != leaves || r.members[49_998] != leaves {
		t.Error("another place was taken away")
	}
	var b batch
	r.inbox.mu.Lock()
	for i := range 100 {
		change := bus.Change{Kind: bus.Left, Count: 49_999 - i, Version: uint64(i + 1)}
		r.inbox.items = append(r.inbox.items, item{kind: itemChange, who: &change})
	}
	r.inbox.state = inboxQueued
	r.inbox.mu.Unlock()
	r.flush(&b)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.presence.handed != 100 {
		t.Errorf("%d changes were handed on", r.presence.handed)
	}
	r.members = []*member{last}
	last.place = 0
}

// Who was not live while the list of a room was told, of which no single change was told before, is told it when live again.
func TestTheListOfARoomThatIsNoMoreLargeIsToldLater(t *testing.T) {
	r := roomOf(t, 1)
	m := r.members[0]
	r.mu.Lock()
	defer r.mu.Unlock()
	m.live, m.greeted = false, true
	var b batch
	b.beginLocked(r)
	r.changedLocked(&b, &bus.Change{Kind: bus.Synced, Count: 1})
	r.presence.timer.Stop()
	m.handed = r.presence.handed
	r.countLocked(&b)
	b.sendLocked()
	frames, _, done := m.goLiveLocked(nil, nil)
	if !done || !strings.Contains(string(frames), `"sync"`) {
		t.Errorf("it was told %q", frames)
	}
}
