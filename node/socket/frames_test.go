package socket

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// frame is a client's frame, with a mask of zeros.
func frame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

func TestTheEndOfAMessageIsFound(t *testing.T) {
	text := frame(0x81, "hello")
	long := frame(0x81, strings.Repeat("x", 300))
	largest := frame(0x82, strings.Repeat("x", 64<<10))
	fragments := slices.Concat(frame(0x01, "a"), frame(0x89, "ping"), frame(0x00, "b"), frame(0x80, "c"))
	for _, tc := range []struct {
		name string
		b    []byte
		n    int
		v    verdict
	}{
		{"text", text, len(text), whole},
		{"text and more", slices.Concat(text, text), len(text), whole},
		{"a longer one", long, len(long), whole},
		{"the largest", largest, len(largest), whole},
		{"too large", frame(0x82, strings.Repeat("x", 64<<10+1))[:14], 0, tooBig},
		{"fragments with a ping among them", fragments, len(fragments), whole},
		{"too large in fragments", slices.Concat(frame(0x01, strings.Repeat("x", 40<<10)), frame(0x80, strings.Repeat("x", 40<<10))), 0, tooBig},
		{"a crowd of empty fragments", slices.Concat(frame(0x01, ""), slices.Repeat(frame(0x00, ""), 30_000)), 0, tooBig},
		{"ping", frame(0x89, "x"), 7, ping},
		{"pong", frame(0x8a, "x"), 7, pong},
		{"close", frame(0x88, "\x03\xe8"), 8, whole},
		{"a reserved bit", frame(0xc1, "x"), 6, whole},
		{"no mask", []byte{0x81, 1, 'x'}, 2, whole},
		{"an unknown opcode", frame(0x83, "x"), 6, whole},
		{"an unknown control opcode", frame(0x8b, "x"), 6, whole},
		{"a fragmented ping", frame(0x09, "x"), 6, whole},
		{"a long ping", frame(0x89, strings.Repeat("x", 126)), 8, whole},
		{"a continuation of nothing", frame(0x80, "x"), 6, whole},
		{"a message within another", slices.Concat(frame(0x01, "a"), frame(0x81, "b")), 7 + 6, whole},
	} {
		if n, v := wholeMessage(tc.b); n != tc.n || v != tc.v {
			t.Errorf("%s: got %d, %d, want %d, %d", tc.name, n, v, tc.n, tc.v)
		}
	}
}

// FuzzWholeMessage holds that what comes in pieces is found as what comes whole, and never beyond what is there.
func FuzzWholeMessage(f *testing.F) {
	f.Add(slices.Concat(frame(0x01, "a"), frame(0x89, "ping"), frame(0x80, "c")))
	f.Add(frame(0x81, strings.Repeat("x", 300)))
	f.Add([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, v := wholeMessage(b)
		if n < 0 || n > len(b) || (n == 0) != (v == partial || v == tooBig) {
			t.Fatalf("wholeMessage(%x) = %d, %d", b, n, v)
		}
		for i := range n {
			if m, w := wholeMessage(b[:i]); w != partial {
				t.Fatalf("of %d bytes the first %d are found as %d, %d", n, i, m, w)
			}
		}
		if v == ping {
			appendPong(nil, b[:n])
		}
	})
}
