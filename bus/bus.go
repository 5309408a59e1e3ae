// Package bus carries what is said in rooms between the nodes of a cluster, and keeps it for a while.
//
// A room's log is a chain: each message names the one before it. A Bus repairs from the log what the transport lost, and hands
// every subscriber the unbroken chain, or a break that says where it is broken. It tells every loss.
//
// Two packages keep the same promises, those of the suite in bustest: memory, for a node alone, and redis.
package bus

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"parley/bus/id"
)

// ID is a message's id.
type ID = id.ID

var (
	// ErrUnavailable means that the outcome is unknown: the bus did not answer in time. Repeat with the same key.
	ErrUnavailable = errors.New("the message bus does not answer")
	// ErrConflict means that the idempotency key was used before, for another content.
	ErrConflict = errors.New("the key was used before for another content")
	// ErrClosed is what calls after Close get.
	ErrClosed = errors.New("the message bus is closed")
)

// A Bus is one node's handle. All methods may be called concurrently.
type Bus interface {
	Board

	// Publish and Signal are as those of Subscription, in a room that the caller need not be subscribed to. A subscriber uses
	// its Subscription: that spares looking up the room.
	Publish(room string, d Draft, done func(ID, error))
	Signal(room string, body []byte, done func(error))

	// Subscribe hands the room to sink until the subscription is closed. It returns once nothing can be missed any more:
	// everything published after it returns reaches the sink. One handle subscribes to a room at most once at a time.
	Subscribe(ctx context.Context, room string, sink Sink) (Subscription, error)

	// After reads at most limit messages that follow since, oldest first: about as many as have so many bytes, one at least; 0 bytes
	// means any number.
	After(ctx context.Context, room string, since ID, limit, bytes int) (Page, error)

	// Before reads the newest at most limit messages before an id, oldest first; before the zero ID means the newest of all. The bytes
	// are as for After.
	Before(ctx context.Context, room string, before ID, limit, bytes int) (Page, error)

	// Roster reads who is in a room, subscribed or not.
	Roster(ctx context.Context, room string) (Roster, error)

	// Ready reports why the bus can't be relied on now: nil, or what is wrong, such as being deaf since 7 s.
	Ready() error

	// HeartbeatAge is how long ago the bus last proved that what is published arrives here. Zero for a bus in memory.
	HeartbeatAge() time.Duration

	// Close leaves all rooms and settles what is being published. Sinks are not called any more once it returns.
	Close() error
}

// A Subscription is one room, handed to one sink.
type Subscription interface {
	// Last is the room's newest id when Subscribe returned, zero in an empty room. What follows it is delivered.
	Last() ID

	// Publish appends a draft to the room's log and hands it to every subscriber of the room, over all nodes.
	// It never blocks. done is called exactly once, from any goroutine and possibly before Publish returns, and must not
	// block: with the message's id (for a repeated key the first one's), or with an error that is ErrUnavailable,
	// ErrConflict or ErrClosed. Drafts published into one room one after the other keep that order.
	Publish(d Draft, done func(ID, error))

	// Signal hands body to every subscriber of the room and keeps nothing. It never blocks; done is as for Publish.
	Signal(body []byte, done func(error))

	// Enter makes a user a member of the room through this node, until Leave. It never blocks: the bus sees to it that it
	// takes effect, however often the connection breaks, and the change then reaches every sink. Entering again only
	// changes the name, if it was chosen later than the one at hand: over all handles, the name chosen last counts, even
	// when the handle that brought it has left. Callers count a user's connections: one Leave undoes any number of Enters.
	Enter(m Member)
	Leave(user string)

	// Sync returns once everything that was acknowledged in the room before the call, over any node, has been delivered to the
	// sink, or told to be lost. Its error is ErrUnavailable, or ErrClosed. Like Close it must not be called from the sink.
	Sync(ctx context.Context) error

	// Roster is the membership as this node knows it, without asking anyone. Who enters or leaves here is in it, or out of
	// it, once that has taken effect, which every sink is then told: what follows on a roster makes it the next one.
	Roster() Roster

	// Close ends the subscription; those who entered through it leave. The sink is not called any more once it returns,
	// so it must not be called from the sink.
	Close()
}

// A Sink takes what happens in one room. The bus calls it from one goroutine at a time, which serves other rooms too: the
// methods must not block, and must not call the Subscription's Close. It may be called before Subscribe has returned, whatever
// that returns then.
type Sink interface {
	// Deliver takes the next message of the chain, or a break in it. Bodies may be kept, but not written to.
	Deliver(m Message)
	Signal(body []byte)
	Presence(c Change)
}

// A Draft is a message that has no id yet.
type Draft struct {
	Body []byte // opaque to the bus; it must not be changed after Publish
	Key  Key    // the idempotency key; the zero Key means none
	Sum  uint64 // a hash of the content: the same key with another sum is a conflict
}

// Key names a send across repeats of it.
type Key [16]byte

// KeyOf hashes a user and the key that it gave into one Key. No two pairs collide.
func KeyOf(user, key string) Key {
	h := sha256.New()
	h.Write(binary.AppendUvarint(nil, uint64(len(user))))
	h.Write([]byte(user))
	h.Write([]byte(key))
	var k Key
	copy(k[:], h.Sum(nil))
	return k
}

// A Message is an entry of a room's log.
type Message struct {
	ID   ID
	Prev ID // the id of the entry before it

	// Break marks an entry that is no message, but says that what followed the id Lost is lost. The order starts anew: what
	// comes next may have ids at or below those seen before. Its ID is where reading the log goes on; Body is nil.
	//
	// Marker is the break's own entry in the log, zero for what was only trimmed away. A sink may be told of a break before its
	// entry comes by: then ID is less than Marker, and the entry comes in its place, with the same Marker. Whoever has less
	// than Marker may lack something, whatever the chain says.
	Break  bool
	Lost   ID
	Marker ID

	// Unsettled says, of what a sink is given, that an acknowledgement takes more than this message's having come: only the done of its
	// Publish tells.
	Unsettled bool

	Body []byte
}

// A Page is a part of a room's log.
type Page struct {
	Messages []Message // oldest first, breaks included
	Last     ID        // the room's newest id at the time of the read
	More     bool      // there is more in the log, in the direction of reading

	// Complete says, of After, that nothing between since and the page is missing, and LastBreak which is the newest break
	// in the log (zero for none): a resume is whole if it is complete and since is not before LastBreak.
	Complete  bool
	LastBreak ID
}

// A Member is a user in a room.
type Member struct {
	ID   string
	Name string // what others see of him, opaque to the bus

	// Named says, of Enter, when the name was chosen, in ms since 1970 by the clock of the bus; zero means now. It is zero
	// wherever a bus names a member.
	Named int64
}

// A Roster is who is in a room. Nobody changes its Members: who asks again is given the same list as long as it holds.
type Roster struct {
	Members []Member // in no order; RosterMax at most
	Count   int      // of all
	Version uint64   // rises with every change, but starts anew where the bus lost its memory
}

// RosterMax bounds the members that a Roster lists.
const RosterMax = 200

// ChangeKind says what a Change is.
type ChangeKind byte

// The kinds of change.
const (
	Joined ChangeKind = iota + 1
	Left
	Synced  // too many changes were missed to tell them one by one: the sink reads the roster anew
	Renamed // a member has another name, that of Member
)

// A Change is one change of a room's roster. Changes reach a sink in order; the bus makes up for those that the transport lost.
type Change struct {
	Kind    ChangeKind
	Member  Member // unset for Synced
	Count   int    // members after the change
	Version uint64
}

// Retention bounds what a room's log keeps.
type Retention struct {
	Size int           // messages; default 5,000. A little more may be kept.
	Age  time.Duration // default 24 h

	// Bytes is how much memory the log may take; default 32 MiB. It may take some more for a moment, and the newest message stays.
	Bytes int
}

// WithDefaults fills in what is zero.
func (r Retention) WithDefaults() Retention {
	if r.Size == 0 {
		r.Size = 5000
	}
	if r.Bytes == 0 {
		r.Bytes = 32 << 20
	}
	if r.Age == 0 {
		r.Age = 24 * time.Hour
	}
	return r
}

// An Observer is told what a bus went through. Its methods are called often and must be cheap.
type Observer interface {
	Published(took time.Duration, err error) // a Publish was settled
	Repaired(messages int)                   // a room was made whole from the log, with so many messages that had not arrived
	Broken()                                 // a break was found and will be told
	Reconnected()                            // a connection for what is said was lost or given up, and replaced
}

// NoObserver ignores what it is told.
type NoObserver struct{}

func (NoObserver) Published(time.Duration, error) {}
func (NoObserver) Repaired(int)                   {}
func (NoObserver) Broken()                        {}
func (NoObserver) Reconnected()                   {}
