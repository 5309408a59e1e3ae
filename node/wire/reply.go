package wire

import (
	"encoding/json"
	"strconv"
	"time"

	"parley/bus/id"
)

// The frames that a server sends, but for message and signal, which are spliced from bodies. Append gives each as JSON. A
// nil Req is left out.

// Welcome is the first frame, and the answer to hello.
type Welcome struct {
	Req     json.RawMessage
	User    User
	Named   int64 // when the name was chosen, in ms since 1970
	Session string
	Stream  string        // of an event stream of several rooms
	Expires time.Duration // until who the session is ends; zero for never
	Node    string
	Version string
	Ping    int // seconds between the server's pings
	Limits  Limits
}

// Limits are told in Welcome: bytes, but for Depth, Page and Rooms.
type Limits struct {
	Frame int `json:"frame"`
	Text  int `json:"text"`
	Room  int `json:"room"`
	Name  int `json:"name"`
	Key   int `json:"key"`
	Kind  int `json:"kind"`
	Req   int `json:"req"`
	Depth int `json:"depth"`
	Page  int `json:"page"`
	Rooms int `json:"rooms"`
}

// LimitsOf are the limits of this package, and those that a node may choose: of a text, and of a connection's rooms (0 is none).
func LimitsOf(maxText, maxRooms int) Limits {
	return Limits{
		Frame: MaxFrame, Text: maxText, Room: MaxRoom, Name: MaxName, Key: MaxKey, Kind: MaxKind, Req: MaxReq,
		Depth: MaxDepth, Page: MaxPage, Rooms: maxRooms,
	}
}

// Append gives the frame.
func (f Welcome) Append(dst []byte) []byte {
	o := open(dst, "welcome")
	o.raw("req", f.Req)
	o.name("user")
	user := object{append(o.b, '{')}
	user.str("id", f.User.ID)
	user.str("name", f.User.Name)
	user.bool("guest", f.User.Guest)
	user.info(f.User.Info)
	o.b = user.end()
	o.int("named", f.Named)
	o.str("session", f.Session)
	o.strIf("stream", f.Stream)
	o.millis("expires", f.Expires)
	o.str("node", f.Node)
	o.str("version", f.Version)
	o.int("ping", int64(f.Ping))
	o.name("limits")
	limits, _ := json.Marshal(f.Limits) // integers only: it cannot fail
	o.b = append(o.b, limits...)
	return o.end()
}

// OK is the answer to leave, signal and ping.
type OK struct{ Req json.RawMessage }

// Append gives the frame.
func (f OK) Append(dst []byte) []byte {
	o := open(dst, "ok")
	o.raw("req", f.Req)
	return o.end()
}

// Joined is the answer to join.
type Joined struct {
	Req       json.RawMessage
	Room      string
	Last      id.ID // the room's newest
	Recovered *bool // only if the join had a since
	Members   []Member
	Count     int
	Presence  uint64 // the roster's version
}

// Append gives the frame.
func (f Joined) Append(dst []byte) []byte {
	o := open(dst, "ok")
	o.raw("req", f.Req)
	o.str("room", f.Room)
	o.id("last", f.Last)
	if f.Recovered != nil {
		o.bool("recovered", *f.Recovered)
	}
	o.roster(f.Members, f.Count, f.Presence)
	return o.end()
}

func (o *object) roster(members []Member, count int, version uint64) {
	o.members("members", members)
	o.int("count", int64(count))
	o.uint("presence", version)
}

func (o *object) uint(name string, n uint64) {
	o.name(name)
	o.b = strconv.AppendUint(o.b, n, 10)
}

// Sent is the answer to send.
type Sent struct {
	Req json.RawMessage
	ID  id.ID
}

// Append gives the frame.
func (f Sent) Append(dst []byte) []byte {
	o := open(dst, "ok")
	o.raw("req", f.Req)
	o.id("id", f.ID)
	return o.end()
}

// History is the answer to history.
type History struct {
	Req      json.RawMessage
	Room     string
	Messages [][]byte // each as AppendEntry gives it, oldest first
	More     bool     // there are older ones
}

// Append gives the frame.
func (f History) Append(dst []byte) []byte {
	o := open(dst, "ok")
	o.raw("req", f.Req)
	o.str("room", f.Room)
	o.name("messages")
	o.b = append(o.b, '[')
	for i, m := range f.Messages {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = append(o.b, m...)
	}
	o.b = append(o.b, ']')
	o.bool("more", f.More)
	return o.end()
}

// Members is the answer to members.
type Members struct {
	Req      json.RawMessage
	Room     string
	Members  []Member
	Count    int
	Presence uint64
}

// Append gives the frame.
func (f Members) Append(dst []byte) []byte {
	o := open(dst, "ok")
	o.raw("req", f.Req)
	o.str("room", f.Room)
	o.roster(f.Members, f.Count, f.Presence)
	return o.end()
}

// Live says that the backlog is done.
type Live struct{ Room string }

// Append gives the frame.
func (f Live) Append(dst []byte) []byte {
	o := open(dst, "live")
	o.str("room", f.Room)
	return o.end()
}

// Gap says that what followed an id is lost, or not in the log any more.
type Gap struct {
	Room  string
	After id.ID
	Last  id.ID // what the log has after it follows: it is a since for who is cut off now
}

// Append gives the frame.
func (f Gap) Append(dst []byte) []byte {
	o := open(dst, "gap")
	o.str("room", f.Room)
	o.id("after", f.After)
	o.id("last", f.Last)
	return o.end()
}

// Events of Presence.
const (
	EventJoin   = "join"   // User came
	EventLeave  = "leave"  // User went
	EventUpdate = "update" // User has another name
	EventCount  = "count"  // only Count is told, in a large room
	EventSync   = "sync"   // Members is the list anew
)

// Presence tells a change in who is there.
type Presence struct {
	Room     string
	Event    string
	User     *Member  // of join and leave
	Members  []Member // of sync
	Count    int
	Presence uint64
}

// Append gives the frame.
func (f Presence) Append(dst []byte) []byte {
	o := open(dst, "presence")
	o.str("room", f.Room)
	o.str("event", f.Event)
	if f.User != nil {
		o.member("user", *f.User)
	}
	if f.Event == EventSync {
		o.members("members", f.Members)
	}
	o.int("count", int64(f.Count))
	o.uint("presence", f.Presence)
	return o.end()
}

// Left says that the session is in a room no more, without having asked to leave.
type Left struct {
	Room string
	Err  *Error
}

// Append gives the frame.
func (f Left) Append(dst []byte) []byte {
	o := open(dst, "left")
	o.str("room", f.Room)
	o.str("code", string(f.Err.Code))
	o.str("message", f.Err.Message)
	return o.end()
}

// Reject is the error frame.
type Reject struct {
	Req json.RawMessage
	Err *Error
}

// Append gives the frame.
func (f Reject) Append(dst []byte) []byte {
	o := open(dst, "error")
	o.raw("req", f.Req)
	o.str("code", string(f.Err.Code))
	o.str("message", f.Err.Message)
	o.millis("retry_after", f.Err.RetryAfter)
	return o.end()
}

// Bye announces a close.
type Bye struct {
	Code       int // the close code
	Reason     string
	RetryAfter time.Duration
}

// Append gives the frame.
func (f Bye) Append(dst []byte) []byte {
	o := open(dst, "bye")
	o.int("code", int64(f.Code))
	o.str("reason", f.Reason)
	o.millis("retry_after", f.RetryAfter)
	return o.end()
}

// millis rounds up, and leaves the field out if d is zero.
func (o *object) millis(name string, d time.Duration) {
	if d > 0 {
		o.int(name, int64((d+time.Millisecond-1)/time.Millisecond))
	}
}
