package client

import (
	"encoding/json"

	"parley/bus/id"
	"parley/node/wire"
)

// ID is a message's id.
type ID = id.ID

// An Event is what happens in a room: Joined, Message, Live, Gap, Presence, Signal or Left.
type Event interface{ event() }

// Joined says that the client is in the room, for the first time or again. What it missed follows, then Live.
type Joined struct {
	Last      ID    // the room's newest
	Recovered *bool // nil the first time; whether nothing is missing of what was said meanwhile
	Members   []wire.Member
	Count     int
}

// Message was said in the room. Each comes once, in the room's order.
type Message struct {
	wire.Entry
	Mine bool // this user said it, over this client or another
	Live bool // it is new, not what was missed or from before
}

// Live says that everything missed has come.
type Live struct{}

// Gap says that what followed an id is lost, or not kept any more. What the log has since follows, or the newest messages where it was
// trimmed, and their order starts anew.
type Gap struct {
	After ID
	Last  ID // what the log has after it follows
}

// Presence says that who is there has changed.
type Presence struct {
	Event   string        // one of wire's, such as wire.EventJoin
	User    wire.Member   // of a join, a leave or an update
	Members []wire.Member // of a sync
	Count   int
	Version uint64
}

// Signal is somebody's, such as that they are typing.
type Signal struct {
	Kind string
	User wire.Member
	Data json.RawMessage
}

// Left says that the node has taken the client out of the room, or does not let it in again, and why. What is not acknowledged gets
// the same error; the room is the client's no more.
type Left struct{ Err *wire.Error }

func (Joined) event()   {}
func (Message) event()  {}
func (Live) event()     {}
func (Gap) event()      {}
func (Presence) event() {}
func (Signal) event()   {}
func (Left) event()     {}
