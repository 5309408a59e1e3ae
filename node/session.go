package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"parley/node/socket"
	"parley/node/wire"
)

// A session is what one client's connection is to the node. Its requests are handled one after the other, by whoever reads;
// whatever is said to it goes through conn, from any goroutine.
type session struct {
	srv   *Server      // static
	id    uint64       // static; names the connection in what it publishes
	codec codec        // static
	conn  *socket.Conn // static

	// Owned by the reader.
	user  User
	token string
	rooms []*member
	todo  *wire.Request // what has to wait, and comes next

	sends   sends
	leaving atomic.Bool   // a goodbye is on its way: nothing more is taken on
	ended   chan struct{} // closed when the connection has ended

	place    int   // guarded by Server.sessionsMu; in Server.sessions
	nextPing int64 // owned by the sweep; Unix nanoseconds
}

// A closing is why the node ends a connection, as it tells the client.
type closing struct {
	code   int
	reason string
	retry  time.Duration
}

func (s *session) welcome(req json.RawMessage) wire.Welcome {
	cfg := &s.srv.cfg
	return wire.Welcome{
		Req:     req,
		User:    wire.User(s.user),
		Session: s.token,
		Node:    cfg.ID,
		Version: cfg.Version,
		Ping:    int(cfg.PingInterval / time.Second),
		Limits:  wire.LimitsOf(cfg.MaxText),
	}
}

// Ready reports whether there is nothing to do first, and a send more may be without an answer.
func (s *session) Ready() bool { return s.todo == nil && !s.sends.full() }

// Wait does what had to wait.
func (s *session) Wait() {
	if req := s.todo; req != nil {
		s.todo = nil
		s.do(req)
	}
	s.sends.wait(maxOpenSends, s.ended)
}

// TooBig closes the connection.
func (s *session) TooBig() {
	s.end(&closing{code: wire.StatusTooBig, reason: fmt.Sprintf("a message may have %d bytes, in few fragments", wire.MaxFrame)})
}

// Message does what a message asks for, or, if that may have to wait, notes it in todo.
func (s *session) Message(isText bool, frame []byte) bool {
	switch {
	case s.leaving.Load() && s.codec == plain: // the close is on its way
	case !isText:
		s.end(&closing{code: wire.StatusUnsupported, reason: "binary messages are not supported: send text"})
	default:
		s.srv.cfg.Observer.Received(s.codec.String(), len(frame))
		s.handle(frame)
	}
	return s.todo == nil
}

// handle does what a message asks for, or, if that may have to wait, notes it in todo. It keeps nothing of frame.
func (s *session) handle(frame []byte) {
	if !utf8.Valid(frame) { // RFC 6455 section 8.1; browsers drop the connection over which such text is relayed
		s.end(&closing{code: wire.StatusNotUTF8, reason: "text has to be UTF-8"})
		return
	}
	if s.codec == plain {
		s.handlePlain(frame)
		return
	}
	req, bad := wire.Parse(frame, s.srv.cfg.MaxText)
	if bad != nil {
		s.refuse(req.Req, bad)
		return
	}
	switch req.Op {
	case "join", "leave", "history", "members", "hello": // these ask the bus or the Authenticator, or wait for a flush
		s.todo = &req
	default:
		s.do(&req)
	}
}

// handlePlain says a plain message in the client's one room.
func (s *session) handlePlain(frame []byte) {
	text := string(frame)
	if bad := wire.CheckText(text, s.srv.cfg.MaxText); bad != nil {
		s.refuse(nil, bad)
		return
	}
	if text == "" {
		return // there is nothing to say
	}
	s.publish(s.rooms[0].r.sub, &wire.Request{Room: s.rooms[0].r.name, Text: text})
}

// say sends a frame. Plain text has no words for any.
func (s *session) say(op string, f appender) {
	if s.codec == plain {
		return
	}
	b := s.srv.buffers.Get().(*sayBuffers)
	b.payload = f.Append(b.payload[:0])
	b.frame = s.codec.appendEvent(b.frame[:0], op, b.payload)
	s.conn.Put(b.frame)
	s.srv.putBuffers(b)
}

// maxPooled is the largest buffer worth keeping.
const maxPooled = 16 << 10

// sayBuffers are what frames are made in.
type sayBuffers struct{ payload, frame []byte }

func (s *Server) putBuffers(b *sayBuffers) {
	if cap(b.frame) <= maxPooled {
		s.buffers.Put(b)
	}
}

// refuse answers a request with an error. Plain text has no words for one: there the connection closes.
func (s *session) refuse(req json.RawMessage, e *wire.Error) {
	s.srv.cfg.Observer.Rejected(string(e.Code))
	if s.codec != plain {
		s.say("error", wire.Reject{Req: req, Err: e})
		return
	}
	code := wire.StatusPolicy
	switch e.Code {
	case wire.TooLarge:
		code = wire.StatusTooBig
	case wire.Unavailable:
		code = wire.StatusOverload
	}
	s.end(&closing{code: code, reason: e.Message})
}

// gapTold notes that the client is being told of a gap. Where it cannot be told, the connection closes, and it reports false.
func (s *session) gapTold() bool {
	s.srv.cfg.Observer.GapTold()
	if s.codec == plain {
		s.end(&closing{code: wire.StatusOverload, reason: "messages were lost"})
		return false
	}
	return true
}

// end closes the connection from this side, announced by a bye. The reader goes on until the peer has answered.
func (s *session) end(why *closing) {
	b := s.codec.appendEvent(nil, "bye", wire.Bye{Code: why.code, Reason: why.reason, RetryAfter: why.retry}.Append(nil))
	if s.codec != sse {
		b = socket.AppendClose(b, why.code, why.reason)
	}
	s.conn.Finish(b, why.code)
}

// Ended ends the session, as its connection has ended.
func (s *session) Ended(code int) {
	close(s.ended)
	for _, m := range s.rooms {
		m.r.dismiss(m, true)
	}
	s.rooms = nil
	s.srv.forget(s)
	s.srv.cfg.Observer.Closed(s.codec.String(), code)
}

// pause waits; it reports false if the session or the node ends first.
func (s *session) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ended:
		return false
	case <-s.srv.ctx.Done():
		return false
	}
}

func (s *session) member(room string) *member {
	i := slices.IndexFunc(s.rooms, func(m *member) bool { return m.r.name == room })
	if i < 0 {
		return nil
	}
	return s.rooms[i]
}
