package wire

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/bus/id"
)

func parse(t *testing.T, frame string) Request {
	t.Helper()
	r, err := Parse([]byte(frame), 4096)
	if err != nil {
		t.Fatalf("Parse(%s): %v", frame, err)
	}
	return r
}

func TestEveryFieldOfARequestIsRead(t *testing.T) {
	r := parse(t, ` { "op" : "send", "req":"a\"b", "room":"r\u00e9union 👋", "text":"a\n\ud83d\udc4b\\\/", "key":"k", "data": [1, {"a b": "c  d"}] } `)
	if r.Op != "send" || string(r.Req) != `"a\"b"` || r.Room != "réunion 👋" || r.Text != "a\n👋\\/" || r.Key != "k" ||
		string(r.Data) != `[1,{"a b":"c  d"}]` {
		t.Errorf("got %+v", r)
	}
	r = parse(t, `{"limit":0,"since":"10-2","room":"a","op":"join"}`)
	if r.Room != "a" || *r.Since != (id.ID{Ms: 10, Seq: 2}) || *r.Limit != 0 || r.Req != nil {
		t.Errorf("got %+v", r)
	}
	r = parse(t, `{"op":"history","room":"a","before":"0-0","limit":200,"req":-1.5e3}`)
	if !r.Before.IsZero() || *r.Limit != 200 || string(r.Req) != "-1.5e3" {
		t.Errorf("got %+v", r)
	}
	r = parse(t, `{"op":"hello","token":"t","session":"s","name":"Ada"}`)
	if r.Token != "t" || r.Session != "s" || r.Name != "Ada" {
		t.Errorf("got %+v", r)
	}
	r = parse(t, `{"op":"hello","name":"Ada","named":1763812800000}`)
	if r.Named != 1763812800000 {
		t.Errorf("got %+v", r)
	}
	r = parse(t, `{"op":"signal","room":"a","kind":"typing","data":false}`)
	if r.Kind != "typing" || string(r.Data) != "false" {
		t.Errorf("got %+v", r)
	}
}

// What a string holds is no space between tokens, whatever is escaped in it.
func TestDataAndInfoLoseNothingButTheSpaceBetweenTokens(t *testing.T) {
	for _, data := range []string{
		`"a  b"`, `"a \" b  c"`, `[ "\\" , "d  e" ]`, ` [ "\\\" f  g" , "\u0022 h  i" ] `,
		"{ \"j \\\" k\" :\t\" \" ,\r\n \"\" : { } }", `" \/ \b \f \n \r \t "`,
		"[1,\n2]", "[1,\t2]", "[1,\r2]",
	} {
		var want bytes.Buffer
		if err := json.Compact(&want, []byte(data)); err != nil {
			t.Fatal(err)
		}
		if r := parse(t, `{"op":"send","room":"a","data":`+data+`}`); string(r.Data) != want.String() {
			t.Errorf("%s became %s", data, r.Data)
		}
		if info, err := ParseInfo(json.RawMessage(`{"a":` + data + `}`)); err != nil || string(info) != `{"a":`+want.String()+`}` {
			t.Errorf("%s became %s, %v", data, info, err)
		}
	}
}

func TestWhatAnOpDoesNotHaveIsIgnored(t *testing.T) {
	r := parse(t, `{"op":"ping","room":5,"since":"x","limit":-1,"colour":{"deep":[[]]},"OP":"send"}`)
	if r.Op != "ping" || r.Room != "" || r.Since != nil || r.Limit != nil {
		t.Errorf("got %+v", r)
	}
}

func TestNullIsAbsentAndTheLastOfTwoCounts(t *testing.T) {
	r := parse(t, `{"op":"send","room":"a","room":"b","text":"x","text":"y","data":null,"key":"k","key":null,"req":null}`)
	if r.Room != "b" || r.Text != "y" || r.Data != nil || r.Key != "" || r.Req != nil {
		t.Errorf("got %+v", r)
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	deep := strings.Repeat("[", 33) + strings.Repeat("]", 33)
	for _, c := range []struct {
		frame string
		code  Code
		says  string // part of the message
		req   string
	}{
		{``, BadRequest, `one JSON object`, ``},
		{`hello`, BadRequest, `one JSON object`, ``},
		{`[]`, BadRequest, `one JSON object`, ``},
		{`{}`, BadRequest, `"op" is missing`, ``},
		{`{"req":1}`, BadRequest, `hello, join, leave`, `1`},
		{`{"op":"ping"} {}`, BadRequest, `more after byte 14`, ``},
		{`{"op":"ping"`, BadRequest, `ends too early, after 12 bytes`, ``},
		{`{"op":"ping",}`, BadRequest, `'}' was not expected at byte 13`, ``},
		{`{"op":"ping" "a":1}`, BadRequest, `at byte 13`, ``},
		{`{"req":7,"op":"ping","a":01}`, BadRequest, `'1' was not expected at byte 26`, `7`},
		{`{"op":"ping","a":1.}`, BadRequest, `byte 19`, ``},
		{`{"op":"ping","a":.5}`, BadRequest, `byte 17`, ``},
		{`{"op":"ping","a":-}`, BadRequest, `byte 18`, ``},
		{`{"op":"ping","a":1e}`, BadRequest, `byte 19`, ``},
		{`{"op":"ping","a":nul}`, BadRequest, `byte 17`, ``},
		{`{"op":"ping","a":"\x"}`, BadRequest, `'x'`, ``},
		{`{"op":"ping","a":"\u12g4"}`, BadRequest, `'g'`, ``},
		{"{\"op\":\"ping\",\"a\":\"\n\"}", BadRequest, `'\n'`, ``},
		{"{\"op\":\"ping\",\"a\":\"\xff\"}", BadRequest, `UTF-8`, ``},
		{`{"op":"ping","a":` + deep + `}`, BadRequest, `at most 32`, ``},
		{`{"op":"send","req":2,"room":"a","data":` + deep + `}`, BadRequest, `at most 32`, `2`},
		{`{"op":"ping","req":true}`, BadRequest, `"req" must be a string or a number`, ``},
		{`{"op":"ping","req":{}}`, BadRequest, `"req"`, ``},
		{`{"op":"ping","req":"` + strings.Repeat("x", 127) + `"}`, BadRequest, `at most 128`, ``},
		{`{"op":7,"req":1}`, BadRequest, `"op" must be a string`, `1`},
		{`{"op":"shout","req":"x"}`, Unsupported, `unknown op "shout": known are hello,`, `"x"`},
		{`{"op":"Send"}`, Unsupported, `known are`, ``},
		{`{"op":"join","req":1}`, BadRequest, `join needs "room"`, `1`},
		{`{"op":"send","text":"x"}`, BadRequest, `send needs "room"`, ``},
		{`{"op":"signal","room":"a"}`, BadRequest, `signal needs "kind"`, ``},
		{`{"op":"signal","room":"a","kind":""}`, BadRequest, `kind is empty`, ``},
		{`{"op":"signal","room":"a","kind":"` + strings.Repeat("k", 33) + `"}`, BadRequest, `at most 32`, ``},
		{`{"op":"join","room":5}`, BadRequest, `"room" must be a string`, ``},
		{`{"op":"join","room":""}`, BadRequest, `1 to 128 bytes`, ``},
		{`{"op":"join","room":"` + strings.Repeat("x", 129) + `"}`, BadRequest, `at most 128`, ``},
		{`{"op":"join","room":"a\u0007"}`, BadRequest, `U+0007`, ``},
		{`{"op":"join","room":"a\u2028"}`, BadRequest, `U+2028`, ``},
		{`{"op":"join","room":"a\u2029"}`, BadRequest, `U+2029`, ``},
		{`{"op":"hello","named":-1}`, BadRequest, `milliseconds since 1970`, ``},
		{`{"op":"hello","named":1.5}`, BadRequest, `milliseconds since 1970`, ``},
		{`{"op":"hello","name":"a\u009b"}`, BadRequest, `U+009B`, ``},
		{`{"op":"hello","name":"` + strings.Repeat("é", 33) + `"}`, BadRequest, `name is 66 bytes: at most 64`, ``},
		{`{"op":"hello","token":1}`, BadRequest, `"token" must be a string`, ``},
		{`{"op":"join","room":"a","since":"yesterday"}`, BadRequest, `"since" must be an id`, ``},
		{`{"op":"join","room":"a","since":17}`, BadRequest, `"since" must be a string`, ``},
		{`{"op":"history","room":"a","before":"1-02"}`, BadRequest, `1763812800000-4711`, ``},
		{`{"op":"join","room":"a","limit":201}`, BadRequest, `from 0 to 200`, ``},
		{`{"op":"join","room":"a","limit":-1}`, BadRequest, `from 0 to 200`, ``},
		{`{"op":"join","room":"a","limit":1.0}`, BadRequest, `from 0 to 200`, ``},
		{`{"op":"join","room":"a","limit":"5"}`, BadRequest, `from 0 to 200`, ``},
		{`{"op":"history","room":"a","limit":0}`, BadRequest, `from 1 to 200`, ``},
		{`{"op":"send","room":"a"}`, BadRequest, `"text", "data" or both`, ``},
		{`{"op":"send","room":"a","text":""}`, BadRequest, `"text", "data" or both`, ``},
		{`{"op":"send","room":"a","text":["x"]}`, BadRequest, `"text" must be a string`, ``},
		{`{"op":"send","req":3,"room":"a","text":"` + strings.Repeat("x", 4097) + `"}`, TooLarge, `4097 bytes: at most 4096`, `3`},
		{`{"op":"send","room":"a","text":"x","key":"` + strings.Repeat("x", 65) + `"}`, BadRequest, `at most 64`, ``},
	} {
		r, err := Parse([]byte(c.frame), 4096)
		if err == nil || err.Code != c.code || !strings.Contains(err.Message, c.says) || string(r.Req) != c.req {
			t.Errorf("Parse(%.60q): req %s, %v\n\twant req %s, %s: …%s…", c.frame, r.Req, err, c.req, c.code, c.says)
		}
	}
}

func TestHostileNestingDoesNotGrowTheStack(t *testing.T) {
	for _, unit := range []string{"[", `{"a":`, `[{"a":`} {
		frame := `{"op":"ping","x":` + strings.Repeat(unit, 1<<20)
		if _, err := Parse([]byte(frame), 4096); err == nil {
			t.Errorf("%s… was taken", unit)
		}
	}
}

func TestARequestKeepsNothingOfTheFrame(t *testing.T) {
	frame := []byte(`{"op":"send","req":"abc","room":"lobby","text":"hello","key":"k1","data":[1]}`)
	r, err := Parse(frame, 4096)
	if err != nil {
		t.Fatal(err)
	}
	clear(frame)
	if string(r.Req) != `"abc"` || r.Room != "lobby" || r.Text != "hello" || r.Key != "k1" || string(r.Data) != "[1]" {
		t.Errorf("got %+v after the frame was overwritten", r)
	}
}

func TestFramesAreWrittenLean(t *testing.T) {
	yes, i := true, id.ID{Ms: 5, Seq: 6}
	req := json.RawMessage("1")
	for _, c := range []struct {
		frame interface{ Append(dst []byte) []byte }
		want  string
	}{
		{OK{}, `{"op":"ok"}`},
		{OK{Req: req}, `{"op":"ok","req":1}`},
		{Sent{Req: req, ID: i}, `{"op":"ok","req":1,"id":"5-6"}`},
		{Joined{Room: "a"}, `{"op":"ok","room":"a","last":"0-0","members":[],"count":0,"presence":0}`},
		{
			Joined{Room: "a", Last: i, Recovered: &yes, Members: []Member{{ID: "u"}, {ID: "v", Name: `"`}}, Count: 2, Presence: 9},
			`{"op":"ok","room":"a","last":"5-6","recovered":true,"members":[{"id":"u"},{"id":"v","name":"\""}],"count":2,"presence":9}`,
		},
		{Members{Room: "a", Count: 3, Presence: 1}, `{"op":"ok","room":"a","members":[],"count":3,"presence":1}`},
		{History{Room: "a"}, `{"op":"ok","room":"a","messages":[],"more":false}`},
		{History{Room: "a", Messages: [][]byte{[]byte("{}"), []byte("{}")}, More: true}, `{"op":"ok","room":"a","messages":[{},{}],"more":true}`},
		{Live{"a"}, `{"op":"live","room":"a"}`},
		{Gap{"a", id.ID{Ms: 1}, i}, `{"op":"gap","room":"a","after":"1-0","last":"5-6"}`},
		{Presence{Room: "a", Event: EventLeave, User: &Member{ID: "u", Name: "U"}, Count: 1, Presence: 2}, `{"op":"presence","room":"a","event":"leave","user":{"id":"u","name":"U"},"count":1,"presence":2}`},
		{Presence{Room: "a", Event: EventSync}, `{"op":"presence","room":"a","event":"sync","members":[],"count":0,"presence":0}`},
		{Reject{Err: Errorf(Conflict, "%d", 1)}, `{"op":"error","code":"conflict","message":"1"}`},
		{Reject{Req: req, Err: &Error{RateLimited, "x", 1500 * time.Microsecond}}, `{"op":"error","req":1,"code":"rate_limited","message":"x","retry_after":2}`},
		{Reject{Err: Errorf(Conflict, "\t\n\r\x01\"\\\u2028\u2029\xff")}, `{"op":"error","code":"conflict","message":"\t\n\r\u0001\"\\\u2028\u2029` + "\uFFFD" + `"}`},
		{Bye{Code: StatusRestart, Reason: "r", RetryAfter: time.Second}, `{"op":"bye","code":1012,"reason":"r","retry_after":1000}`},
	} {
		if got := string(c.frame.Append(nil)); got != c.want {
			t.Errorf("%T:\n got %s\nwant %s", c.frame, got, c.want)
		}
	}
}

func TestBodiesAreSplicedIntoFrames(t *testing.T) {
	m := Said{Origin{1 << 63, '{'}, `ro"om`, Member{ID: "u"}, "a\"b\u2028", json.RawMessage(`{"x":[1]}`), "k", 42}
	body := m.Body()
	if o, ok := OriginOf(body); !ok || o != m.Origin {
		t.Errorf("origin %v, want %v", o, m.Origin)
	}
	rest := `"id":"7-8","room":"ro\"om","from":{"id":"u"},"text":"a\"b\u2028","data":{"x":[1]},"key":"k","at":42}`
	if got := string(AppendMessage([]byte("x"), id.ID{Ms: 7, Seq: 8}, body)); got != `x{"op":"message",`+rest {
		t.Errorf("message %s", got)
	}
	if got := string(AppendEntry(nil, id.ID{Ms: 7, Seq: 8}, body)); got != `{`+rest {
		t.Errorf("entry %s", got)
	}
	if got, err := Text(body); string(got) != "a\"b\u2028" || err != nil {
		t.Errorf("text %q, %v", got, err)
	}
	if got, err := Text(Said{Room: "a", From: Member{ID: "u", Name: "text"}, Data: json.RawMessage(`{"text":"x"}`)}.Body()); got != nil || err != nil {
		t.Errorf("text of a message without one: %q, %v", got, err)
	}
	s := Signalled{Origin{3, 4}, "a", "typing", Member{ID: "u", Name: "U"}, json.RawMessage("1")}
	if got, want := string(AppendSignal(nil, s.Body())), `{"op":"signal","room":"a","kind":"typing","user":{"id":"u","name":"U"},"data":1}`; got != want {
		t.Errorf("signal %s, want %s", got, want)
	}
	if o, ok := OriginOf(s.Body()); !ok || o != s.Origin {
		t.Errorf("origin %v, want %v", o, s.Origin)
	}
}

func TestMalformedBodiesAreRefused(t *testing.T) {
	origin := strings.Repeat("\x00", originSize)
	for _, body := range []string{"", "short", origin, origin + "{", origin + "x"} {
		if _, ok := OriginOf([]byte(body)); ok {
			t.Errorf("OriginOf(%q) is ok", body)
		}
		if got := AppendMessage(nil, someID, []byte(body)); got != nil {
			t.Errorf("AppendMessage(%q) = %s", body, got)
		}
		if got := AppendSignal(nil, []byte(body)); got != nil {
			t.Errorf("AppendSignal(%q) = %s", body, got)
		}
		if _, err := Text([]byte(body)); err == nil {
			t.Errorf("Text(%q) is no error", body)
		}
	}
	for _, body := range []string{`"text":7`, `"text"`, `"text":"x`, `"a":1;"text":"x"`, `"a":1,`, "\"text\":\"\xff\""} {
		if got, err := Text([]byte(origin + body)); err == nil {
			t.Errorf("Text(%q) = %q", body, got)
		}
	}
}

func TestSumTellsContentsApartAndIsTheSameEverywhere(t *testing.T) {
	sums := map[uint64]string{}
	for _, c := range []struct{ text, data string }{
		{"", ""}, {"a", ""}, {"", "a"}, {"ab", ""}, {"a", "b"}, {"", "ab"}, {"b", "a"}, {strings.Repeat("a", 256), ""}, {strings.Repeat("a", 255), "a"},
	} {
		sum := Sum(c.text, json.RawMessage(c.data))
		if other, ok := sums[sum]; ok {
			t.Errorf("%q has the sum of %q", c, other)
		}
		sums[sum] = c.text + "|" + c.data
	}
	// Nodes of all versions must agree on this one, or a repeat would look like a conflict during an upgrade.
	if got, want := Sum("hello", json.RawMessage(`{"a":1}`)), uint64(0x72a7b47192aef5c6); got != want {
		t.Errorf("Sum is %#x, was %#x", got, want)
	}
}

func TestHeadersAreThoseOfRFC6455(t *testing.T) {
	for _, c := range []struct {
		opcode byte
		n      int
		want   []byte
	}{
		{OpText, 0, []byte{0x81, 0}},
		{OpText, 125, []byte{0x81, 125}},
		{OpText, 126, []byte{0x81, 126, 0, 126}},
		{OpText, 65535, []byte{0x81, 126, 0xFF, 0xFF}},
		{OpText, 65536, []byte{0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
		{OpClose, 2, []byte{0x88, 2}},
		{OpPing, 0, []byte{0x89, 0}},
		{OpPong, 4, []byte{0x8A, 4}},
	} {
		if got := AppendHeader([]byte{7}, c.opcode, c.n); !slices.Equal(got, append([]byte{7}, c.want...)) {
			t.Errorf("AppendHeader(%d, %d) = % x, want 07 % x", c.opcode, c.n, got, c.want)
		}
	}
}

func TestUnknownFramesAreNoErrorsAndMalformedOnesAre(t *testing.T) {
	f, err := ParseFrame([]byte(` {"op":"news","code":[1],"x":{"y":[]},"text":null} `))
	if err != nil || f.Op != "news" {
		t.Errorf("got %+v, %v", f, err)
	}
	for _, frame := range []string{
		``, `[]`, `{}`, `{"op":1}`, `{"op":"ok"`, `{"op":"ok"}{}`, `{"op":"message","id":"x"}`, `{"op":"message","id":1}`, `{"op":"message","from":1}`,
		`{"op":"message","from":{"id":2}}`, `{"op":"message","at":"x"}`, `{"op":"error","code":5}`, `{"op":"bye","code":"x"}`, `{"op":"bye","retry_after":-1}`,
	} {
		if f, err := ParseFrame([]byte(frame)); err == nil {
			t.Errorf("ParseFrame(%s) = %+v", frame, f)
		}
	}
}

func TestTheHotPathAllocatesNothing(t *testing.T) {
	body, signal := said.Body(), Signalled{Room: "a", Kind: "typing", User: Member{ID: "u", Name: "U"}}.Body()
	buf := make([]byte, 0, 4096)
	for name, f := range map[string]func(){
		"AppendMessage": func() { AppendMessage(buf, someID, body) },
		"AppendEntry":   func() { AppendEntry(buf, someID, body) },
		"AppendSignal":  func() { AppendSignal(buf, signal) },
		"AppendHeader":  func() { AppendHeader(buf, OpText, 300) },
		"Text":          func() { Text(body) },
		"OriginOf":      func() { OriginOf(body) },
		"Sum":           func() { Sum(text120, nil) },
		"Sent":          func() { Sent{Req: json.RawMessage("17"), ID: someID}.Append(buf) },
		"AppendString":  func() { AppendString(buf, []byte("é\u2028\xff\n")) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { Parse(sendLine, 4096) }); n > 4 {
		t.Errorf("Parse of a send allocates %v times, was 4: req, room, text, key", n)
	}
	if n := testing.AllocsPerRun(100, func() { said.Body() }); n > 1 {
		t.Errorf("Body allocates %v times", n)
	}
}
