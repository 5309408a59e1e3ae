package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestFramesOfAnySizeAreReadByHand(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 1<<16 - 1, 1 << 16} {
		payload := strings.Repeat("x", n)
		b := append(AppendHeader(nil, OpText, n), payload...)
		op, got, err := ReadRaw(bytes.NewReader(b))
		if err != nil || op != OpText || string(got) != payload {
			t.Errorf("%d bytes: opcode %d, %d bytes, %v", n, op, len(got), err)
		}
		if _, _, err := ReadRaw(bytes.NewReader(b[:len(b)-1])); err == nil {
			t.Errorf("%d bytes, cut off: no error", n)
		}
		masked := AppendMasked([]byte("before"), OpText, payload)
		if want := "before" + string(AppendHeader(nil, OpText, n)[:1]); !strings.HasPrefix(string(masked), want) || masked[len("before")+1]&0x80 == 0 ||
			!strings.HasSuffix(string(masked), "\x00\x00\x00\x00"+payload) || len(masked) != len("before")+len(b)+4 {
			t.Errorf("%d bytes are masked as %.20q", n, masked)
		}
	}
	if _, _, err := ReadRaw(strings.NewReader("\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff")); err == nil {
		t.Error("a frame of more bytes than there are: no error")
	}
}
