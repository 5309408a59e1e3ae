package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"parley/bus/id"
)

// A Frame is any frame of a server, as a client reads it: Op says which fields are set.
type Frame struct {
	Op   string
	Req  json.RawMessage
	Room string

	// Welcome; User is in presence and signal too.
	User    User
	Named   int64 // when the name was chosen, in ms since 1970
	Session string
	Stream  string
	Node    string
	Version string
	Ping    int // seconds
	Limits  Limits
	Expires time.Duration

	Entry // message; ID is in the answer to send too, Data in signal

	// The answers to join, members and history; Members, Count and Presence are in presence too.
	Last      id.ID
	Recovered *bool
	Members   []Member
	Count     int
	Presence  uint64
	Messages  []Entry
	More      bool

	After id.ID  // gap
	Event string // presence
	Kind  string // signal

	// Error, left and bye, where "code" stands for two things.
	Code       Code   // of error and left
	Close      int    // of bye
	Message    string // of error and left
	Reason     string // of bye
	RetryAfter time.Duration
}

// An Entry is a message of a room.
type Entry struct {
	ID   id.ID           `json:"id"`
	From Member          `json:"from"`
	Text string          `json:"text,omitempty"`
	Data json.RawMessage `json:"data,omitempty"`
	Key  string          `json:"key,omitempty"`
	At   int64           `json:"at"` // milliseconds since 1970
}

// frameDepth is how deep a frame may be nested: data within an entry within a list.
const frameDepth = MaxDepth + 2

// ParseFrame reads a server's frame. The Frame refers to nothing in b. Unknown ops and fields are no errors: a newer server
// may have them.
func ParseFrame(b []byte) (Frame, error) {
	var f Frame
	var code []byte
	var bad error
	last := false
	s := scanner{b: b}
	s.space()
	err := s.fields(frameDepth, func(name, value []byte) {
		last = last || string(name) == "last"
		if string(name) == "code" {
			code = value
		} else if err := read(value, f.field(name)); err != nil {
			bad = fmt.Errorf("read the %s of a frame: %w", name, err)
		}
	})
	s.space()
	switch {
	case err != nil:
		return f, errors.New("read a frame: " + err.Message)
	case bad != nil:
		return f, bad
	case s.i < len(b) || f.Op == "":
		return f, errors.New("read a frame: it is not one JSON object with an op")
	case f.Op == "gap" && !last:
		f.Last = f.After // an older server does not say the last, which may be 0-0
	case code == nil:
	case f.Op == "error" || f.Op == "left":
		bad = read(code, (*string)(&f.Code))
	case f.Op == "bye":
		bad = read(code, &f.Close)
	}
	if bad != nil {
		return f, fmt.Errorf("read the code of a frame: %w", bad)
	}
	return f, nil
}

// field is where a field's value belongs, nil if there is none of that name.
func (f *Frame) field(name []byte) any {
	switch string(name) {
	case "op":
		return &f.Op
	case "req":
		return &f.Req
	case "room":
		return &f.Room
	case "user":
		return &f.User
	case "named":
		return &f.Named
	case "session":
		return &f.Session
	case "stream":
		return &f.Stream
	case "expires":
		return &f.Expires
	case "node":
		return &f.Node
	case "version":
		return &f.Version
	case "ping":
		return &f.Ping
	case "limits":
		return &f.Limits
	case "id":
		return &f.ID
	case "from":
		return &f.From
	case "text":
		return &f.Text
	case "data":
		return &f.Data
	case "key":
		return &f.Key
	case "at":
		return &f.At
	case "last":
		return &f.Last
	case "recovered":
		return &f.Recovered
	case "members":
		return &f.Members
	case "count":
		return &f.Count
	case "presence":
		return &f.Presence
	case "messages":
		return &f.Messages
	case "more":
		return &f.More
	case "after":
		return &f.After
	case "event":
		return &f.Event
	case "kind":
		return &f.Kind
	case "message":
		return &f.Message
	case "reason":
		return &f.Reason
	case "retry_after":
		return &f.RetryAfter
	}
	return nil
}

// mostMillis bounds what is believed of a time, to a century: a token may last for years.
const mostMillis = 100 * 365 * 24 * 3600 * 1000

// read decodes a value that the scanner has passed. What is in nearly every frame does not go through encoding/json.
func read(raw []byte, into any) error {
	if into == nil || string(raw) == "null" {
		return nil
	}
	switch into := into.(type) {
	case *string:
		if raw[0] != '"' {
			return errors.New("it must be a string")
		}
		*into = strings.ToValidUTF8(string(unquote(raw)), "\uFFFD")
		return nil
	case *json.RawMessage:
		*into = bytes.Clone(raw)
		return nil
	case *int64:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		*into = n
		return err
	case *time.Duration:
		ms, err := strconv.ParseUint(string(raw), 10, 64)
		*into = time.Duration(min(ms, mostMillis)) * time.Millisecond
		return err
	case *Member:
		return readMember(raw, into)
	case *Info:
		return into.UnmarshalJSON(raw)
	case *id.ID:
		if raw[0] != '"' {
			return id.ErrSyntax
		}
		return into.UnmarshalText(unquote(raw))
	}
	return json.Unmarshal(raw, into)
}

func readMember(raw []byte, m *Member) (bad error) {
	s := scanner{b: raw}
	err := s.fields(frameDepth, func(name, value []byte) {
		switch string(name) {
		case "id":
			bad = errors.Join(bad, read(value, &m.ID))
		case "name":
			bad = errors.Join(bad, read(value, &m.Name))
		case "info":
			bad = errors.Join(bad, read(value, &m.Info))
		}
	})
	if err != nil {
		return errors.New(err.Message)
	}
	return bad
}

// Err is the error that an error frame tells, fit to be shown.
func (f *Frame) Err() *Error {
	return &Error{Code: Code(Harmless(string(f.Code))), Message: Harmless(f.Message), RetryAfter: f.RetryAfter}
}

// Opcodes of WebSocket frames (RFC 6455 section 5.2).
const (
	OpContinuation = 0
	OpText         = 1
	OpBinary       = 2
	OpClose        = 8
	OpPing         = 9
	OpPong         = 10
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
