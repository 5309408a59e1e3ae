package load

import (
	"encoding/binary"
	"math"
	"testing"
)

func TestStampsComeBack(t *testing.T) {
	for _, c := range []struct {
		sender, seq uint64
		due         int64
		size        int
	}{{0, 0, 0, MinSize}, {1<<32 - 1, 1<<32 - 1, math.MaxInt64, 120}, {49_999, 3<<24 + 7, 123_456_789_012, 4096}} {
		text := appendText([]byte(`{"text":"`), c.sender, c.seq, c.due, c.size)
		if got := len(text) - len(`{"text":"`); got != c.size {
			t.Errorf("%d bytes, not %d", got, c.size)
		}
		if text[len(text)-1] != stampEnd {
			t.Error("the end is not marked")
		}
		for _, hint := range []int{0, 9, 10, 5000} {
			if at := findStamp(text, hint); at != 9 {
				t.Errorf("with hint %d it is found at %d", hint, at)
			}
		}
		sender, seq, ok := keyOf(text[9:]).numbers()
		if !ok || uint64(sender) != c.sender || uint64(seq) != c.seq {
			t.Errorf("%d, %d, %t", sender, seq, ok)
		}
		if due, ok := dueOf(text[9:]); !ok || due != c.due {
			t.Errorf("due %d, %t", due, ok)
		}
	}
}

func TestWhatIsNoStampIsNotFound(t *testing.T) {
	whole := appendText(nil, 1, 2, 3, 60)
	for _, s := range []string{"", "parley", "parley~~", `{"op":"ok","req":1}`, string(whole[:stampLen-1])} {
		if at := findStamp([]byte(s), 0); at != -1 {
			t.Errorf("%q: found at %d", s, at)
		}
	}
	for _, digits := range []string{"0000000g", "0000000A", "-0000001", "        "} {
		if _, ok := parseHex(binary.LittleEndian.Uint64([]byte(digits))); ok {
			t.Errorf("%q is taken for a number", digits)
		}
	}
}
