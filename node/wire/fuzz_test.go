package wire

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse: what parses is written again as what parses to the same, and is JSON to encoding/json too.
func FuzzParse(f *testing.F) {
	for _, e := range examples(f, "client") {
		f.Add([]byte(e))
	}
	f.Add([]byte(`{"op":"send","room":"\ud800\udc00\ud800","data":[1.5e-7,"\\\"",{" a ":null}]}`))
	f.Add([]byte("{\"op\":\"p\x00\xff"))
	f.Add([]byte(`{"op":"hello","name":"Ada","named":5}`))
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, err := Parse(frame, 4096)
		if err != nil {
			return
		}
		if !json.Valid(frame) {
			t.Fatalf("taken, but not JSON: %s", frame)
		}
		again := r.Append(nil)
		r2, err := Parse(again, 4096)
		if err != nil || !reflect.DeepEqual(r, r2) {
			t.Fatalf("%s\nis written %s\nwhich is %+v, %v\nnot %+v", frame, again, r2, err, r)
		}
	})
}

// FuzzScanner: what the scanner takes and encoding/json takes is the same, but for depth, and strings decode alike.
func FuzzScanner(f *testing.F) {
	f.Add([]byte(`[{"a":[1,-0.5e+3,true,false,null,"\u00e9\ud83d\udc4b\ud83dx\n"]}]`))
	for _, text := range []string{
		``, ` `, `01`, `1E5`, `1E`, `-`, `tru`, `[`, `[1`, `[1 2]`, `[1,`, `[1,]`, `{"a":1 "b":2}`, `{"a"}`, `"`, `"\`, `"\u12`, "\"\x1f\"",
		`"\b\f\n\r\t\"\\\/ \u09aF\uAf90\uFFFF"`, `"\u/000"`, `"\u:000"`, `"\u@000"`, `"\uG000"`, `"\ug000"`, "\"\\u`000\"",
		`"\ud83d\n12345"`, `"\ud83dxu12345"`, `"\ud83d\ndc4b"`, `"\ud83dxudc4b"`, `"\ud83d\ud83d\udc4b"`, `"\udc4b\ud83d"`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if !utf8.Valid(b) {
			return
		}
		s := scanner{b: b}
		s.space()
		start := s.i
		err := s.value(MaxDepth)
		end := s.i
		s.space()
		ok := err == nil && s.i == len(b)
		if valid := json.Valid(b); ok != valid && (err == nil || !strings.Contains(err.Message, "nested")) {
			t.Fatalf("%q is valid: %v to us, %v to encoding/json (%v)", b, ok, valid, err)
		}
		if !ok {
			return
		}
		var want any
		if err := json.Unmarshal(b, &want); err != nil {
			return // a number out of range
		}
		if text, isString := want.(string); isString {
			if got := string(unquote(b[start:end])); got != text {
				t.Fatalf("%s is %q, want %q", b, got, text)
			}
		}
		var got any
		if err := json.Unmarshal(compact(b[start:end]), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s is compacted to %s", b, compact(b[start:end]))
		}
	})
}

// FuzzBody: no body makes a panic, and one whose text can be read makes a frame if it is JSON at all.
func FuzzBody(f *testing.F) {
	f.Add(said.Body())
	f.Add(Signalled{Room: "a", Kind: "b"}.Body())
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\"text\":\"\\"))
	f.Fuzz(func(t *testing.T, body []byte) {
		_, ok := OriginOf(body)
		text, err := Text(body)
		if err == nil && (!ok || !utf8.Valid(text)) {
			t.Fatalf("the text of %q is %q", body, text)
		}
		AppendSignal(nil, body)
		message := AppendMessage(nil, someID, body)
		if ok != (len(message) > 0) {
			t.Fatalf("%q, a body: %v, gives %q", body, ok, message)
		}
		if frame, err := ParseFrame(message); err == nil && utf8.Valid(body) && json.Valid(message) {
			if text, err := Text(body); err == nil && text != nil && frame.Op == "message" && !strings.Contains(string(body), "\\") &&
				strings.Count(string(body), "text") == 1 && frame.Text != string(text) {
				t.Fatalf("%q: text %q, in the frame %q", body, text, frame.Text)
			}
		}
	})
}

// FuzzSaid: what is said arrives.
func FuzzSaid(f *testing.F) {
	f.Add("lobby", "u", "Ada", "hello \"\u2028\n", `{"a":[]}`, "k", int64(5))
	f.Fuzz(func(t *testing.T, room, user, name, text, data, key string, at int64) {
		for _, s := range []string{room, user, name, text, data, key} {
			if !utf8.ValidString(s) {
				return
			}
		}
		m := Said{Room: room, From: Member{ID: user, Name: name}, Text: text, Key: key, At: at}
		s := scanner{b: []byte(data)}
		if s.value(MaxDepth) == nil && s.i == len(data) && data != "null" {
			m.Data = json.RawMessage(data)
		}
		body := m.Body()
		got, err := ParseFrame(AppendMessage(nil, someID, body))
		want := Frame{Op: "message", Room: room, Entry: Entry{ID: someID, From: m.From, Text: text, Data: m.Data, Key: key, At: at}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
		}
		if plain, err := Text(body); err != nil || string(plain) != text {
			t.Fatalf("plain text %q, %v, want %q", plain, err, text)
		}
	})
}

// FuzzFrame: a frame that a client can read is written by the server's types as what reads the same.
func FuzzFrame(f *testing.F) {
	for _, e := range examples(f, "server") {
		f.Add([]byte(e))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ParseFrame(b)
		if err != nil || !utf8.Valid(b) {
			return
		}
		first := rewrite(frame)
		if first == nil {
			return
		}
		again, err := ParseFrame(first)
		if err != nil {
			t.Fatalf("%s\nis written %s: %v", b, first, err)
		}
		if second := rewrite(again); string(second) != string(first) {
			t.Fatalf("%s\nis written %s\nand then %s", b, first, second)
		}
	})
}

// rewrite writes a frame with the server's types; nil for one that no server writes.
func rewrite(f Frame) []byte {
	switch f.Op {
	case "welcome":
		w := Welcome{f.Req, f.User, f.Named, f.Session, f.Stream, f.Expires, f.Node, f.Version, f.Ping, f.Limits}
		return w.Append(nil)
	case "ok":
		switch {
		case f.Messages != nil:
			h := History{Req: f.Req, Room: f.Room, More: f.More}
			for _, e := range f.Messages {
				h.Messages = append(h.Messages, AppendEntry(nil, e.ID, bodyOf(f.Room, e)))
			}
			return h.Append(nil)
		case f.Members != nil && !f.Last.IsZero():
			return Joined{f.Req, f.Room, f.Last, f.Recovered, f.Members, f.Count, f.Presence}.Append(nil)
		case f.Members != nil:
			return Members{f.Req, f.Room, f.Members, f.Count, f.Presence}.Append(nil)
		case !f.ID.IsZero():
			return Sent{f.Req, f.ID}.Append(nil)
		}
		return OK{f.Req}.Append(nil)
	case "message":
		return AppendMessage(nil, f.ID, bodyOf(f.Room, f.Entry))
	case "live":
		return Live{f.Room}.Append(nil)
	case "gap":
		return Gap{f.Room, f.After, f.Last}.Append(nil)
	case "presence":
		p := Presence{Room: f.Room, Event: f.Event, Members: f.Members, Count: f.Count, Presence: f.Presence}
		if f.User.ID != "" {
			p.User = &Member{f.User.ID, f.User.Name, f.User.Info}
		}
		return p.Append(nil)
	case "signal":
		return AppendSignal(nil, Signalled{Room: f.Room, Kind: f.Kind, User: Member{f.User.ID, f.User.Name, f.User.Info}, Data: f.Data}.Body())
	case "left":
		return Left{f.Room, f.Err()}.Append(nil)
	case "error":
		return Reject{f.Req, f.Err()}.Append(nil)
	case "bye":
		return Bye{f.Close, f.Reason, f.RetryAfter}.Append(nil)
	}
	return nil
}

func bodyOf(room string, e Entry) []byte {
	return Said{Room: room, From: e.From, Text: e.Text, Data: e.Data, Key: e.Key, At: e.At}.Body()
}

// FuzzString: the encoder and encoding/json mean the same by a string, and neither lets a line end through.
func FuzzString(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\x1f\x7f\"\\/<>&\u2028\u2029é👋\xff\xe2\x80\ufffd")
	f.Fuzz(func(t *testing.T, s string) {
		got := AppendString([]byte("x"), s)
		if string(got) != string(AppendString([]byte("x"), []byte(s))) {
			t.Fatalf("%q is written differently from bytes", s)
		}
		var back, want string
		theirs, _ := json.Marshal(s)
		if err := json.Unmarshal(theirs, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got[1:], &back); err != nil || back != want {
			t.Fatalf("%q is written %s: %q, %v, want %q", s, got[1:], back, err, want)
		}
		if strings.ContainsAny(string(got), "\n\r\u2028\u2029") || !utf8.Valid(got) {
			t.Fatalf("%q is written %q", s, got)
		}
	})
}
