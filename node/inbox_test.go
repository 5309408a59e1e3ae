package node

import (
	"strings"
	"testing"

	"parley/bus"
)

func TestWhatWaitsForAFlushIsBounded(t *testing.T) {
	var in inbox
	r := &room{}
	in.state = inboxQueued // nobody flushes
	body := []byte(strings.Repeat("x", 1000))
	for i := range 20_000 {
		in.add(item{kind: itemSignal, msg: bus.Message{Body: body}}, r.wake)
		in.add(item{kind: itemChange, who: &bus.Change{Kind: bus.Joined, Count: i, Version: uint64(i)}}, r.wake)
	}
	for round := range 2 {
		signals, changes := 0, 0
		var last *bus.Change
		for _, it := range in.take(nil) {
			if it.kind == itemSignal {
				signals += len(it.msg.Body)
			} else {
				changes, last = changes+1, it.who
			}
		}
		switch {
		case signals > maxSignals || changes > maxChanges:
			t.Fatalf("round %d: %d bytes of signals and %d changes wait", round, signals, changes)
		case round == 0 && (signals < maxSignals/2 || last.Kind != bus.Synced || last.Version != 19_999 || last.Count != 19_999):
			t.Fatalf("%d bytes of signals wait, and at last %+v", signals, last)
		case round == 1 && (signals != len(body) || changes != 1 || last.Kind != bus.Left):
			t.Fatalf("then %d bytes of signals and %d changes wait", signals, changes)
		}
		in.add(item{kind: itemSignal, msg: bus.Message{Body: body}}, r.wake)
		in.add(item{kind: itemChange, who: &bus.Change{Kind: bus.Left}}, r.wake)
	}
}
