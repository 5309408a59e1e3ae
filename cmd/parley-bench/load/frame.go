package load

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The opcodes of RFC 6455, section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// maxMessage is the longest message that a server may send.
const maxMessage = 128 << 10

// A frameError is a breach of RFC 6455 by the server.
type frameError string

func (e frameError) Error() string { return "not the WebSocket protocol: " + string(e) }

// A framer takes the messages out of the bytes that a server sends. Its zero value is ready to use.
type framer struct {
	op    byte   // of the message that is under way in fragments; 0 if none is
	parts []byte // its fragments so far
}

// next takes the first frame off b, and says how many bytes that were: none if b ends within the frame. op is the opcode of
// the message that the frame completes, or 0 if more fragments follow. msg may be a part of b.
func (f *framer) next(b []byte) (op byte, msg []byte, n int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	first, head, size := b[0], 2, int(b[1])
	switch {
	case size < 126:
	case size == 126:
		if len(b) < 4 {
			return 0, nil, 0, nil
		}
		head, size = 4, int(binary.BigEndian.Uint16(b[2:]))
		if size < 126 {
			return 0, nil, 0, frameError("a length that is not in its shortest form")
		}
	case size == 127:
		if len(b) < 10 {
			return 0, nil, 0, nil
		}
		long := binary.BigEndian.Uint64(b[2:])
		if long > maxMessage {
			return 0, nil, 0, frameError(fmt.Sprintf("a frame of %d bytes", long))
		}
		if long < 1<<16 {
			return 0, nil, 0, frameError("a length that is not in its shortest form")
		}
		head, size = 10, int(long)
	default:
		return 0, nil, 0, frameError("a masked frame from the server")
	}
	if first == 0x80|opText && f.op == 0 { // by far the most
		if len(b) < head+size {
			return 0, nil, 0, nil
		}
		return opText, b[head : head+size], head + size, nil
	}
	if err := f.validate(first, size); err != nil {
		return 0, nil, 0, err
	}
	if len(b) < head+size {
		return 0, nil, 0, nil
	}
	op, msg = f.join(first, b[head:head+size])
	return op, msg, head + size, nil
}

// validate checks a frame's first byte against its size and against the fragments before it.
func (f *framer) validate(first byte, size int) error {
	final, op := first&0x80 != 0, first&0x0F
	switch {
	case first&0x70 != 0:
		return frameError("reserved bits without an extension")
	case op > opPong || op > opBinary && op < opClose:
		return frameError(fmt.Sprintf("opcode %#x", op))
	case op >= opClose && (!final || size > 125):
		return frameError("a control frame in fragments or over 125 bytes")
	case op == opContinuation && f.op == 0:
		return frameError("a continuation of nothing")
	case (op == opText || op == opBinary) && f.op != 0:
		return frameError("a message within another one's fragments")
	case op == opContinuation && len(f.parts)+size > maxMessage:
		return frameError(fmt.Sprintf("a message over %d bytes", maxMessage))
	}
	return nil
}

// join takes a valid frame's payload and returns the message that it completes, if it does.
func (f *framer) join(first byte, payload []byte) (op byte, msg []byte) {
	final, op := first&0x80 != 0, first&0x0F
	switch {
	case op >= opClose || final && op != opContinuation:
		return op, payload
	case op != opContinuation:
		f.op, f.parts = op, append([]byte(nil), payload...)
		return 0, nil
	}
	f.parts = append(f.parts, payload...)
	if !final {
		return 0, nil
	}
	op, msg = f.op, f.parts
	f.op, f.parts = 0, nil
	return op, msg
}

// clientMask masks what is sent. RFC 6455 asks for an unpredictable key to protect proxies from pages; here there are neither,
// and servers unmask one key like any other.
var clientMask = [4]byte{0x5A, 0xC3, 0x17, 0x8E}

// appendFrame appends a whole frame of a client. The payload must be below 64 KiB.
func appendFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	if len(payload) < 126 {
		dst = append(dst, 0x80|byte(len(payload)))
	} else {
		dst = append(dst, 0x80|126, byte(len(payload)>>8), byte(len(payload)))
	}
	dst = append(dst, clientMask[:]...)
	at := len(dst)
	dst = append(dst, payload...)
	for i, b := range dst[at:] {
		dst[at+i] = b ^ clientMask[i&3]
	}
	return dst
}

// errClosed tells how a server closed a connection.
type errClosed struct {
	code   int
	reason string
}

func (e errClosed) Error() string {
	if e.reason == "" {
		return fmt.Sprintf("closed by the server with %d", e.code)
	}
	return fmt.Sprintf("closed by the server with %d %q", e.code, e.reason)
}

// closeReason reads a close frame's payload.
func closeReason(payload []byte) error {
	if len(payload) < 2 {
		return errors.New("closed by the server without a code")
	}
	return errClosed{int(binary.BigEndian.Uint16(payload)), string(payload[2:])}
}
