package resp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestCommandsAreArraysOfStrings(t *testing.T) {
	got := Append(nil, "SET", "a key", "")
	got = AppendInt(AppendArg(AppendCommand(got, 2), []byte("\r\n")), -12)
	want := "*3\r\n$3\r\nSET\r\n$5\r\na key\r\n$0\r\n\r\n" + "*2\r\n$2\r\n\r\n\r\n$3\r\n-12\r\n"
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// said writes a value for people to read.
func said(v Value) string {
	switch v.Kind {
	case Text:
		return fmt.Sprintf("%q", v.Text)
	case Error:
		return fmt.Sprintf("error %q", v.Text)
	case Int:
		return fmt.Sprint(v.Int)
	case Array, Push:
		var parts []string
		for _, e := range v.Elems {
			parts = append(parts, said(e))
		}
		return map[Kind]string{Array: "", Push: "push"}[v.Kind] + "[" + strings.Join(parts, " ") + "]"
	}
	return "null"
}

var answers = []struct{ written, want string }{
	{"+OK\r\n", `"OK"`},
	{"-ERR no such thing\r\n", `error "ERR no such thing"`},
	{"!3\r\nE\r\n\r\n", `error "E\r\n"`},
	{":-7\r\n", "-7"},
	{"$5\r\na\r\nbc\r\n", `"a\r\nbc"`},
	{"$0\r\n\r\n", `""`},
	{"_\r\n", "null"},
	{"$-1\r\n", "null"},
	{"*-1\r\n", "null"},
	{"*0\r\n", "[]"},
	{">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", `push["message" "c" "hi"]`},
	{"*3\r\n:1\r\n*2\r\n:2\r\n:3\r\n*1\r\n*1\r\n:4\r\n", "[1 [2 3] [[4]]]"},
	{"%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n#t\r\n", `["a" 1 "b" ["t"]]`},
	{"|1\r\n+ttl\r\n:9\r\n:1\r\n", "1"},
	{"=7\r\ntxt:abc\r\n", `"txt:abc"`},
	{",1.5\r\n", `"1.5"`},
	{"(3492890328409238509324850943850943825024385\r\n", `"3492890328409238509324850943850943825024385"`},
}

func TestAnswersAreRead(t *testing.T) {
	var p Parser
	for _, a := range answers {
		v, n, err := p.Parse([]byte(a.written + "+what follows\r\n"))
		if err != nil || n != len(a.written) || said(v) != a.want {
			t.Errorf("%q: %s, %d of %d bytes, %v; want %s", a.written, said(v), n, len(a.written), err, a.want)
		}
	}
}

func TestAnAnswerThatHasNotAllComeIsWaitedFor(t *testing.T) {
	var p Parser
	for _, a := range answers {
		for i := range len(a.written) {
			if v, n, err := p.Parse([]byte(a.written[:i])); n != 0 || err != nil {
				t.Errorf("%q of %q: %s, %d, %v", a.written[:i], a.written, said(v), n, err)
			}
		}
	}
}

func TestWhatNoServerSaysIsRefused(t *testing.T) {
	var p Parser
	for _, bad := range []string{
		"\r\n", "\n", "HTTP/1.1 400 Bad Request\r\n", ":\r\n", ":1x\r\n", "$x\r\n", "$-2\r\n", "$3\r\nabcd\r\n", "+ok\n",
		"$99999999999\r\n", "*99999999\r\n", "*1\r\n$x\r\n", "|-1\r\n", "%-2\r\n", strings.Repeat("*1\r\n", 99), strings.Repeat("|0\r\n", 99),
	} {
		if v, n, err := p.Parse([]byte(bad)); !errors.Is(err, ErrSyntax) {
			t.Errorf("%.20q: %s, %d, %v", bad, said(v), n, err)
		}
	}
}

func TestReadingAMessageAllocatesNothing(t *testing.T) {
	var p Parser
	b := []byte(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n")
	if n := testing.AllocsPerRun(100, func() { _, _, _ = p.Parse(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A link parses with one parser for as long as it lives.
func TestAParserKeepsNoMoreThanOneAnswerTakes(t *testing.T) {
	var p Parser
	parse := func() int {
		for _, a := range answers {
			if _, _, err := p.Parse([]byte(a.written)); err != nil {
				t.Fatal(err)
			}
		}
		return cap(p.elems)
	}
	first := parse()
	for range 1000 {
		parse()
	}
	if now := parse(); now > first {
		t.Errorf("space for %d elements is kept, at first for %d", now, first)
	}
}

// FuzzParse holds Parse to this: it is sure of a value only once all of it has come, and then whatever follows.
func FuzzParse(f *testing.F) {
	for _, a := range answers {
		f.Add([]byte(a.written))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, q Parser
		v, n, err := p.Parse(b)
		if err != nil || n == 0 {
			return
		}
		if n > len(b) {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		if w, m, err := q.Parse(bytes.Clone(b[:n])); err != nil || m != n || said(w) != said(v) {
			t.Errorf("%s with more behind it, alone %s, %d, %v", said(v), said(w), m, err)
		}
		if w, m, err := q.Parse(b[:n-1]); err != nil || m != 0 {
			t.Errorf("a byte less: %s, %d, %v", said(w), m, err)
		}
	})
}
