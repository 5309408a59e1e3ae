package judge

import (
	"slices"
	"strings"
	"testing"
	"time"

	"parley/bus/id"
)

func at(seq uint64) id.ID      { return id.ID{Ms: 1000, Seq: seq} }
func clock(s int) time.Time    { return time.Unix(int64(s), 0) }
func said(sender, n int) Words { return Words{sender, n} }
func ids(seqs ...uint64) map[id.ID]bool {
	m := make(map[id.ID]bool)
	for _, s := range seqs {
		m[at(s)] = true
	}
	return m
}

func heard(sender, n int, seq uint64) Event {
	return Event{Kind: Message, Words: Words{sender, n}, ID: at(seq), At: clock(10)}
}

func gapAfter(seq uint64) Event { return Event{Kind: Gap, ID: at(seq), At: clock(10)} }

func joined(last uint64) Event { return Event{Kind: Joined, ID: at(last)} }

func cameBack(since uint64, recovered bool) Event {
	i := at(since)
	return Event{Kind: Joined, ID: at(4), Since: &i, Recovered: &recovered}
}

// Each kind of mistake, planted in the record of a room in which four messages were acknowledged, is found, and a gap excuses
// what it may and nothing else.
func TestEachMistakeIsFound(t *testing.T) {
	acked := map[Words]Ack{
		said(0, 0): {at(1), clock(1)}, said(1, 0): {at(2), clock(2)}, said(0, 1): {at(3), clock(3)}, said(0, 2): {at(4), clock(4)},
	}
	j, a, b, c, d := joined(0), heard(0, 0, 1), heard(1, 0, 2), heard(0, 1, 3), heard(0, 2, 4)
	live := Event{Kind: Live}
	asked := func(j Event, s int) Event { j.Asked = clock(s); return j }
	early := Event{Kind: Gap, ID: at(0), At: clock(0)}
	all, without2, without3 := ids(1, 2, 3, 4), ids(1, 3, 4), ids(1, 2, 4)
	gone := func(m Member) Member { m.Gone = true; return m }

	for _, tt := range []struct {
		what string
		told []Event
		kept map[id.ID]bool
		want string // kinds of mistakes
	}{
		{"all of it", []Event{j, a, b, c, d}, all, ""},
		{"nothing", []Event{j}, all, "missing missing missing missing"},
		{"not the first", []Event{j, b, c, d}, all, "missing"},
		{"not one in the middle", []Event{j, a, c, d}, all, "missing"},
		{"not the last", []Event{j, a, b, c}, all, "missing"},
		{"not what was before it entered", []Event{joined(2), c, d}, all, ""},
		{"one twice in a row", []Event{j, a, a, b, c, d}, all, "twice"},
		{"one again, later", []Event{j, a, b, c, d, b}, all, "twice"},
		{"one again, after a gap", []Event{j, a, b, c, d, gapAfter(1), d}, without2, "twice"},
		{"one again, under another id, and both are kept", []Event{j, a, b, c, d, heard(1, 0, 5)}, ids(1, 2, 3, 4, 5), "strange twice"},
		{"one again, under another id, as Redis lost the first", []Event{j, a, b, c, d, gapAfter(1), heard(1, 0, 5)}, ids(1, 3, 4, 5), ""},
		{"two senders the other way round", []Event{j, b, a, c, d}, all, "disordered"},
		{"one sender the other way round", []Event{j, a, b, d, c}, all, "disordered"},
		{"said again after what follows, as Redis lost the first", []Event{j, a, b, d, heard(0, 1, 5)}, ids(1, 2, 4, 5), ""},
		{"what nobody said", []Event{j, a, b, c, d, heard(1, 1, 5)}, ids(1, 2, 3, 4, 5), "strange"},
		{"what was never answered", []Event{j, a, b, c, d, heard(3, 0, 5)}, ids(1, 2, 3, 4, 5), ""},
		{"another id", []Event{j, a, b, c, heard(0, 2, 9)}, ids(1, 2, 3, 4, 9), "strange"},
		{"lost, and a gap", []Event{j, a, gapAfter(1), c, d}, without2, ""},
		{"lost, and no gap", []Event{j, a, c, d}, without2, "missing"},
		{"a gap, and nothing is lost", []Event{j, a, b, gapAfter(2), c, d}, all, "false gap"},
		{"a gap after what is lost itself", []Event{j, a, b, gapAfter(2), c, d}, without2, ""},
		{"a gap, nothing is lost, and it lacks one", []Event{j, a, gapAfter(1), c, d}, all, "false gap missing"},
		{"a gap at the end", []Event{j, a, b, gapAfter(2)}, without3, ""},
		{"a gap at the beginning", []Event{j, gapAfter(0), c, d}, without2, ""},
		{"a gap told twice, of which the first reaches back", []Event{j, a, gapAfter(1), gapAfter(2), c, d}, ids(1, 4), ""},
		{"a gap that does not reach back to it", []Event{j, a, gapAfter(2), c, d}, ids(1, 4), "missing"},
		{"a gap that ends before it", []Event{j, early, a, c, d}, ids(3, 4), "missing"},
		{"lost and acknowledged before the gap, whatever was heard next", []Event{j, gapAfter(0), a, c, d}, without2, ""},
		{"a gap, and the order starts anew", []Event{j, c, gapAfter(0), a, b, d}, without3, ""},
		{"came back, and got all", []Event{j, a, cameBack(1, true), b, live, c, d}, all, ""},
		{"came back, told that nothing is missing, and it is", []Event{j, a, cameBack(1, true), c, live, d}, all, "misled missing"},
		{"came back, told that nothing is missing, and of a gap", []Event{j, a, cameBack(1, true), gapAfter(1), c, live, d}, without2, "misled"},
		{"came back, told that something is missing, and of no gap", []Event{j, a, cameBack(1, false), b, live, c, d}, all, "misled"},
		{"came back, told that something is missing, and of which gap", []Event{j, a, cameBack(1, false), gapAfter(1), c, live, d}, without2, ""},
		{"came, and was live before it heard what was acknowledged before", []Event{asked(j, 3), a, live, b, c, d}, all, "late"},
		{"came back, and was live before it heard what was acknowledged before", []Event{j, a, live, asked(cameBack(1, true), 4), b, live, c, d}, all, "late"},
		{"came back twice, and was live too early the first time only", []Event{j, a, asked(cameBack(1, true), 4), live, b, asked(cameBack(2, true), 9), c, d, live}, all, "late"},
		{"came, and was live before it heard what was acknowledged since", []Event{asked(j, 2), a, live, b, c, d}, all, ""},
	} {
		there := map[string]bool{"u0": true, "u1": true}
		list := List{Users: there}
		r := &Room{Name: "room", Acked: acked, Open: map[Words]bool{said(3, 0): true}, Kept: tt.kept, Members: []Member{
			{Name: "0", User: "u0", List: list, Told: []Event{j, a, b, c, d}},
			{Name: "1", User: "u1", List: list, Told: tt.told},
			gone(Member{Name: "2", User: "u2", Told: []Event{j, a}}),
		}}
		// Whoever hears what was lost later is not told of it: the first member is there to make the log complete only.
		r.Members[0].Told = append(r.Members[0].Told, Event{Kind: Live})
		check(t, tt.what, r, tt.want)
	}
}

// Lists at the end are compared with who is there, those of clients and those of nodes.
func TestGhostsAndWhoIsMissingAreFound(t *testing.T) {
	users := func(names ...string) map[string]bool {
		m := make(map[string]bool)
		for _, n := range names {
			m[n] = true
		}
		return m
	}
	for _, tt := range []struct {
		what           string
		client, answer map[string]bool
		want           string
	}{
		{"the truth", users("u0", "u1"), users("u0", "u1"), ""},
		{"a client has one who left", users("u0", "u1", "u2"), users("u0", "u1"), "ghost"},
		{"a node has one who left", users("u0", "u1"), users("u0", "u1", "u2"), "ghost"},
		{"a client lacks one", users("u0"), users("u0", "u1"), "unlisted"},
		{"a node lacks one", users("u0", "u1"), users("u1"), "unlisted"},
		{"both, and another way", users("u2"), users("u0", "u1"), "ghost unlisted unlisted"},
	} {
		check(t, tt.what, &Room{
			Name: "room",
			Members: []Member{
				{Name: "0", User: "u0", List: List{Users: users("u0", "u1")}},
				{Name: "1", User: "u1", List: List{Users: tt.client}},
				{Name: "2", User: "u2", Gone: true, List: List{Users: users("u9")}},
			},
			Lists: []List{{Of: "node0", Users: users("u0", "u1")}, {Of: "node1", Users: tt.answer}},
		}, tt.want)
	}
}

func TestTwoMessagesWithOneIDAreFound(t *testing.T) {
	check(t, "one id", &Room{Acked: map[Words]Ack{said(0, 0): {ID: at(1)}, said(1, 0): {ID: at(1)}}, Kept: ids(1)}, "strange")
}

func check(t *testing.T, what string, r *Room, want string) {
	t.Helper()
	var v Verdict
	v.Judge(r)
	var got []string
	for kind, count := range map[string]int{
		"missing": v.Missing, "twice": v.Twice, "disordered": v.Disordered, "strange": v.Strange,
		"false gap": v.FalseGaps, "misled": v.Misled, "late": v.Late, "ghost": v.Ghosts, "unlisted": v.Unlisted,
	} {
		for range count {
			got = append(got, kind)
		}
	}
	slices.Sort(got)
	if got := strings.Join(got, " "); got != want {
		t.Errorf("%s: found %q, want %q: %s", what, got, want, strings.Join(v.Notes, "; "))
	}
	if (v.Wrong() == 0) != (want == "") {
		t.Errorf("%s: %d things are wrong", what, v.Wrong())
	}
}
