package node

import (
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"time"

	"parley/node/socket"
	"parley/node/wire"
)

// A session is one client's connection, over WebSocket or as an event stream. It handles the client's requests one after the
// other; what it tells the client may come from any goroutine.
type session struct {
	caller
	srv    *Server                    // static
	codec  codec                      // static
	conn   *socket.Conn               // static
	stream *stream                    // static; nil but for an event stream of several rooms
	held   atomic.Pointer[Grant]      // what caller.grant is, for those who are not the reader
	bar    atomic.Pointer[wire.Error] // why the session is being ended, as who it is does not hold any more
	home   string                     // static; the one room of a client whose codec names none
	from   string                     // static; where it calls from

	refused *wire.Error // static; why the session ends before it begins

	counted string // owned by the reader; the user among whose connections this one is

	pace pace          // owned by the reader
	todo *wire.Request // owned by the reader; it has to wait, and comes next

	ended chan struct{} // closed when the connection has ended

	place    int       // guarded by Server.sessionsMu; in Server.sessions
	nextPing int64     // owned by the janitor; Unix nanoseconds
	took     time.Time // owned by the janitor; when it was last seen to read on
}

// A closing is why the node ends a connection, as it tells the client.
type closing struct {
	code   int
	reason string
	retry  time.Duration
}

func (s *Server) newSession(c codec, conn *socket.Conn, who identity) *session {
	sess := &session{
		caller: caller{identity: who, id: s.newConnID()},
		srv:    s,
		codec:  c,
		conn:   conn,
		from:   who.addr,
		ended:  make(chan struct{}),
	}
	sess.session, sess.replies, sess.barred = sess, sess, &sess.bar
	sess.held.Store(who.grant)
	return sess
}

// Ready implements socket.Handler.
func (s *session) Ready() bool { return s.todo == nil && !s.pending.full() }

// Message does what a message asks for, or, if that may have to wait, notes it in todo.
func (s *session) Message(isText bool, frame []byte) bool {
	if s.leaving.Load() && !s.codec.hasWords() {
		return true // it cannot be refused otherwise than by the close, which is on its way
	}
	if !isText {
		s.end(closing{code: wire.StatusUnsupported, reason: "binary messages are not supported: send text"})
		return true
	}
	s.srv.cfg.Observer.Received(s.codec.String(), len(frame))
	req, bad := s.codec.parse(frame, s.home, s.srv.cfg.MaxText)
	switch {
	case bad == wire.ErrNotUTF8: // RFC 6455 section 8.1; browsers drop the connection over which such text is relayed
		s.end(closing{code: wire.StatusNotUTF8, reason: "text has to be UTF-8"})
	case req == nil: // it asks for nothing
	case s.tooFast(req):
	case bad != nil:
		s.refuse(req.Req, bad)
	case operations[req.Op].waits:
		s.todo = req
		return false
	default:
		s.srv.do(s.srv.ctx, &s.caller, req)
	}
	return true
}

// tooFast reports that a request came too soon, and refuses it.
func (s *session) tooFast(req *wire.Request) bool {
	bad := s.keepPace(req.Op)
	if bad != nil {
		s.refuse(req.Req, bad)
	}
	return bad != nil
}

// Wait carries out what had to wait.
func (s *session) Wait() {
	if req := s.todo; req != nil {
		s.todo = nil
		s.srv.do(s.srv.ctx, &s.caller, req)
	}
	s.pending.wait(maxPending, s.ended)
}

// Broken implements socket.Handler.
func (s *session) Broken(code int, reason string) { s.end(closing{code: code, reason: reason}) }

// Ended ends the session, as its connection has ended.
func (s *session) Ended(code int) {
	close(s.ended)
	if st := s.stream; st != nil {
		s.srv.streamsMu.Lock()
		delete(s.srv.streams, st.name)
		s.srv.streamsMu.Unlock()
		st.turn.Lock() // a join may be under way
		defer st.turn.Unlock()
	}
	for _, m := range s.rooms {
		m.r.dismiss(m, true)
	}
	s.rooms = nil
	s.srv.disconnected(s.counted)
	s.srv.forget(s)
	s.srv.depart(s.addr)
	s.srv.cfg.Observer.Closed(s.codec.String(), code)
	s.srv.notes.note(closed, s.connAttr(), s.fromAttr(), slog.Int("code", code))
}

// answer implements transport.
func (s *session) answer(f appender) { s.say("ok", f) }

// refuse answers a request with an error, or closes the connection where the codec has no words for one.
func (s *session) refuse(req json.RawMessage, e *wire.Error) {
	s.srv.cfg.Observer.Rejected(string(e.Code))
	s.srv.notes.noteRefused(e, s.connAttr(), s.fromAttr())
	if s.codec.hasWords() {
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
	s.end(closing{code: code, reason: e.Message})
}

// gapTold counts a gap that the client is told of. If the codec has no words for it, gapTold closes the connection.
func (s *session) gapTold() {
	s.srv.cfg.Observer.GapTold()
	if !s.codec.hasWords() {
		s.end(closing{code: wire.StatusOverload, reason: "messages were lost"})
	}
}

// say sends a frame other than a message, if the codec has words for it.
func (s *session) say(op string, f appender) {
	if !s.codec.hasWords() {
		return
	}
	b := s.srv.buffers.Get().(*sayBuffers)
	b.payload = f.Append(b.payload[:0])
	b.frame = s.codec.appendEvent(b.frame[:0], op, b.payload)
	s.conn.Put(b.frame)
	s.srv.putBuffers(b)
}

func (s *session) welcome(req json.RawMessage) {
	cfg := &s.srv.cfg
	name := ""
	if s.stream != nil {
		name = s.stream.name
	}
	s.say("welcome", wire.Welcome{
		Stream:  name,
		Req:     req,
		User:    wire.User(s.user),
		Named:   s.named,
		Session: s.secret,
		Expires: s.grant.left(time.Now()),
		Node:    cfg.ID,
		Version: cfg.Version,
		Ping:    int(cfg.PingInterval / time.Second),
		Limits:  wire.LimitsOf(cfg.MaxText, cfg.Limits.Rooms),
	})
}

// end closes the connection from this side, announced by a bye. The reader goes on until the peer has answered.
func (s *session) end(why closing) {
	if s.codec == sse && why.retry == 0 {
		why.retry = s.srv.retryAfter()
	}
	b := s.codec.appendBye(nil, wire.Bye{Code: why.code, Reason: why.reason, RetryAfter: why.retry})
	s.conn.Finish(s.codec.appendClose(b, why.code, why.reason), why.code)
}

// goodbyeWait is how long the answers to what a client has sent are waited for.
const goodbyeWait = 3 * time.Second

// goodbye hands the client over to another node: the session takes on nothing more, and when everything is answered, it says bye
// and closes.
func (s *session) goodbye() {
	s.leaving.Store(true)
	why := closing{code: wire.StatusRestart, reason: "this node is shutting down: connect again", retry: s.srv.retryAfter()}
	if s.pending.none() {
		s.end(why)
		return
	}
	s.srv.wg.Go(func() {
		enough := make(chan struct{})
		t := time.AfterFunc(goodbyeWait, func() { close(enough) })
		defer t.Stop()
		s.pending.wait(1, enough)
		s.end(why)
	})
}

// keepAlive pings the client, or drops it if it has shown no sign of life for one and a half rounds of pings: has neither said
// anything nor read on.
func (s *session) keepAlive(now time.Time) {
	if s.conn.Takes() {
		s.took = now // the ping may be behind what else there is to read
	}
	if limit := s.srv.cfg.PingInterval * 3 / 2; s.codec.answersPings() && s.conn.Silence(now) > limit && now.Sub(s.took) > limit {
		s.conn.Abort(0)
		return
	}
	s.ping()
}

// ping asks the client for a sign that it has read all that it was told.
func (s *session) ping() {
	var buf, probe [16]byte
	s.conn.Put(s.codec.appendPing(buf[:0], s.pending.appendProbe(probe[:0])))
}

// Pong implements socket.Handler.
func (s *session) Pong(payload []byte) { s.pending.probed(payload) }

// pause waits for d. It returns false if the session or the node ends first.
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

// sayBuffers are what frames are made in.
type sayBuffers struct{ payload, frame []byte }

// maxPooled is the largest buffer worth keeping.
const maxPooled = 16 << 10

func (s *Server) putBuffers(b *sayBuffers) {
	if cap(b.frame) <= maxPooled {
		s.buffers.Put(b)
	}
}
