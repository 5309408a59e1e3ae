package socket

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"parley/node/wire"
)

// A frames finds messages and control frames in what a client sends, in whatever pieces it comes (RFC 6455 section 5). Each byte is
// looked at once. Of a message it keeps what has come, up to wire.MaxFrame; control frames between fragments do not wait for the
// end of the message. The zero value is at the beginning of a frame.
type frames struct {
	head   [14]byte // header of the frame at hand, as far as it has come; then the last four are the mask
	got    uint8    // bytes of head that have come
	inBody bool     // all of head has come
	pos    uint8    // the byte of the mask that comes next
	op     byte     // of the message at hand, 0 between messages
	left   int      // bytes of the frame at hand that are still to come
	data   []byte   // what has come of the message at hand
	aside  []byte   // what has come of a control frame
}

// A breach is what a client did against the protocol, and how the connection is closed for it.
type breach struct {
	code   int
	reason string
}

var tooBig = fmt.Sprintf("a message may have %d bytes", wire.MaxFrame)

func breaks(reason string) *breach { return &breach{wire.StatusProtocol, reason} }

// begun reports whether the rest of something is still to come, and must in time.
func (f *frames) begun() bool { return f.got > 0 || f.op != 0 }

// amid reports whether a message is at hand: a control frame is no progress with it.
func (f *frames) amid() bool { return f.op != 0 }

// next reads on up to the end of the next message or control frame. It returns its opcode, or 0 if b ends before; its payload, which
// may be in b, and is good until the next call; and what is behind it. It writes to b.
func (f *frames) next(b []byte) (op byte, payload, rest []byte, bad *breach) {
	if f.op == 0 {
		f.data = nil
	}
	if !f.inBody {
		f.aside = nil
	}
	for len(b) > 0 || f.inBody && f.left == 0 {
		if !f.inBody {
			if b, bad = f.header(b); bad != nil {
				return 0, nil, b, bad
			}
			continue
		}
		part := b[:min(f.left, len(b))]
		b = b[len(part):]
		f.unmask(part)
		if op, payload = f.body(part); op != 0 {
			return op, payload, b, nil
		}
	}
	return 0, nil, nil, nil
}

// header takes in what b has of a header, and looks at it as soon as it can.
func (f *frames) header(b []byte) (rest []byte, bad *breach) {
	if f.got < 2 {
		n := copy(f.head[f.got:2], b)
		f.got += uint8(n)
		b = b[n:]
		if f.got < 2 {
			return b, nil
		}
		if bad := f.checkStart(); bad != nil {
			return b, bad
		}
	}
	size := 2 + 4
	switch f.head[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	n := copy(f.head[f.got:size], b)
	f.got += uint8(n)
	if int(f.got) < size {
		return b[n:], nil
	}
	return b[n:], f.start(size)
}

// checkStart says what is wrong with the first two bytes of a header (RFC 6455 sections 5.1, 5.2, 5.4, 5.5).
func (f *frames) checkStart() *breach {
	fin, op, length := f.head[0]&0x80 != 0, f.head[0]&0x0f, f.head[1]&0x7f
	switch {
	case f.head[0]&0x70 != 0:
		return breaks("a reserved bit is set")
	case op > wire.OpBinary && op < wire.OpClose || op > wire.OpPong:
		return breaks("an unknown opcode")
	case f.head[1]&0x80 == 0:
		return breaks("a frame is not masked")
	case op >= wire.OpClose && !fin:
		return breaks("a control frame in fragments")
	case op >= wire.OpClose && length > 125:
		return breaks("a control frame of more than 125 bytes")
	case op == wire.OpContinuation && f.op == 0:
		return breaks("a continuation of nothing")
	case op != wire.OpContinuation && op < wire.OpClose && f.op != 0:
		return breaks("a message within another")
	}
	return nil
}

// start ends a header of that size, and begins with the payload.
func (f *frames) start(size int) *breach {
	length, least := uint64(f.head[1]&0x7f), uint64(0)
	switch length {
	case 126:
		length, least = uint64(binary.BigEndian.Uint16(f.head[2:])), 126
	case 127:
		length, least = binary.BigEndian.Uint64(f.head[2:]), 1<<16
	}
	op := f.head[0] & 0x0f
	switch {
	case length < least || length > 1<<63-1:
		return breaks("a length that is not in its shortest form") // a MUST of section 5.2
	case op < wire.OpClose && length > uint64(wire.MaxFrame-len(f.data)):
		return &breach{wire.StatusTooBig, tooBig}
	}
	copy(f.head[10:], f.head[size-4:size])
	f.inBody, f.pos, f.left = true, 0, int(length)
	if op != wire.OpContinuation && op < wire.OpClose {
		f.op = op
	}
	return nil
}

// unmask undoes the mask of a part of a payload (section 5.3).
func (f *frames) unmask(part []byte) {
	var mask [8]byte
	for i := range mask {
		mask[i] = f.head[10+(int(f.pos)+i)%4]
	}
	f.pos = uint8((int(f.pos) + len(part)) % 4)
	wide := binary.LittleEndian.Uint64(mask[:])
	for len(part) >= 8 {
		binary.LittleEndian.PutUint64(part, binary.LittleEndian.Uint64(part)^wide)
		part = part[8:]
	}
	for i := range part {
		part[i] ^= mask[i]
	}
}

// body takes in a part of a payload. If that ends a message or a control frame, body returns it.
func (f *frames) body(part []byte) (op byte, payload []byte) {
	f.left -= len(part)
	kept := &f.data
	if f.head[0]&0x0f >= wire.OpClose {
		kept = &f.aside
	}
	ended := f.left == 0 && f.head[0]&0x80 != 0
	if payload = part; !ended || len(*kept) > 0 {
		*kept = append(*kept, part...)
		payload = *kept
	}
	if f.left == 0 {
		f.inBody, f.got = false, 0
	}
	if !ended {
		return 0, nil
	}
	if op = f.head[0] & 0x0f; op < wire.OpClose {
		op, f.op = f.op, 0
	}
	return op, payload
}

// release lets go of a message that was handled.
func (f *frames) release() {
	if f.op == 0 {
		f.data = nil
	}
}

// closeCode reads the payload of a close (sections 5.5.1, 7.4).
func closeCode(payload []byte) (int, *breach) {
	if len(payload) == 0 {
		return wire.StatusNone, nil
	}
	if len(payload) == 1 {
		return 0, breaks("half a close code")
	}
	code := int(binary.BigEndian.Uint16(payload))
	switch {
	case code < 1000, code == 1004, code == wire.StatusNone, code == wire.StatusAbnormal, code > 1014 && code < 3000, code > 4999:
		return 0, breaks("a close code that must not be sent")
	case !utf8.Valid(payload[2:]):
		return 0, &breach{wire.StatusNotUTF8, "the reason of a close has to be UTF-8"}
	}
	return code, nil
}

// AppendText appends a text message in one frame.
func AppendText(dst, payload []byte) []byte {
	return append(wire.AppendHeader(dst, wire.OpText, len(payload)), payload...)
}

// AppendPing appends a ping, whose pong has the same payload (RFC 6455 section 5.5.3): at most 125 bytes.
func AppendPing(dst, payload []byte) []byte { return appendControl(dst, wire.OpPing, payload) }

// AppendClose appends a close. A reason is cut to what a control frame holds (RFC 6455 section 5.5), between two characters.
func AppendClose(dst []byte, code int, reason string) []byte {
	if len(reason) > 123 {
		n := 123
		for n > 0 && !utf8.RuneStart(reason[n]) {
			n--
		}
		reason = reason[:n]
	}
	dst = wire.AppendHeader(dst, wire.OpClose, 2+len(reason))
	dst = append(dst, byte(code>>8), byte(code))
	return append(dst, reason...)
}

// appendControl appends a control frame.
func appendControl(dst []byte, op byte, payload []byte) []byte {
	return append(wire.AppendHeader(dst, op, len(payload)), payload...)
}
