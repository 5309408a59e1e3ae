package load

import (
	"bytes"
	"encoding/binary"
)

// Every message that a run sends carries a stamp in its text, so that whoever receives it knows who said it, which of its
// messages it is, and when it was due. The text is
//
//	parley~~ SSSSSSSS QQQQQQQQ TTTTTTTTTTTTTTTT ----- .
//
// without the blanks: a mark; the sender's connection number, the sequence number and the time due (nanoseconds of the
// monotonic clock) as hexadecimal digits; filling; and a full stop as the very last byte, which proves that the text is whole.
// JSON leaves all of it as it is, so a stamp is found in a frame of any format without decoding the frame.
const (
	stampMark = "parley~~"
	stampEnd  = '.'
	stampFill = '-'

	senderOffset = len(stampMark)
	seqOffset    = senderOffset + 8
	timeOffset   = seqOffset + 8
	stampLen     = timeOffset + 16

	// MinSize is the shortest text that holds a stamp.
	MinSize = stampLen + 1
)

var markWord = binary.LittleEndian.Uint64([]byte(stampMark))

// A stampKey names a message: the digits of its sender and of its sequence number, as they stand in the stamp. Comparing keys
// is all that most deliveries need.
type stampKey struct{ sender, seq uint64 }

// appendText appends a stamped text of size bytes, at least MinSize.
func appendText(dst []byte, sender, seq uint64, due int64, size int) []byte {
	dst = append(dst, stampMark...)
	dst = appendHex(dst, sender, 8)
	dst = appendHex(dst, seq, 8)
	dst = appendHex(dst, uint64(due), 16)
	for range size - MinSize {
		dst = append(dst, stampFill)
	}
	return append(dst, stampEnd)
}

// findStamp returns where the stamp begins in a message, or -1. It looks at hint first, where the last one was.
func findStamp(msg []byte, hint int) int {
	if hint+stampLen <= len(msg) && binary.LittleEndian.Uint64(msg[hint:]) == markWord {
		return hint
	}
	at := bytes.Index(msg, []byte(stampMark))
	if at < 0 || at+stampLen > len(msg) {
		return -1
	}
	return at
}

// keyOf takes the key from a stamp.
func keyOf(stamp []byte) stampKey {
	_ = stamp[timeOffset-1]
	return stampKey{
		sender: binary.LittleEndian.Uint64(stamp[senderOffset:]),
		seq:    binary.LittleEndian.Uint64(stamp[seqOffset:]),
	}
}

// numbers decodes a key; ok is false if it is not made of hexadecimal digits.
func (k stampKey) numbers() (sender, seq uint32, ok bool) {
	s, ok1 := parseHex(k.sender)
	q, ok2 := parseHex(k.seq)
	return s, q, ok1 && ok2
}

// dueOf takes the time due from a stamp.
func dueOf(stamp []byte) (due int64, ok bool) {
	hi, ok1 := parseHex(binary.LittleEndian.Uint64(stamp[timeOffset:]))
	lo, ok2 := parseHex(binary.LittleEndian.Uint64(stamp[timeOffset+8:]))
	return int64(hi)<<32 | int64(lo), ok1 && ok2
}

const hexDigits = "0123456789abcdef"

func appendHex(dst []byte, v uint64, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[v>>shift&15])
	}
	return dst
}

// parseHex decodes eight lower-case hexadecimal digits, given as the little-endian word that they form.
func parseHex(digits uint64) (v uint32, ok bool) {
	for range 8 {
		d := byte(digits)
		digits >>= 8
		switch {
		case '0' <= d && d <= '9':
			d -= '0'
		case 'a' <= d && d <= 'f':
			d -= 'a' - 10
		default:
			return 0, false
		}
		v = v<<4 | uint32(d)
	}
	return v, true
}
