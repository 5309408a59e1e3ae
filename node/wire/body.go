package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"parley/bus/id"
)

// A body is what nodes pass each other over the bus: an Origin in binary and a piece of JSON, encoded once by the node that
// accepted it. Nodes that deliver it put an id before the piece and braces around it, and never parse it.

// An Origin names the connection that something came from, and which of its requests it was, so that a node knows what
// its own connections said.
type Origin struct {
	Conn uint64 // unique over all nodes
	Seq  uint32
}

const originSize = 8 + 4

// ErrBody is what a body gets that this version of the node cannot read.
var ErrBody = errors.New("the body of a message on the bus is malformed")

// OriginOf reads a body's Origin. It is false for what is no body; AppendMessage and the others refuse just that.
func OriginOf(body []byte) (Origin, bool) {
	if len(body) <= originSize || body[originSize] != '"' {
		return Origin{}, false
	}
	return Origin{binary.BigEndian.Uint64(body), binary.BigEndian.Uint32(body[8:])}, true
}

func (o Origin) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, o.Conn)
	return binary.BigEndian.AppendUint32(dst, o.Seq)
}

// Said is a message without its id.
type Said struct {
	Origin Origin
	Room   string
	From   Member
	Text   string
	Data   json.RawMessage // valid JSON, or nil
	Key    string
	At     int64 // milliseconds since 1970
}

// Body encodes the message for the bus.
func (m Said) Body() []byte {
	size := originSize + 96 + len(m.Room) + len(m.From.ID) + len(m.From.Name) + len(m.From.Info) + len(m.Text) + len(m.Data) + len(m.Key)
	o := object{m.Origin.append(make([]byte, 0, size))}
	o.first("room", m.Room)
	o.member("from", m.From)
	o.strIf("text", m.Text)
	o.raw("data", m.Data)
	o.strIf("key", m.Key)
	o.int("at", m.At)
	return o.b
}

// first appends a body's first field, which has no comma before it whatever the Origin's last byte.
func (o *object) first(name, s string) {
	o.b = append(o.b, '"')
	o.b = append(o.b, name...)
	o.b = append(o.b, '"', ':')
	o.b = AppendString(o.b, s)
}

// AppendMessage appends a body of Said as a message frame. Of what is no body it appends nothing.
func AppendMessage(dst []byte, i id.ID, body []byte) []byte {
	return splice(dst, `{"op":"message","id":"`, i, body)
}

// AppendEntry is AppendMessage without the op, for History.
func AppendEntry(dst []byte, i id.ID, body []byte) []byte {
	return splice(dst, `{"id":"`, i, body)
}

func splice(dst []byte, head string, i id.ID, body []byte) []byte {
	if _, ok := OriginOf(body); !ok {
		return dst
	}
	dst = append(dst, head...)
	dst = i.Append(dst)
	dst = append(dst, '"', ',')
	dst = append(dst, body[originSize:]...)
	return append(dst, '}')
}

// Text reads the text out of a body of Said, for plain clients: nil if it has none. It may be a part of body.
func Text(body []byte) ([]byte, error) {
	if _, ok := OriginOf(body); !ok {
		return nil, ErrBody
	}
	s := scanner{b: body, i: originSize}
	for {
		name, value, err := s.member(MaxDepth)
		if err != nil {
			return nil, ErrBody
		}
		if string(name) == `"text"` {
			if value[0] != '"' || !utf8.Valid(value) {
				return nil, ErrBody
			}
			return unquote(value), nil
		}
		if s.i == len(body) {
			return nil, nil
		}
		if !s.accept(',') {
			return nil, ErrBody
		}
	}
}

// Sum is a fingerprint of a message's content, the same on every node: FNV-1a over the text's length, the text and the data.
func Sum(text string, data json.RawMessage) uint64 {
	const prime = 1099511628211
	h := uint64(14695981039346656037)
	for n := len(text); n > 0; n >>= 8 {
		h = (h ^ uint64(n&0xFF)) * prime
	}
	h *= prime // the length ends here
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * prime
	}
	for _, c := range data {
		h = (h ^ uint64(c)) * prime
	}
	return h
}

// Signalled is a signal on its way to the others in the room.
type Signalled struct {
	Origin Origin
	Room   string
	Kind   string
	User   Member
	Data   json.RawMessage // valid JSON, or nil
}

// Body encodes the signal for the bus.
func (s Signalled) Body() []byte {
	o := object{s.Origin.append(nil)}
	o.first("room", s.Room)
	o.str("kind", s.Kind)
	o.member("user", s.User)
	o.raw("data", s.Data)
	return o.b
}

// AppendSignal appends a body of Signalled as a signal frame. Of what is no body it appends nothing.
func AppendSignal(dst, body []byte) []byte {
	if _, ok := OriginOf(body); !ok {
		return dst
	}
	dst = append(dst, `{"op":"signal",`...)
	dst = append(dst, body[originSize:]...)
	return append(dst, '}')
}
