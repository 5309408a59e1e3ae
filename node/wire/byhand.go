package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// What a client writes and reads that speaks RFC 6455 by hand: those of tests, and of who attacks a node.

// AppendMasked appends a client's whole frame, under a mask that changes nothing.
func AppendMasked(dst []byte, opcode byte, payload string) []byte {
	start := len(dst)
	dst = AppendHeader(dst, opcode, len(payload))
	dst[start+1] |= 0x80
	return append(append(dst, 0, 0, 0, 0), payload...)
}

// mostRead bounds what ReadRaw takes for a frame: far more than a node sends in one.
const mostRead = 64 << 20

// ReadRaw reads one frame of a server, which has no mask. A part of a message is a frame, too.
func ReadRaw(r io.Reader) (opcode byte, payload []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return 0, nil, err
	}
	opcode, size := head[0]&0x0f, uint64(head[1])
	switch size {
	case 126:
		_, err = io.ReadFull(r, head[:2])
		size = uint64(binary.BigEndian.Uint16(head[:]))
	case 127:
		_, err = io.ReadFull(r, head[:])
		size = binary.BigEndian.Uint64(head[:])
	}
	if err != nil {
		return 0, nil, err
	}
	if size > mostRead {
		return 0, nil, fmt.Errorf("a frame of %d bytes, of at most %d", size, mostRead)
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(r, payload)
	return opcode, payload, err
}
