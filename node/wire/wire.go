// Package wire is what travels between clients and nodes, and inside the bodies that nodes pass to each other: parley.v1,
// JSON in WebSocket text messages, and plain text. README.md beside this file is the protocol's document; a test keeps the
// two in step.
package wire

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Subprotocol is what a client offers in Sec-WebSocket-Protocol to speak JSON. Without any it speaks plain text.
const Subprotocol = "parley.v1"

// Limits of what a client may say. All but MaxDepth, DefaultBacklog and MaxPage are in bytes.
const (
	MaxFrame = 64 << 10 // one WebSocket message
	MaxRoom  = 128      // a room's name
	MaxKey   = 64       // an idempotency key
	MaxName  = 64       // a user's name
	MaxKind  = 32       // a signal's kind
	MaxReq   = 128      // a request's req, as written
	MaxDepth = 32       // arrays and objects within each other, in any field

	DefaultBacklog = 50  // messages that follow a join without a limit of its own
	MaxPage        = 200 // messages that a join's backlog or a history may ask for; members that a list names
)

// Close codes: those of RFC 6455 section 7.4.1 and its registry that are used here, and our own from 4000 on.
const (
	StatusNormal      = 1000
	StatusGoingAway   = 1001
	StatusProtocol    = 1002 // not as RFC 6455 has it
	StatusUnsupported = 1003 // a binary message
	StatusNone        = 1005 // never sent: the close that came had no code
	StatusAbnormal    = 1006 // never sent: the connection ended without a close
	StatusNotUTF8     = 1007
	StatusPolicy      = 1008
	StatusTooBig      = 1009
	StatusInternal    = 1011
	StatusRestart     = 1012 // the node hands its clients over: come back
	StatusOverload    = 1013 // too many clients, or the bus is away: come back later
	StatusNoToken     = 4401 // no token where one is needed, or it has expired
	StatusKicked      = 4403 // kicked or banned
	StatusStalled     = 4408 // the client took nothing for too long
)

// A Code says in one word what is wrong with a request.
type Code string

// The codes.
const (
	BadRequest   Code = "bad_request"
	Unauthorized Code = "unauthorized"
	Expired      Code = "expired"
	Forbidden    Code = "forbidden"
	NotJoined    Code = "not_joined"
	NotFound     Code = "not_found"
	Conflict     Code = "conflict"
	TooLarge     Code = "too_large"
	RateLimited  Code = "rate_limited"
	Unavailable  Code = "unavailable"
	Unsupported  Code = "unsupported"
)

// An Error is the answer to a request that was not done.
type Error struct {
	Code       Code
	Message    string        // for people: what is wrong, and what is allowed
	RetryAfter time.Duration // where it helps; otherwise zero
}

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// ErrNotUTF8 is what Parse and CheckText return for what is not UTF-8.
var ErrNotUTF8 = Errorf(BadRequest, "what is said has to be valid UTF-8")

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// A User is who a session speaks for.
type User struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Guest bool   `json:"guest"`
	Info  Info   `json:"info,omitempty"`
}

// A Member is a user as others see it.
type Member struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Info Info   `json:"info,omitempty"`
}

// CheckRoom says what is wrong with a room's name: it is 1 to MaxRoom bytes of UTF-8 without control characters.
func CheckRoom(room string) *Error {
	if room == "" {
		return Errorf(BadRequest, "the room has no name: a room is 1 to %d bytes", MaxRoom)
	}
	return checkLine("room", room, MaxRoom)
}

// CheckName says what is wrong with a user's name: it is at most MaxName bytes of UTF-8 without control characters, and
// may be empty.
func CheckName(name string) *Error { return checkLine("name", name, MaxName) }

// CheckText says what is wrong with a message's text: it is at most limit bytes of UTF-8.
func CheckText(text string, limit int) *Error {
	if !utf8.ValidString(text) {
		return ErrNotUTF8
	}
	return checkSize(text, limit)
}

func checkSize(text string, limit int) *Error {
	if len(text) > limit {
		return Errorf(TooLarge, "text is %d bytes: at most %d are allowed", len(text), limit)
	}
	return nil
}

// checkLine is for what is shown in one line.
func checkLine(what, s string, limit int) *Error {
	if len(s) > limit {
		return Errorf(BadRequest, "%s is %d bytes: at most %d are allowed", what, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return Errorf(BadRequest, "%s is not valid UTF-8", what)
	}
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return Errorf(BadRequest, "%s has the control character U+%04X: none are allowed", what, r)
		}
	}
	return nil
}

// Harmless is what somebody else wrote as one line that does nothing to a terminal: without control characters, breaks of line, and
// what turns the direction of text that is not its own.
func Harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || '\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069' {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
