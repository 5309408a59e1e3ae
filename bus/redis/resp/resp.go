// Package resp writes commands and reads answers in Redis's protocol, version 3 (redis.io/docs/latest/develop/reference/protocol-spec),
// in which one connection carries both answers and what is published on channels.
package resp

import (
	"bytes"
	"errors"
	"strconv"
)

// AppendCommand begins a command: n arguments follow, its name among them.
func AppendCommand(dst []byte, n int) []byte { return appendLine(dst, '*', n) }

// AppendArg appends an argument.
func AppendArg[S string | []byte](dst []byte, arg S) []byte {
	dst = appendLine(dst, '$', len(arg))
	dst = append(dst, arg...)
	return append(dst, '\r', '\n')
}

// AppendInt appends a number as an argument.
func AppendInt(dst []byte, n int64) []byte {
	var buf [20]byte
	return AppendArg(dst, strconv.AppendInt(buf[:0], n, 10))
}

// Append appends a whole command.
func Append(dst []byte, args ...string) []byte {
	dst = AppendCommand(dst, len(args))
	for _, arg := range args {
		dst = AppendArg(dst, arg)
	}
	return dst
}

func appendLine(dst []byte, kind byte, n int) []byte {
	dst = append(dst, kind)
	dst = strconv.AppendInt(dst, int64(n), 10)
	return append(dst, '\r', '\n')
}

// A Value is what the server says.
type Value struct {
	Kind  Kind
	Text  []byte  // of Text and Error; a part of what was read
	Int   int64   // of Int
	Elems []Value // of Array and Push
}

// Kind says what a Value is.
type Kind byte

// The kinds of values, fewer than the protocol's types: a map is an array of keys and values in turn, and what has no kind of
// its own, such as a boolean, is its text.
const (
	Null Kind = iota
	Text
	Error
	Int
	Array
	Push // no answer, but something published, or a subscription's beginning or end
)

// ErrSyntax is what Parse answers for anything that no server says.
var ErrSyntax = errors.New("that is no answer of a Redis server")

// Bounds of what is believed.
const (
	maxText  = 512 << 20 // bytes; the server's own bound of a string
	maxElems = 1 << 20
	maxDepth = 8
)

// A Parser reads values. What it returned is good until it is called again, and as long as the bytes it was given are.
type Parser struct {
	elems []Value // of the value at hand, all levels of it
}

// Parse reads the first value in b, and tells its length; 0 if not all of it has come yet.
func (p *Parser) Parse(b []byte) (v Value, n int, err error) {
	p.elems = p.elems[:0]
	v, rest, err := p.parse(b, maxDepth)
	if errors.Is(err, errPartial) {
		return Value{}, 0, nil
	}
	if err != nil {
		return Value{}, 0, err
	}
	return v, len(b) - len(rest), nil
}

var errPartial = errors.New("there is more to come")

func (p *Parser) parse(b []byte, depth int) (v Value, rest []byte, err error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return v, nil, errPartial
	}
	if end < 2 || b[end-1] != '\r' {
		return v, nil, ErrSyntax
	}
	kind, line, rest := b[0], b[1:end-1], b[end+1:]
	switch kind {
	case '+', ',', '#', '(':
		return Value{Kind: Text, Text: line}, rest, nil
	case '-':
		return Value{Kind: Error, Text: line}, rest, nil
	case '_':
		return v, rest, nil
	case ':':
		if v.Int, err = strconv.ParseInt(string(line), 10, 64); err != nil {
			return v, nil, ErrSyntax
		}
		v.Kind = Int
		return v, rest, nil
	}
	if kind != '|' && string(line) == "-1" { // null, as version 2 has it
		return v, rest, nil
	}
	n, err := strconv.ParseUint(string(line), 10, 31)
	if err != nil {
		return v, nil, ErrSyntax
	}
	switch kind {
	case '$', '=':
		return text(Text, rest, int(n))
	case '!':
		return text(Error, rest, int(n))
	case '*', '~':
		return p.array(Array, rest, int(n), depth)
	case '>':
		return p.array(Push, rest, int(n), depth)
	case '%':
		return p.array(Array, rest, 2*int(n), depth)
	case '|': // attributes of the value that follows
		if _, rest, err = p.array(Array, rest, 2*int(n), depth); err != nil {
			return v, nil, err
		}
		if depth == 0 {
			return v, nil, ErrSyntax
		}
		return p.parse(rest, depth-1)
	}
	return v, nil, ErrSyntax
}

func text(kind Kind, b []byte, n int) (v Value, rest []byte, err error) {
	if n > maxText {
		return v, nil, ErrSyntax
	}
	if len(b) < n+2 {
		return v, nil, errPartial
	}
	if b[n] != '\r' || b[n+1] != '\n' {
		return v, nil, ErrSyntax
	}
	return Value{Kind: kind, Text: b[:n]}, b[n+2:], nil
}

func (p *Parser) array(kind Kind, b []byte, n, depth int) (v Value, rest []byte, err error) {
	if depth == 0 || n > maxElems {
		return v, nil, ErrSyntax
	}
	first := len(p.elems)
	for range n { // the elements first, since theirs come behind
		if len(b) == 0 {
			return v, nil, errPartial
		}
		p.elems = append(p.elems, Value{})
	}
	for i := range n {
		e, rest, err := p.parse(b, depth-1)
		if err != nil {
			return v, nil, err
		}
		p.elems[first+i], b = e, rest
	}
	return Value{Kind: kind, Elems: p.elems[first : first+n : first+n]}, b, nil
}
