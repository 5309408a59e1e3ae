package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// serverFrame is a frame as a server sends it.
func serverFrame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = append(b, 126, byte(n>>8), byte(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

type message struct {
	op   byte
	text string
}

// feed gives a framer b in pieces, cut where cuts says, and returns what it made of it.
func feed(b, cuts []byte) (all []message, err error) {
	var f framer
	var rest []byte
	for len(b) > 0 || rest != nil {
		n := len(b)
		if len(cuts) > 0 {
			n = min(n, int(cuts[0]))
			cuts = cuts[1:]
		}
		rest = append(rest, b[:n]...)
		b = b[n:]
		for {
			op, msg, n, err := f.next(rest)
			if err != nil {
				return all, err
			}
			if n == 0 {
				break
			}
			rest = rest[n:]
			if op != 0 {
				all = append(all, message{op, string(msg)})
			}
		}
		if len(b) == 0 {
			break
		}
	}
	return all, nil
}

func TestFramesOfEverySizeAndKindAreRead(t *testing.T) {
	var wire []byte
	var want []message
	for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536, maxMessage} {
		text := bytes.Repeat([]byte("x"), size)
		wire = append(wire, serverFrame(0x80|opText, text)...)
		want = append(want, message{opText, string(text)})
	}
	wire = append(wire, serverFrame(opText, []byte("in "))...)
	wire = append(wire, serverFrame(0x80|opPing, []byte("between"))...)
	wire = append(wire, serverFrame(opContinuation, []byte("three "))...)
	wire = append(wire, serverFrame(0x80|opContinuation, []byte("parts"))...)
	wire = append(wire, serverFrame(0x80|opClose, []byte{3, 232})...)
	want = append(want, message{opPing, "between"}, message{opText, "in three parts"}, message{opClose, "\x03\xe8"})

	for name, cuts := range map[string][]byte{"at once": nil, "by the byte": bytes.Repeat([]byte{1}, len(wire))} {
		got, err := feed(wire, cuts)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d messages, not %d", name, len(got), len(want))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: message %d is %x %.20q, not %x %.20q", name, i, got[i].op, got[i].text, want[i].op, want[i].text)
			}
		}
	}
}

func TestBreachesOfTheProtocolAreNoticed(t *testing.T) {
	for name, wire := range map[string][]byte{
		"masked":               {0x81, 0x80, 1, 2, 3, 4},
		"reserved bit":         {0xC1, 0},
		"opcode 3":             {0x83, 0},
		"opcode 11":            {0x8B, 0},
		"fragmented ping":      {0x09, 0},
		"long ping":            serverFrame(0x80|opPing, make([]byte, 126)),
		"lone continuation":    {0x80, 0},
		"message in another":   {0x01, 0, 0x81, 0},
		"16 bits for 125":      {0x81, 126, 0, 125},
		"64 bits for 65535":    {0x81, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF},
		"too long":             {0x81, 127, 0, 0, 0, 0, 0, 2, 0, 1},
		"length below zero":    {0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"too long in parts":    append(serverFrame(opText, make([]byte, maxMessage)), 0x80, 1),
		"reserved, unfinished": {0xC1, 126, 1, 0},
	} {
		if _, err := feed(wire, nil); !errors.As(err, new(frameError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClientFramesAreMasked(t *testing.T) {
	for _, size := range []int{0, 5, 125, 126, 40_000} {
		payload := bytes.Repeat([]byte("abcde"), size/5+1)[:size]
		frame := appendFrame([]byte("before"), opText, payload)[len("before"):]
		if frame[1]&0x80 == 0 {
			t.Fatal("the frame is not masked")
		}
		head := 2
		if size > 125 {
			head = 4
			if got := int(binary.BigEndian.Uint16(frame[2:])); got != size {
				t.Fatalf("the length is %d, not %d", got, size)
			}
		}
		key, body := frame[head:head+4], frame[head+4:]
		for i := range body {
			body[i] ^= key[i%4]
		}
		if !bytes.Equal(body, payload) {
			t.Fatalf("%d bytes do not come back", size)
		}
	}
}

// FuzzFrames feeds any bytes, cut anywhere: what comes out must not depend on the cuts, and no message is over the limit.
func FuzzFrames(f *testing.F) {
	f.Add(serverFrame(0x80|opText, []byte("hello")), []byte{1, 2})
	f.Add(append(serverFrame(opText, []byte("a")), serverFrame(0x80|opContinuation, make([]byte, 300))...), []byte{3, 1, 200})
	f.Add(serverFrame(0x80|opPing, nil), []byte{1})
	f.Add(serverFrame(0x80|opText, make([]byte, 70_000)), []byte{255, 1, 1, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, wire, cuts []byte) {
		whole, err1 := feed(wire, nil)
		cut, err2 := feed(wire, cuts)
		if (err1 == nil) != (err2 == nil) {
			t.Fatalf("at once: %v; in pieces: %v", err1, err2)
		}
		if len(whole) != len(cut) {
			t.Fatalf("%d messages at once, %d in pieces", len(whole), len(cut))
		}
		for i := range whole {
			if whole[i] != cut[i] {
				t.Fatalf("message %d: %v at once, %v in pieces", i, whole[i], cut[i])
			}
			if len(whole[i].text) > maxMessage {
				t.Fatalf("a message of %d bytes", len(whole[i].text))
			}
		}
	})
}
