package rights_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"parley/node/rights"
)

// spec reads rights as the document writes them; a room may have no verbs there, and verbs that are not known.
func spec(t *testing.T, text string) *rights.Rights {
	t.Helper()
	rooms := map[string][]string{}
	for part := range strings.SplitSeq(text, ";") {
		at := strings.LastIndexByte(part, ':')
		rooms[part[:at]] = strings.Split(part[at+1:], ",")
	}
	claim, _ := json.Marshal(rooms)
	r, err := rights.Parse(claim)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTheTableOfExamplesHolds(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| rooms | room | may |\n| --- | --- | --- |\n")
	if !ok {
		t.Fatal("README.md has no table of examples")
	}
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "|\n"), "|")
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		if got := spec(t, cells[0]).Of(cells[1]).String(); got != cells[2] {
			t.Errorf("%s allows %q in %s, and the table says %q", cells[0], got, cells[1], cells[2])
		}
		rows++
	}
	if rows < 20 {
		t.Errorf("%d examples were found", rows)
	}
}

func TestWithoutRightsAUserMayDoWhatUsersDo(t *testing.T) {
	var none *rights.Rights
	if v := none.Of("lobby"); !v.Has(rights.User) || v.Has(rights.Kick) || v.Has(rights.Join|rights.Kick) {
		t.Errorf("got %s", v)
	}
}

func TestClaimsThatAreNoneAreRefused(t *testing.T) {
	for _, claim := range []string{"", "null", "[]", `"*"`, `{"a":"join"}`, `{"a":[1]}`, `{"":["join"]}`, `{"a\u0000":["join"]}`, `{"` + strings.Repeat("a", 200) + `":[]}`} {
		if _, err := rights.Parse(json.RawMessage(claim)); err == nil {
			t.Errorf("%s is taken for rights", claim)
		}
	}
	for _, text := range []string{"", ";", "a", ":join", "a:", "a:fly", "a:join,", "a:join;b", "a\x01b:join"} {
		if _, err := rights.ParseText(text); err == nil {
			t.Errorf("%q is taken for rights", text)
		}
	}
	rooms, err := rights.ParseText(" team-*:read, send; n:join; ")
	if err != nil || strings.Join(rooms["team-*"], " ") != "read send" || len(rooms) != 2 {
		t.Errorf("got %v, %v", rooms, err)
	}
}

func TestLookingRightsUpAllocatesNothing(t *testing.T) {
	r := spec(t, "*:read;team-*:join;team-*-x:send;lobby:send;dm-*-ada:join")
	for _, room := range []string{"lobby", "team-a", "anything", "dm-bob-ada"} {
		if n := testing.AllocsPerRun(100, func() { r.Of(room) }); n > 0 {
			t.Errorf("%s takes %v allocations", room, n)
		}
	}
}

func FuzzPatterns(f *testing.F) {
	f.Add("team-*", "team-a")
	f.Add("a*b*c", "abc")
	f.Add("**", "")
	f.Fuzz(func(t *testing.T, pattern, room string) {
		r, err := rights.New(map[string][]string{pattern: {"join"}})
		if err != nil {
			return
		}
		// What the pattern makes of itself, each * replaced, fits.
		for _, run := range []string{"", "x", "*", room} {
			if name := strings.ReplaceAll(pattern, "*", run); !r.Of(name).Has(rights.Join) {
				t.Errorf("%q does not fit %q", name, pattern)
			}
		}
		prefix, _, star := strings.Cut(pattern, "*")
		if r.Of(room) != 0 && (!strings.HasPrefix(room, prefix) || !star && room != pattern) {
			t.Errorf("%q fits %q", room, pattern)
		}
	})
}

func BenchmarkRights(b *testing.B) {
	r, _ := rights.New(map[string][]string{"*": {"read"}, "team-*": {"join"}, "news": {"join", "history"}, "dm-*-ada": {"*"}})
	for _, room := range []string{"news", "team-a", "dm-bob-ada", "anything"} {
		b.Run(room, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Of(room)
			}
		})
	}
}

// The name of a room may have colons: the last one is before the verbs.
func TestARoomMayHaveColonsInItsName(t *testing.T) {
	rooms, err := rights.ParseText("tea:party:join;dm:*:read,send")
	if err != nil {
		t.Fatal(err)
	}
	r, err := rights.New(rooms)
	if err != nil {
		t.Fatal(err)
	}
	for room, want := range map[string]rights.Verbs{"tea:party": rights.Join, "dm:a:b": rights.Read | rights.Send, "tea": 0, "dm": 0} {
		if got := r.Of(room); got != want {
			t.Errorf("in %s one may %q, want %q", room, got, want)
		}
	}
}
