package node

import (
	"parley/bus"
	"parley/node/socket"
	"parley/node/wire"
)

// A codec is how a client is spoken to.
type codec byte

const (
	plain  codec = iota // text messages: what the others said, and nothing else
	jsonV1              // parley.v1
	sse                 // Server-Sent Events
	codecs              // how many there are
)

func (c codec) String() string { return [...]string{"plain", "json", "sse"}[c] }

// appendMessage appends a message as a whole frame. scratch is for it to use, and is returned as it has grown.
// What this version of the node cannot read is left out.
func (c codec) appendMessage(dst, scratch []byte, m *bus.Message) (frames, grown []byte) {
	if c == plain {
		text, err := wire.Text(m.Body)
		if err != nil || text == nil {
			return dst, scratch
		}
		return socket.AppendText(dst, text), scratch
	}
	scratch = wire.AppendMessage(scratch[:0], m.ID, m.Body)
	if len(scratch) == 0 {
		return dst, scratch
	}
	if c == jsonV1 {
		return socket.AppendText(dst, scratch), scratch
	}
	dst = append(dst, "id: "...)
	dst = m.ID.Append(dst)
	return appendData(dst, scratch), scratch
}

// appendEvent appends any other frame than a message: payload is its JSON, op its op. Plain text has no words for it.
func (c codec) appendEvent(dst []byte, op string, payload []byte) []byte {
	switch c {
	case jsonV1:
		return socket.AppendText(dst, payload)
	case sse:
		dst = append(dst, "event: "...)
		dst = append(dst, op...)
		return appendData(dst, payload)
	default:
		return dst
	}
}

// appendData ends an event of an event stream. JSON has no line breaks, so it is one line.
func appendData(dst, payload []byte) []byte {
	dst = append(dst, "\ndata: "...)
	dst = append(dst, payload...)
	return append(dst, "\n\n"...)
}

// appendPing appends what makes a client show that it lives, or a proxy leave the connection open.
func (c codec) appendPing(dst []byte) []byte {
	if c == sse {
		return append(dst, ":\n\n"...)
	}
	return socket.AppendPing(dst)
}
