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

// Messages past the bound are left to the log: one item says up to where. A break keeps its place.
func TestMessagesThatWaitForAFlushAreBounded(t *testing.T) {
	var in inbox
	r := &room{}
	in.state = inboxQueued // nobody flushes
	body := []byte(strings.Repeat("x", 50_000))
	at := uint64(0)
	next := func() bus.ID { at++; return bus.ID{Ms: at} }
	for round := range 2 {
		first := at + 1
		for range 2 * maxMessages / len(body) {
			in.add(item{kind: itemMessage, msg: bus.Message{ID: next(), Body: body}}, r.wake)
		}
		in.add(item{kind: itemMessage, msg: bus.Message{ID: next(), Body: []byte("it would fit, but comes behind others")}}, r.wake)
		skipped := at
		in.add(item{kind: itemMessage, msg: bus.Message{ID: next(), Break: true}}, r.wake)
		for range 3 {
			in.add(item{kind: itemMessage, msg: bus.Message{ID: next(), Body: body}}, r.wake)
		}
		items := in.take(nil)
		bytes, n := 0, 0
		for n < len(items) && items[n].kind == itemMessage {
			if items[n].msg.ID.Ms != first+uint64(n) {
				t.Fatalf("round %d: item %d is of message %v", round, n, items[n].msg.ID)
			}
			bytes += len(items[n].msg.Body)
			n++
		}
		if bytes > maxMessages || bytes < maxMessages*9/10 {
			t.Errorf("round %d: %d bytes of messages wait", round, bytes)
		}
		rest := items[n:]
		if len(rest) != 3 || rest[0].kind != itemSkip || *rest[0].skip != (bus.ID{Ms: skipped}) || !rest[1].msg.Break ||
			rest[2].kind != itemSkip || *rest[2].skip != (bus.ID{Ms: at}) {
			t.Errorf("round %d: then come %+v", round, rest)
		}
	}
}
