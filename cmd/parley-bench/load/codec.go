package load

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// handshakeKey is every connection's Sec-WebSocket-Key, and handshakeAccept the answer to it (RFC 6455, section 4.2.2).
const handshakeKey = "cGFybGV5IGJlbmNoIGtleQ=="

var handshakeAccept = func() string {
	sum := sha1.Sum([]byte(handshakeKey + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}()

func appendHandshake(dst []byte, t target, codec, room string) []byte {
	dst = append(dst, "GET "+t.path(codec, room)+" HTTP/1.1\r\nHost: "+t.url.Host+
		"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+handshakeKey+"\r\n"...)
	if codec != Text {
		dst = append(dst, "Sec-WebSocket-Protocol: "+codec+"\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// cutHandshake reads the answer to a handshake at the beginning of b, and returns how long it is: 0 if there is more to come.
func cutHandshake(b []byte, codec string) (n int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > 8<<10 {
			return 0, errors.New("the answer to the handshake has no end")
		}
		return 0, nil
	}
	status, fields, _ := strings.Cut(string(b[:end]), "\r\n")
	if !strings.HasPrefix(status, "HTTP/1.1 101") {
		return 0, fmt.Errorf("the server answers the handshake with %q", status)
	}
	accepted, protocol := "", ""
	for line := range strings.SplitSeq(fields, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(name) {
		case "sec-websocket-accept":
			accepted = strings.TrimSpace(value)
		case "sec-websocket-protocol":
			protocol = strings.TrimSpace(value)
		}
	}
	if accepted != handshakeAccept {
		return 0, errors.New("the server's Sec-WebSocket-Accept is wrong")
	}
	if codec != Text && protocol != codec {
		return 0, fmt.Errorf("the server does not speak %s", codec)
	}
	return end + 4, nil
}

// joinRequest ties the answer to a join; those of sends are numbers.
const joinRequest = `"join"`

// appendJoin appends a room's join in parley.v1. Room names need no escaping.
func appendJoin(dst []byte, room string) []byte {
	return append(dst, `{"op":"join","req":`+joinRequest+`,"room":"`+room+`","limit":0}`...)
}

// appendSend appends the send of a connection's message seq in parley.v1, up to the text.
func appendSend(dst []byte, room string, seq uint64) []byte {
	dst = append(dst, `{"op":"send","req":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, `,"key":"`...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, `","room":"`...)
	dst = append(dst, room...)
	return append(dst, `","text":"`...)
}

// appendSaid appends a message as parley.v1 brings it to the members of its room, up to the text: what the floor writes.
func appendSaid(dst []byte, room string) []byte {
	return append(dst, `{"op":"message","room":"`+room+`","id":"1763812800000-12345",`+
		`"from":{"id":"guest-0123456789abcdef","name":"guest-0123"},"at":1763812800000,"key":"123456","text":"`...)
}

// A reply is what a server says besides messages.
type reply struct {
	Op      string          `json:"op"`
	Req     json.RawMessage `json:"req"`
	Code    json.RawMessage `json:"code"` // a word in an error, a number in a bye
	Message string          `json:"message"`
	Reason  string          `json:"reason"`
}

// parseReply reads a reply. The answer to a send, the only frequent one, costs nothing if it begins as our servers write it.
func parseReply(msg []byte) (reply, error) {
	if digits, ok := bytes.CutPrefix(msg, okPrefix); ok {
		if n := bytes.IndexAny(digits, ",}"); n > 0 && digits[0] != '"' {
			return reply{Op: "ok", Req: json.RawMessage(digits[:n])}, nil
		}
	}
	var r reply
	if err := json.Unmarshal(msg, &r); err != nil {
		return reply{}, fmt.Errorf("the server's message %.60q: %w", msg, err)
	}
	return r, nil
}

var okPrefix = []byte(`{"op":"ok","req":`)

// request returns the number of the send that a reply answers.
func (r reply) request() (seq uint64, ok bool) {
	if len(r.Req) == 0 || len(r.Req) > 18 {
		return 0, false
	}
	for _, d := range r.Req {
		if d < '0' || d > '9' {
			return 0, false
		}
		seq = 10*seq + uint64(d-'0')
	}
	return seq, true
}
