package wire

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"parley/bus/id"
)

const hexDigits = "0123456789abcdef"

// plain says of each byte whether it stands for itself in a JSON string, whatever surrounds it.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// AppendString appends s as a JSON string. Control characters, U+2028 and U+2029 are escaped; what is not UTF-8 becomes
// U+FFFD.
func AppendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r != '\u2028' && r != '\u2029' && (r != utf8.RuneError || n > 1) {
				i += n
				continue
			}
			dst = append(dst, s[start:i]...)
			if r == utf8.RuneError {
				dst = append(dst, "\uFFFD"...)
			} else {
				dst = append(dst, '\\', 'u', '2', '0', '2', hexDigits[r&0xF])
			}
			i += n
			start = i
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xF])
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// An object appends the fields of one JSON object. Names are ours and need no escaping.
type object struct{ b []byte }

// open begins a server's frame.
func open(dst []byte, op string) object {
	o := object{append(dst, '{')}
	o.str("op", op)
	return o
}

func (o *object) end() []byte { return append(o.b, '}') }

func (o *object) name(name string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(o.b, '"')
	o.b = append(o.b, name...)
	o.b = append(o.b, '"', ':')
}

func (o *object) str(name, s string) {
	o.name(name)
	o.b = AppendString(o.b, s)
}

// strIf leaves the field out if s is empty.
func (o *object) strIf(name, s string) {
	if s != "" {
		o.str(name, s)
	}
}

// raw leaves the field out if value is nil.
func (o *object) raw(name string, value json.RawMessage) {
	if value != nil {
		o.name(name)
		o.b = append(o.b, value...)
	}
}

func (o *object) id(name string, i id.ID) {
	o.name(name)
	o.b = append(o.b, '"')
	o.b = i.Append(o.b)
	o.b = append(o.b, '"')
}

func (o *object) int(name string, n int64) {
	o.name(name)
	o.b = strconv.AppendInt(o.b, n, 10)
}

func (o *object) bool(name string, v bool) {
	o.name(name)
	o.b = strconv.AppendBool(o.b, v)
}

func (o *object) member(name string, m Member) {
	o.name(name)
	o.b = appendMember(o.b, m)
}

func (o *object) members(name string, list []Member) {
	o.name(name)
	o.b = append(o.b, '[')
	for i, m := range list {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = appendMember(o.b, m)
	}
	o.b = append(o.b, ']')
}

func appendMember(dst []byte, m Member) []byte {
	o := object{append(dst, '{')}
	o.str("id", m.ID)
	o.strIf("name", m.Name)
	o.info(m.Info)
	return o.end()
}
