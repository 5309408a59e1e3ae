package wire

import (
	"fmt"
	"strings"
	"testing"
)

func TestEachLimitIsAllowedAndOneMoreIsNot(t *testing.T) {
	const maxText = 100
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	number := func(n int) string { return fmt.Sprint(n) }
	for name, c := range map[string]struct {
		frame string // with the value in it
		value func(n int) string
		most  int
		code  Code
	}{
		"text":            {`{"op":"send","room":"a","text":"%s"}`, long, maxText, TooLarge},
		"room":            {`{"op":"join","room":"%s"}`, long, MaxRoom, BadRequest},
		"key":             {`{"op":"send","room":"a","text":"x","key":"%s"}`, long, MaxKey, BadRequest},
		"name":            {`{"op":"hello","name":"%s"}`, long, MaxName, BadRequest},
		"kind":            {`{"op":"signal","room":"a","kind":"%s"}`, long, MaxKind, BadRequest},
		"req, a string":   {`{"op":"ping","req":"%s"}`, func(n int) string { return strings.Repeat("x", n) }, MaxReq - 2, BadRequest}, // as written, with its quotes
		"req, a number":   {`{"op":"ping","req":%s}`, func(n int) string { return strings.Repeat("1", n) }, MaxReq, BadRequest},
		"data":            {`{"op":"send","room":"a","data":%s}`, nested, MaxDepth, BadRequest},
		"a field unknown": {`{"op":"ping","colour":%s}`, nested, MaxDepth, BadRequest},
		"limit, join":     {`{"op":"join","room":"a","limit":%s}`, number, MaxPage, BadRequest},
		"limit, history":  {`{"op":"history","room":"a","limit":%s}`, number, MaxPage, BadRequest},
	} {
		for _, n := range []int{1, c.most - 1, c.most, c.most + 1, 2 * c.most} {
			frame := fmt.Sprintf(c.frame, c.value(n))
			_, err := Parse([]byte(frame), maxText)
			if ok := n <= c.most; ok != (err == nil) || err != nil && err.Code != c.code {
				t.Errorf("%s of %d: %v", name, n, err)
			}
		}
	}
	for _, ms := range []string{"0", "1", "18446744073709551615", "18446744073709551616"} {
		_, err := Parse([]byte(`{"op":"join","room":"a","since":"`+ms+`-`+ms+`"}`), maxText)
		if ok := ms != "18446744073709551616"; ok != (err == nil) {
			t.Errorf("the id %s-%s: %v", ms, ms, err)
		}
	}
}

// long is a string of n bytes. Lengths count as decoded, not as escaped, and in bytes, not in letters.
func long(n int) string {
	if n < 3 {
		return strings.Repeat("x", n)
	}
	return `\u00e9` + strings.Repeat("x", n-2)
}

// What is shown in one line neither ends it, nor turns what stands beside it.
func TestWhatCouldHarmATerminalIsReplaced(t *testing.T) {
	for s, want := range map[string]string{
		"Ada 👋 \u202f\u2065\u206a\u2027": "Ada 👋 \u202f\u2065\u206a\u2027",
		"\x1b[2J\n\u009b":                "\uFFFD[2J\uFFFD\uFFFD",
		"\u2028\u2029":                   "\uFFFD\uFFFD",
		"\u202a\u202c\u202e":             "\uFFFD\uFFFD\uFFFD",
		"\u2066\u2067\u2069":             "\uFFFD\uFFFD\uFFFD",
	} {
		if got := Harmless(s); got != want {
			t.Errorf("%q became %q, want %q", s, got, want)
		}
	}
}
