package socket

import (
	"strings"
	"testing"
)

// A close is a control frame, of at most 125 bytes of payload (RFC 6455 section 5.5), however long its reason is.
func TestACloseFitsIntoAControlFrame(t *testing.T) {
	for n, want := range map[int]int{0: 2, 1: 3, 122: 124, 123: 125, 124: 125, 1000: 125} {
		b := AppendClose(nil, 4000, strings.Repeat("x", n))
		if len(b) != 2+want || int(b[1]) != want || b[2] != 4000>>8 || b[3] != 4000&0xff {
			t.Errorf("with a reason of %d bytes: %d bytes, %.4x", n, len(b), b)
		}
	}
	for reason, want := range map[string]int{
		strings.Repeat("x", 122) + "é": 122, strings.Repeat("x", 121) + "é": 123, strings.Repeat("x", 120) + "👋": 120, strings.Repeat("\x80", 200): 0,
	} {
		if b := AppendClose(nil, 4000, reason); string(b[4:]) != reason[:want] {
			t.Errorf("of %q, which is too long, %q is left", reason, b[4:])
		}
	}
}
