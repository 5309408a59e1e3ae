// Package id is the form of a message's id, which is the id of an entry in a Redis stream: milliseconds since 1970 and a
// number, written "1763812800000-4711". It is the ordering key of a room, the cursor to resume from, and the key to page by.
package id

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
)

// ID orders the messages of one room. The zero ID, "0-0", comes before every message.
type ID struct {
	Ms  uint64 // milliseconds since 1970
	Seq uint64
}

// ErrSyntax is what Parse answers for anything that is no id.
var ErrSyntax = errors.New(`an id is two whole numbers joined by "-", such as 1763812800000-4711`)

// Parse reads an id in its only written form: two decimal numbers of at most 64 bits, no sign and no leading zeros.
func Parse(s string) (ID, error) {
	ms, seq, ok := strings.Cut(s, "-")
	if !ok {
		return ID{}, ErrSyntax
	}
	m, ok1 := parseUint(ms)
	q, ok2 := parseUint(seq)
	if !ok1 || !ok2 {
		return ID{}, ErrSyntax
	}
	return ID{m, q}, nil
}

func parseUint(s string) (uint64, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' || (s[0] == '0' && len(s) > 1) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// Append appends the written form to dst.
func (i ID) Append(dst []byte) []byte {
	dst = strconv.AppendUint(dst, i.Ms, 10)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, i.Seq, 10)
}

func (i ID) String() string {
	var buf [41]byte
	return string(i.Append(buf[:0]))
}

// MarshalText makes an ID a JSON string.
func (i ID) MarshalText() ([]byte, error) { return i.Append(nil), nil }

// UnmarshalText reads what Parse reads.
func (i *ID) UnmarshalText(b []byte) (err error) {
	*i, err = Parse(string(b))
	return err
}

// IsZero reports whether i is "0-0".
func (i ID) IsZero() bool { return i == ID{} }

// Compare returns -1, 0 or +1. Ids compare as two integers, never as strings.
func (i ID) Compare(j ID) int {
	return cmp.Or(cmp.Compare(i.Ms, j.Ms), cmp.Compare(i.Seq, j.Seq))
}

// Less reports whether i comes before j.
func (i ID) Less(j ID) bool { return i.Compare(j) < 0 }
