package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestAnInfoIsAnObjectThatHarmsNobody(t *testing.T) {
	nested := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for in, want := range map[string]string{
		``:                                 "",
		`null`:                             "",
		`{}`:                               `{}`,
		" {\n \"a\" : \"b c\\n\" }\n":      `{"a":"b c\n"}`,
		nested(infoDepth):                  nested(infoDepth),
		`{"a":"` + large(MaxInfo-8) + `"}`: `{"a":"` + large(MaxInfo-8) + `"}`,
	} {
		if got, err := ParseInfo(json.RawMessage(in)); err != nil || string(got) != want {
			t.Errorf("%.60s is %.60q, %v", in, got, err)
		}
	}
	for _, in := range []string{
		`[]`, `1`, `"x"`, `{`, `{} {}`, `{"a":}`, "{\"a\":\"\xff\"}", nested(infoDepth + 1), `{"a":"` + large(MaxInfo-7) + `"}`,
	} {
		if got, err := ParseInfo(json.RawMessage(in)); err == nil {
			t.Errorf("%.60s is taken as %.60q", in, got)
		}
	}
}

func large(n int) string { return strings.Repeat("x", n) }

// Whatever is allowed in an info can be read by every client: in plain text, in a message, and in a page of history.
func TestWhatAnInfoMayHoldEveryClientCanRead(t *testing.T) {
	info, err := ParseInfo(json.RawMessage(strings.Repeat(`{"a":`, infoDepth) + `"é"` + strings.Repeat("}", infoDepth)))
	if err != nil {
		t.Fatal(err)
	}
	ada := Member{ID: "ada", Name: "Ada", Info: info}
	body := Said{Room: "r", From: ada, Text: "hi", At: 1}.Body()
	if text, err := Text(body); err != nil || string(text) != "hi" {
		t.Errorf("the text is %q, %v", text, err)
	}
	for _, frame := range [][]byte{
		AppendMessage(nil, someID, body),
		History{Room: "r", Messages: [][]byte{AppendEntry(nil, someID, body)}}.Append(nil),
		Members{Room: "r", Members: []Member{ada}, Count: 1}.Append(nil),
		Presence{Room: "r", Event: EventJoin, User: &ada, Count: 1}.Append(nil),
		Welcome{User: User{ID: "ada", Name: "Ada", Info: info}}.Append(nil),
	} {
		f, err := ParseFrame(frame)
		got := []Info{f.From.Info, f.User.Info}
		for _, e := range f.Messages {
			got = append(got, e.From.Info)
		}
		for _, m := range f.Members {
			got = append(got, m.Info)
		}
		if err != nil || !strings.Contains(strings.Join(stringsOf(got), " "), string(info)) {
			t.Errorf("%s is read as %v, %v", frame, got, err)
		}
		var same map[string]any
		if json.Unmarshal(frame, &same) != nil {
			t.Errorf("it is no JSON: %s", frame)
		}
	}
}

func stringsOf(list []Info) (out []string) {
	for _, i := range list {
		out = append(out, string(i))
	}
	return out
}

func TestAMessageIsEncodedInOnePieceOfMemory(t *testing.T) {
	for _, info := range []Info{"", `{"role":"host"}`} {
		said := Said{Room: "lobby", From: Member{ID: "ada", Name: "Ada", Info: info}, Text: strings.Repeat("x", 120), Key: "k", At: 1763812800000}
		if n := testing.AllocsPerRun(100, func() { said.Body() }); n > 1 {
			t.Errorf("with the info %q it takes %v allocations", info, n)
		}
	}
}
