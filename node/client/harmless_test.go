package client

import (
	"testing"
	"unicode"

	"github.com/coder/websocket"

	"parley/node/wire"
)

// What a node says of an error goes to terminals and logs.
func TestErrorsOfAHostileNodeAreHarmless(t *testing.T) {
	const evil = "gone \x1b]0;owned\x07\r\n\u202eback\u009b2J"
	bye := &wire.Frame{Op: "bye", Close: wire.StatusKicked, Reason: evil}
	refusal := &wire.Frame{Op: "error", Code: evil, Message: evil}
	for _, err := range []error{
		lossOf(websocket.CloseError{Code: wire.StatusKicked, Reason: evil}, nil, nil).err,
		lossOf(websocket.CloseError{}, bye, nil).err,
		lossOf(refusal.Err(), nil, nil).err,
	} {
		for _, r := range err.Error() {
			if unicode.IsControl(r) || r == '\u202e' {
				t.Errorf("%q has %U", err, r)
				break
			}
		}
	}
}
