package wire

import (
	"bytes"
	"encoding/json"
	"unicode/utf16"
	"unicode/utf8"
)

// A scanner walks over JSON (RFC 8259) that is known to be UTF-8, and finds where values begin and end without decoding
// them. It allocates nothing unless there is an error to tell.
type scanner struct {
	b []byte
	i int
}

// fail says that there is no valid JSON at the scanner's place.
func (s *scanner) fail() *Error {
	if s.i >= len(s.b) {
		return Errorf(BadRequest, "not valid JSON: it ends too early, after %d bytes", len(s.b))
	}
	r, _ := utf8.DecodeRune(s.b[s.i:])
	return Errorf(BadRequest, "not valid JSON: %q was not expected at byte %d", r, s.i)
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\t' || s.b[s.i] == '\r') {
		s.i++
	}
}

// accept moves past c if it comes next.
func (s *scanner) accept(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// member moves past `"name": value`, and returns both as written. The value may be nested depth deep.
func (s *scanner) member(depth int) (name, value []byte, err *Error) {
	start := s.i
	if err := s.str(); err != nil {
		return nil, nil, err
	}
	name = s.b[start:s.i]
	s.space()
	if !s.accept(':') {
		return nil, nil, s.fail()
	}
	s.space()
	start = s.i
	if err := s.value(depth); err != nil {
		return nil, nil, err
	}
	return name, s.b[start:s.i], nil
}

// fields moves past an object and hands over each of its fields: the name decoded, the value as written.
func (s *scanner) fields(depth int, field func(name, value []byte)) *Error {
	if !s.accept('{') {
		return Errorf(BadRequest, "there must be a JSON object at byte %d", s.i)
	}
	s.space()
	for more := !s.accept('}'); more; {
		name, value, err := s.member(depth)
		if err != nil {
			return err
		}
		field(unquote(name), value)
		s.space()
		if more = s.accept(','); more {
			s.space()
		} else if !s.accept('}') {
			return s.fail()
		}
	}
	return nil
}

// value moves past a value of any kind. It calls itself at most depth times deep.
func (s *scanner) value(depth int) *Error {
	if s.i >= len(s.b) {
		return s.fail()
	}
	switch s.b[s.i] {
	case '"':
		return s.str()
	case '{', '[':
		if depth == 0 {
			return Errorf(BadRequest, "a value is nested too deep: at most %d arrays and objects within each other are allowed", MaxDepth)
		}
		return s.nested(depth - 1)
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	return s.number()
}

// nested moves past an object or an array, whose values may be nested depth deep.
func (s *scanner) nested(depth int) *Error {
	object := s.b[s.i] == '{'
	end := byte(']')
	if object {
		end = '}'
	}
	s.i++
	s.space()
	if s.accept(end) {
		return nil
	}
	for {
		var err *Error
		if object {
			_, _, err = s.member(depth)
		} else {
			err = s.value(depth)
		}
		if err != nil {
			return err
		}
		s.space()
		if s.accept(end) {
			return nil
		}
		if !s.accept(',') {
			return s.fail()
		}
		s.space()
	}
}

func (s *scanner) literal(word string) *Error {
	if !bytes.HasPrefix(s.b[s.i:], []byte(word)) {
		return s.fail()
	}
	s.i += len(word)
	return nil
}

func (s *scanner) number() *Error {
	s.accept('-')
	if !s.accept('0') && !s.digits() {
		return s.fail()
	}
	if s.accept('.') && !s.digits() {
		return s.fail()
	}
	if s.accept('e') || s.accept('E') {
		if !s.accept('+') {
			s.accept('-')
		}
		if !s.digits() {
			return s.fail()
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

func (s *scanner) str() *Error {
	if !s.accept('"') {
		return s.fail()
	}
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return nil
		case c == '\\':
			s.i++
			if err := s.escape(); err != nil {
				return err
			}
		case c < 0x20:
			return s.fail()
		default:
			s.i++
		}
	}
	return s.fail()
}

func (s *scanner) escape() *Error {
	if s.i >= len(s.b) {
		return s.fail()
	}
	switch s.b[s.i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i++
		return nil
	case 'u':
		s.i++
		for range 4 {
			if s.i >= len(s.b) || unhex(s.b[s.i]) < 0 {
				return s.fail()
			}
			s.i++
		}
		return nil
	}
	return s.fail()
}

func unhex(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c && c <= 'f':
		return rune(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

// unquote decodes a string that the scanner has passed, quotes included. Half a surrogate pair becomes U+FFFD. Without
// escapes the result is a part of raw.
func unquote(raw []byte) []byte {
	s := raw[1 : len(raw)-1]
	next := bytes.IndexByte(s, '\\')
	if next < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for next >= 0 {
		out = append(out, s[:next]...)
		c := s[next+1]
		s = s[next+2:]
		switch c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(s)
			s = s[4:]
			if utf16.IsSurrogate(r) {
				pair := utf8.RuneError
				if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
					pair = utf16.DecodeRune(r, hex4(s[2:]))
				}
				if r = pair; r != utf8.RuneError {
					s = s[6:]
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
		next = bytes.IndexByte(s, '\\')
	}
	return append(out, s...)
}

func hex4(s []byte) rune {
	return unhex(s[0])<<12 | unhex(s[1])<<8 | unhex(s[2])<<4 | unhex(s[3])
}

// compact copies a value that the scanner has passed, without the space between its tokens.
func compact(raw []byte) json.RawMessage {
	if bytes.IndexByte(raw, ' ') < 0 && bytes.IndexByte(raw, '\n') < 0 && bytes.IndexByte(raw, '\t') < 0 &&
		bytes.IndexByte(raw, '\r') < 0 {
		return bytes.Clone(raw)
	}
	out := make([]byte, 0, len(raw))
	quoted := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			quoted = !quoted
			out = append(out, c)
		case quoted && c == '\\':
			out = append(out, c, raw[i+1])
			i++
		case !quoted && (c == ' ' || c == '\n' || c == '\t' || c == '\r'):
		default:
			out = append(out, c)
		}
	}
	return out
}
