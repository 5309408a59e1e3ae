package node

import (
	"fmt"

	"parley/bus"
	"parley/node/socket"
	"parley/node/wire"
)

// A codec is how a client speaks and is spoken to. What differs between them is here, and nowhere else.
type codec byte

const (
	plain  codec = iota // text messages: what the others said, and nothing else
	jsonV1              // parley.v1
	sse                 // Server-Sent Events
	codecs              // how many there are
)

func (c codec) String() string { return [...]string{"plain", "json", "sse"}[c] }

// hasWords reports whether there are frames for anything but messages: answers, errors, gaps, presence. Without them what has
// to be told closes the connection, and what the client says itself does not come back to it.
func (c codec) hasWords() bool { return c != plain }

// answersPings reports whether a client shows that it lives.
func (c codec) answersPings() bool { return c != sse }

// parse reads what a client says; nil asks for nothing. home is the room of a client that names none. With an error the
// request holds what could be read.
func (c codec) parse(frame []byte, home string, maxText int) (*wire.Request, *wire.Error) {
	if c != plain {
		req, bad := wire.Parse(frame, maxText)
		return &req, bad
	}
	if len(frame) == 0 {
		return nil, nil
	}
	req := &wire.Request{Op: "send", Room: home, Text: string(frame)}
	return req, wire.CheckText(req.Text, maxText)
}

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

// appendEvent appends any other frame than a message: payload is its JSON, op its op. Without words it appends nothing.
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

// appendEventAt is appendEvent for one after which reading goes on at an id: in an event stream it says so, for the client to come
// back with.
func (c codec) appendEventAt(dst []byte, at bus.ID, op string, payload []byte) []byte {
	if c == sse {
		dst = append(dst, "id: "...)
		dst = append(at.Append(dst), '\n')
	}
	return c.appendEvent(dst, op, payload)
}

// appendBye appends what announces the end of the connection. EventSource comes back when retry says.
func (c codec) appendBye(dst []byte, bye wire.Bye) []byte {
	if c == sse {
		dst = fmt.Appendf(dst, "retry: %d\n", max(1, bye.RetryAfter.Milliseconds()))
	}
	return c.appendEvent(dst, "bye", bye.Append(nil))
}

// appendData ends an event of an event stream. JSON has no line breaks, so it is one line.
func appendData(dst, payload []byte) []byte {
	dst = append(dst, "\ndata: "...)
	dst = append(dst, payload...)
	return append(dst, "\n\n"...)
}

// appendPing appends what makes a client show that it lives and has read what came before, or a proxy leave the connection open.
func (c codec) appendPing(dst, payload []byte) []byte {
	if c == sse {
		return append(dst, ":\n\n"...)
	}
	return socket.AppendPing(dst, payload)
}

// appendClose appends what ends the connection.
func (c codec) appendClose(dst []byte, code int, reason string) []byte {
	if c == sse {
		return dst // it ends with the connection
	}
	return socket.AppendClose(dst, code, reason)
}

// An appender is a frame of package wire.
type appender interface{ Append(dst []byte) []byte }
