package socket

import (
	"encoding/binary"

	"parley/node/wire"
)

// What wholeMessage says of the first message.
type verdict byte

const (
	partial verdict = iota // it has not all come yet
	whole                  // a text or binary message, a close, or a header that breaks the protocol, which says enough
	ping                   // a whole ping
	pong                   // a whole pong
	tooBig                 // it has more than wire.MaxFrame bytes, or absurdly many fragments
)

// wholeMessage finds the end of the first message in b, which begins with a frame's header: of a data message with all its fragments
// and what stands between them, or of one control frame (RFC 6455 sections 5.2, 5.4). Only what wholeMessage has found whole is
// given to the WebSocket library, so that reading it never waits.
func wholeMessage(b []byte) (n int, v verdict) {
	payload, begun := 0, false
	for n < len(b) {
		head := b[n:]
		if len(head) < 2 {
			return 0, partial
		}
		fin, op := head[0]&0x80 != 0, head[0]&0x0f
		size, length := 2, uint64(head[1]&0x7f)
		switch length {
		case 126:
			if size = 4; len(head) >= size {
				length = uint64(binary.BigEndian.Uint16(head[2:]))
			}
		case 127:
			if size = 10; len(head) >= size {
				length = binary.BigEndian.Uint64(head[2:])
			}
		}
		if head[1]&0x80 != 0 {
			size += 4
		}
		if len(head) < size {
			return 0, partial
		}
		isControl := op >= wire.OpClose
		switch {
		case head[0]&0x70 != 0, head[1]&0x80 == 0, op > 2 && op < wire.OpClose, op > wire.OpPong, isControl && (!fin || length > 125):
			return n + size, whole
		case !isControl && begun != (op == 0): // a continuation begins, or something else continues
			return n + size, whole
		case length > wire.MaxFrame:
			return 0, tooBig
		}
		if isControl {
			if len(head) < size+int(length) {
				return 0, partial
			}
			if !begun {
				return size + int(length), [...]verdict{whole, ping, pong}[op-wire.OpClose]
			}
			n += size + int(length)
			continue
		}
		begun = true
		payload += int(length)
		if payload > wire.MaxFrame || n > 2*wire.MaxFrame {
			return 0, tooBig
		}
		if len(head) < size+int(length) {
			return 0, partial
		}
		n += size + int(length)
		if fin {
			return n, whole
		}
	}
	return 0, partial
}

// AppendText appends a text message in one frame.
func AppendText(dst, payload []byte) []byte {
	return append(wire.AppendHeader(dst, wire.OpText, len(payload)), payload...)
}

// AppendPing appends a ping.
func AppendPing(dst []byte) []byte { return wire.AppendHeader(dst, wire.OpPing, 0) }

// AppendClose appends a close. A reason is cut to what a control frame holds (RFC 6455 section 5.5).
func AppendClose(dst []byte, code int, reason string) []byte {
	if len(reason) > 123 {
		reason = reason[:123]
	}
	dst = wire.AppendHeader(dst, wire.OpClose, 2+len(reason))
	dst = append(dst, byte(code>>8), byte(code))
	return append(dst, reason...)
}

// appendPong answers a ping, which is whole and masked (RFC 6455 section 5.5.3).
func appendPong(dst, frame []byte) []byte {
	mask, payload := frame[2:6], frame[6:]
	dst = wire.AppendHeader(dst, wire.OpPong, len(payload))
	for i, c := range payload {
		dst = append(dst, c^mask[i%4])
	}
	return dst
}
