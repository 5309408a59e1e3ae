package main

import "testing"

// What a terminal acts on is not written as it is: control characters, breaks of line, and what turns the direction of text.
func TestNothingThatATerminalActsOnIsShown(t *testing.T) {
	for _, r := range []rune{0, '\a', '\b', '\n', '\r', 0x1b, 0x7f, 0x80, 0x9b, 0x9f, 0x2028, 0x2029, 0x202a, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069} {
		if got := clean("a" + string(r) + "b"); got == "a"+string(r)+"b" || len([]rune(got)) != 3 {
			t.Errorf("%U is shown as %+q", r, got)
		}
	}
	for _, s := range []string{"äöü ß", "שלום", "日本語", "👩\u200d🚀", "\u202f", "\u2065\u206a"} {
		if got := clean(s); got != s {
			t.Errorf("%+q is shown as %+q", s, got)
		}
	}
}
