package main

import (
	"fmt"
	"strings"
	"testing"

	"parley/node/client"
)

// A roomRecord is what was said in one room, and what each of its members heard. All of them were members before anything
// was said, and came back whenever they were away.
type roomRecord struct {
	acked map[words]client.ID
	heard [][]happening // by member, in the order heard
}

// words are what a sender said n-th.
type words struct{ sender, n int }

// A happening is what a member heard: a message or a gap.
type happening struct {
	words
	id  client.ID // the message's; of a gap the one that it follows
	gap bool
}

// A verdict counts what a record shows. The first four are what must never be, and notes describe some of them.
type verdict struct {
	missing    int // acknowledged, not heard, and no gap was told that it is in
	twice      int // heard before, by the same member
	disordered int // heard after a greater id, or after something that its sender said later
	strange    int // never said, or heard under another id than it was acknowledged with

	acked, heard int // by all members together
	gaps         int
	told         int // acknowledged and not heard, but in a gap that was told
	notes        []string
}

const maxNotes = 10

func (v *verdict) note(count *int, format string, args ...any) {
	*count++
	if len(v.notes) < maxNotes {
		v.notes = append(v.notes, fmt.Sprintf(format, args...))
	}
}

// wrong counts what must never be.
func (v *verdict) wrong() int { return v.missing + v.twice + v.disordered + v.strange }

func (v *verdict) String() string {
	return fmt.Sprintf("%d messages acknowledged, %d heard: %d missing, %d twice, %d out of order, %d strange; %d gaps told, %d messages in them",
		v.acked, v.heard, v.missing, v.twice, v.disordered, v.strange, v.gaps, v.told)
}

// judge adds what the record of a room shows. Where Redis forgot what it had acknowledged, a message that was sent again may
// have two ids.
func (v *verdict) judge(room string, r *roomRecord, forgot bool) {
	v.acked += len(r.acked)
	ids := make(map[client.ID]words, len(r.acked))
	for w, id := range r.acked {
		if other, ok := ids[id]; ok && !forgot {
			v.note(&v.strange, "%s: %v and %v were both acknowledged as %v", room, w, other, id)
		}
		ids[id] = w
	}
	for member, heard := range r.heard {
		v.judgeMember(fmt.Sprintf("%s, member %d", room, member), r, heard, forgot)
	}
}

func (v *verdict) judgeMember(who string, r *roomRecord, heard []happening, forgot bool) {
	had := make(map[words]bool, len(heard))
	var newest client.ID      // since the last gap, as are
	latest := map[int]words{} // by sender
	for _, h := range heard {
		if h.gap {
			v.gaps++
			newest = client.ID{}
			clear(latest)
			continue
		}
		v.heard++
		if id, ok := r.acked[h.words]; !ok {
			v.note(&v.strange, "%s heard %v as %v, which has no acknowledgement", who, h.words, h.id)
		} else if id != h.id && !forgot {
			v.note(&v.strange, "%s heard %v as %v, which was acknowledged as %v", who, h.words, h.id, id)
		}
		if had[h.words] {
			v.note(&v.twice, "%s heard %v twice, again as %v", who, h.words, h.id)
			continue
		}
		had[h.words] = true
		before, spoke := latest[h.sender]
		if !newest.Less(h.id) || spoke && before.n > h.n {
			v.note(&v.disordered, "%s heard %v as %v after %v, and after %v of the same sender", who, h.words, h.id, newest, before)
		}
		newest, latest[h.sender] = h.id, h.words
	}
	for w, id := range r.acked {
		switch {
		case had[w]:
		case inGap(heard, id):
			v.told++
		default:
			v.note(&v.missing, "%s did not hear %v, acknowledged as %v", who, w, id)
		}
	}
}

// inGap reports whether a gap was told that an id is in: after the one that the gap names, and before what was heard next.
func inGap(heard []happening, id client.ID) bool {
	after, open := client.ID{}, false
	for _, h := range heard {
		switch {
		case h.gap && open && after.Less(h.id): // goes on
		case h.gap:
			after, open = h.id, true
		case open && after.Less(id) && id.Less(h.id):
			return true
		default:
			open = false
		}
	}
	return open && after.Less(id)
}

// What the fault tests rest on: each kind of mistake is found, and a gap excuses what is in it and nothing else.
func TestVerdictFindsWhatIsWrong(t *testing.T) {
	at := func(seq uint64) client.ID { return client.ID{Ms: 1000, Seq: seq} }
	msg := func(sender, n int, seq uint64) happening { return happening{words: words{sender, n}, id: at(seq)} }
	gapAfter := func(seq uint64) happening { return happening{id: at(seq), gap: true} }
	acked := map[words]client.ID{{0, 0}: at(1), {1, 0}: at(2), {0, 1}: at(3), {0, 2}: at(4)}
	a, b, c, d := msg(0, 0, 1), msg(1, 0, 2), msg(0, 1, 3), msg(0, 2, 4)

	for _, tt := range []struct {
		what   string
		heard  []happening
		forgot bool
		want   string // kinds of mistakes
	}{
		{"all of it", []happening{a, b, c, d}, false, ""},
		{"nothing", nil, false, "missing missing missing missing"},
		{"not the first", []happening{b, c, d}, false, "missing"},
		{"not one in the middle", []happening{a, c, d}, false, "missing"},
		{"not the last", []happening{a, b, c}, false, "missing"},
		{"one twice in a row", []happening{a, a, b, c, d}, false, "twice"},
		{"one again, later", []happening{a, b, c, d, b}, false, "twice"},
		{"one again, after a gap", []happening{a, b, c, d, gapAfter(2), d}, false, "twice"},
		{"two senders the other way round", []happening{b, a, c, d}, false, "disordered"},
		{"one sender the other way round", []happening{a, b, d, c}, false, "disordered"},
		{"one sender the other way round, with rising ids", []happening{a, b, msg(0, 2, 3), msg(0, 1, 4)}, true, "disordered"},
		{"what nobody said", []happening{a, b, c, d, msg(1, 1, 5)}, false, "strange"},
		{"another id", []happening{a, b, c, msg(0, 2, 9)}, false, "strange"},
		{"another id, as Redis forgot the first", []happening{a, b, c, msg(0, 2, 9)}, true, ""},
		{"a gap, and it is in it", []happening{a, gapAfter(1), c, d}, false, ""},
		{"a gap at the end", []happening{a, b, gapAfter(2)}, false, ""},
		{"a gap at the beginning", []happening{gapAfter(0), c, d}, false, ""},
		{"a gap told twice, of which the first reaches back", []happening{a, gapAfter(1), gapAfter(2), c, d}, false, ""},
		{"a gap after it", []happening{a, c, gapAfter(3), d}, false, "missing"},
		{"a gap that says it follows it", []happening{a, gapAfter(2), c, d}, false, "missing"},
		{"a gap that ends before it", []happening{gapAfter(0), a, c, d}, false, "missing"},
		{"a gap that reaches back over what was heard", []happening{a, c, gapAfter(1), d}, false, ""},
		{"a gap, and the order starts anew", []happening{c, gapAfter(0), a, b, d}, true, ""},
		{"only a gap", []happening{gapAfter(0)}, false, ""},
	} {
		var v verdict
		v.judge("room", &roomRecord{acked, [][]happening{{a, b, c, d}, tt.heard}}, tt.forgot)
		var got []string
		for kind, count := range map[string]int{
			"missing": v.missing, "twice": v.twice, "disordered": v.disordered, "strange": v.strange,
		} {
			for range count {
				got = append(got, kind)
			}
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%s: found %q, want %q: %s", tt.what, got, tt.want, strings.Join(v.notes, "; "))
		}
	}

	var v verdict
	v.judge("room", &roomRecord{acked: map[words]client.ID{{0, 0}: at(1), {1, 0}: at(1)}}, false)
	if v.strange != 1 {
		t.Errorf("two messages with one id: %v", &v)
	}
}
