// Package judge compares what clients of a cluster heard with what was acknowledged, with what Redis has still, and with who
// is there. It knows nothing of clients and nodes but what was written down.
package judge

import (
	"slices"
	"time"

	"parley/bus/id"
)

// Words are what a sender said n-th.
type Words struct{ Sender, N int }

// A Room is all that was written down of one room.
type Room struct {
	Name    string
	Acked   map[Words]Ack
	Open    map[Words]bool  // said, and never answered, since the sender left: it is in the room, or not
	Known   map[id.ID]Words // what was seen in the log at any time; what was acknowledged or heard is known without it
	Kept    map[id.ID]bool  // what the log has at the end
	Lost    []time.Time     // when the log lost something, and had lost it
	Members []Member
	Lists   []List // who is there at the end, as nodes answer
}

// lostSince reports whether the log had not lost all that it lost by then.
func (r *Room) lostSince(t time.Time) bool {
	return slices.ContainsFunc(r.Lost, func(lost time.Time) bool { return lost.After(t) })
}

// An Ack is the answer to what was said.
type Ack struct {
	ID id.ID
	At time.Time
}

// A Member is a client in a room, over all its connections.
type Member struct {
	Name string
	User string // its id to others
	Gone bool   // it left for good
	List List   // who is there at the end, as it was told
	Told []Event
}

// A List is who is there, as somebody has it.
type List struct {
	Of    string
	Users map[string]bool
}

// An Event is something that a member was told, in the order told.
type Event struct {
	Kind Kind
	At   time.Time
	Words
	ID        id.ID     // of Message; of Joined the room's newest; of Gap the one that it follows
	Since     *id.ID    // of Joined: where it was to go on
	Recovered *bool     // of Joined
	Asked     time.Time // of Joined: when it had not been asked for yet
}

// Kind is an event's kind.
type Kind int

const (
	Message Kind = iota
	Gap
	Joined
	Live
)
