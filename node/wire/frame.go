package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"parley/bus/id"
)

// A Frame is any frame of a server, as a client reads it: Op says which fields are set.
type Frame struct {
	Op   string          `json:"op"`
	Req  json.RawMessage `json:"req"`
	Room string          `json:"room"`

	// Welcome; User is in presence and signal too.
	User    User   `json:"user"`
	Session string `json:"session"`
	Node    string `json:"node"`
	Version string `json:"version"`
	Ping    int    `json:"ping"`
	Limits  Limits `json:"limits"`

	Entry // message, and ID the answer to send

	// Answers to join, members and history; Members, Count and Presence are in presence too.
	Last      id.ID    `json:"last"`
	Recovered *bool    `json:"recovered"`
	Members   []Member `json:"members"`
	Count     int      `json:"count"`
	Presence  uint64   `json:"presence"`
	Messages  []Entry  `json:"messages"`
	More      bool     `json:"more"`

	After id.ID  `json:"after"` // gap
	Event string `json:"event"` // presence
	Kind  string `json:"kind"`  // signal

	// Error and bye, which share the name code for two things.
	Code       Code          `json:"-"` // of error
	Close      int           `json:"-"` // of bye: the close code
	Message    string        `json:"message"`
	Reason     string        `json:"reason"`
	RetryAfter time.Duration `json:"-"`
}

// An Entry is a message of a room. Data is in signal too.
type Entry struct {
	ID   id.ID           `json:"id"`
	From Member          `json:"from"`
	Text string          `json:"text"`
	Data json.RawMessage `json:"data"`
	Key  string          `json:"key"`
	At   int64           `json:"at"` // milliseconds since 1970
}

// ParseFrame reads a server's frame. Unknown ops and fields are no errors: a newer server may have them.
func ParseFrame(b []byte) (Frame, error) {
	var f struct {
		Frame
		Code       json.RawMessage `json:"code"`
		RetryAfter int64           `json:"retry_after"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return Frame{}, fmt.Errorf("read a frame: %w", err)
	}
	var err error
	switch f.Op {
	case "":
		err = errors.New("it has no op")
	case "error":
		err = json.Unmarshal(f.Code, &f.Frame.Code)
	case "bye":
		err = json.Unmarshal(f.Code, &f.Close)
	}
	if err != nil {
		return Frame{}, fmt.Errorf("read a frame: %w", err)
	}
	f.Frame.RetryAfter = time.Duration(f.RetryAfter) * time.Millisecond
	return f.Frame, nil
}

// Err is the error that an error frame tells.
func (f *Frame) Err() *Error {
	return &Error{Code: f.Code, Message: f.Message, RetryAfter: f.RetryAfter}
}

// Opcodes of WebSocket frames (RFC 6455 section 5.2).
const (
	OpText  = 1
	OpClose = 8
	OpPing  = 9
	OpPong  = 10
)

// AppendHeader appends the header of a server's whole, unmasked frame with n bytes of payload (RFC 6455 section 5.2).
func AppendHeader(dst []byte, opcode byte, n int) []byte {
	const fin = 0x80
	dst = append(dst, fin|opcode)
	switch {
	case n < 126:
		return append(dst, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
}
