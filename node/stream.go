package node

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"parley/bus"
	"parley/bus/id"
	"parley/node/wire"
)

// A stream is what an event stream of several rooms has beside its session. Its events are those of a stream of one room, but for
// their ids: each is a cursor of all the rooms.
type stream struct {
	name string     // static; a secret: who knows it may add and leave rooms
	turn sync.Mutex // who holds it is the session's reader: it comes before all other locks

	mu      sync.Mutex // held from making a cursor until it is put, so the last one is the newest; after room.mu, before Conn.mu
	places  []place    // guarded by mu; one a room
	todo    [][]byte   // guarded by mu; requests, in the order they came
	waiting int        // guarded by mu; bytes of todo
	running bool       // guarded by mu; a goroutine carries out todo
}

// A place is where the reading of a room goes on.
type place struct {
	room string
	at   *bus.ID // nil before the join is answered
}

// A cursor names the places of all rooms of a stream: application/x-www-form-urlencoded, "&" for none.
const (
	maxCursor = 4000
	maxID     = 41 // its bytes: two numbers of 64 bits
)

// parseCursor reads what appendCursor wrote.
func parseCursor(s string) (places []place, bad *wire.Error) {
	if len(s) > maxCursor {
		return nil, wire.Errorf(wire.TooLarge, "a cursor has at most %d bytes", maxCursor)
	}
	for pair := range strings.SplitSeq(s, "&") {
		if pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, wire.Errorf(wire.BadRequest, "a cursor is made of rooms and ids, such as lobby=0-0&tea=0-0")
		}
		room, err := url.QueryUnescape(name)
		if err != nil {
			return nil, wire.Errorf(wire.BadRequest, "the cursor: %v", err)
		}
		p := place{room: room}
		if value != "" {
			at, err := id.Parse(value)
			if err != nil {
				return nil, wire.Errorf(wire.BadRequest, "the cursor: %v", err)
			}
			p.at = &at
		}
		places = append(places, p)
	}
	return places, nil
}

// appendCursorLocked needs st.mu.
func (st *stream) appendCursorLocked(dst []byte) []byte {
	if len(st.places) == 0 {
		return append(dst, '&')
	}
	for i, p := range st.places {
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = append(append(dst, url.QueryEscape(p.room)...), '=')
		if p.at != nil {
			dst = p.at.Append(dst)
		}
	}
	return dst
}

// add makes a room one of the stream's, or says that the cursor has no space for it. It returns false if the room was there.
func (st *stream) add(room string, at *bus.ID) (added bool, bad *wire.Error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	size := len(url.QueryEscape(room)) + maxID + len("&=")
	for _, p := range st.places {
		if p.room == room {
			return false, nil
		}
		size += len(url.QueryEscape(p.room)) + maxID + len("&=")
	}
	if size > maxCursor {
		return false, wire.Errorf(wire.TooLarge, "a stream has no more rooms than a cursor of %d bytes can name: open another", maxCursor)
	}
	st.places = append(st.places, place{room, at})
	return true, nil
}

// cursorBytes is how large an id may become.
func (st *stream) cursorBytes() (size int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, p := range st.places {
		size += len(url.QueryEscape(p.room)) + maxID + len("&=")
	}
	return size
}

func (st *stream) remove(room string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for i, p := range st.places {
		if p.room == room {
			st.places = append(st.places[:i:i], st.places[i+1:]...)
			return
		}
	}
}

// putStream gives events of the room to the connection, with cursors for ids. If the connection refuses them nothing has happened.
func (m *member) putStream(events []byte, give func([]byte) bool) bool {
	b := m.s.srv.buffers.Get().(*sayBuffers) // which an idle stream does not keep
	defer m.s.srv.putBuffers(b)
	st, room := m.stream, m.r.name
	st.mu.Lock()
	defer st.mu.Unlock()
	var here *place
	for i := range st.places {
		if st.places[i].room == room {
			here = &st.places[i]
		}
	}
	var before *bus.ID
	if here != nil {
		before = here.at
	}
	buf := b.frame[:0]
	for len(events) > 0 {
		end := bytes.Index(events, []byte("\n\n")) + 2
		event := events[:end]
		events = events[end:]
		if text, ok := bytes.CutPrefix(event, []byte("id: ")); ok && here != nil {
			line, rest, _ := bytes.Cut(text, []byte("\n"))
			at, _ := id.Parse(string(line)) // which the codec wrote
			here.at = &at
			buf = append(st.appendCursorLocked(append(buf, "id: "...)), '\n')
			event = rest
		}
		buf = append(buf, event...)
	}
	b.frame = buf
	given := give(buf)
	if !given && here != nil {
		here.at = before
	}
	return given
}

// offer, put and putIfSpace are those of the member's connection.
func (m *member) offer(frames []byte) bool {
	if m.stream != nil {
		return m.putStream(frames, m.conn.Offer)
	}
	return m.conn.Offer(frames)
}

func (m *member) put(frames []byte) {
	if m.stream != nil {
		m.putStream(frames, func(b []byte) bool { m.conn.Put(b); return true })
		return
	}
	m.conn.Put(frames)
}

func (m *member) putIfSpace(frames []byte) bool {
	if m.stream != nil {
		return m.putStream(frames, m.conn.PutIfSpace)
	}
	return m.conn.PutIfSpace(frames)
}

// request carries out a request for a stream of several rooms. The caller holds the stream's turn.
func (s *session) request(ctx context.Context, req *wire.Request) *wire.Error {
	st := s.stream
	switch req.Op {
	case "join":
		added, bad := st.add(req.Room, req.Since)
		if bad != nil {
			return bad
		}
		_, bad = s.srv.carryOut(ctx, &s.caller, req) // its answer has its place among what else is told
		if bad != nil && added {
			st.remove(req.Room)
		}
		return bad
	case "leave":
		answer, bad := s.srv.carryOut(ctx, &s.caller, req)
		if bad != nil {
			return bad
		}
		st.remove(req.Room)
		st.mu.Lock()
		defer st.mu.Unlock()
		b := append(st.appendCursorLocked([]byte("id: ")), '\n')
		s.conn.Put(s.codec.appendEvent(b, "ok", answer.Append(nil)))
		return nil
	default:
		s.srv.do(ctx, &s.caller, req)
		return nil
	}
}

// How many requests of a stream may wait, and how many bytes of them, though one always may.
const (
	maxTodo      = 64
	maxTodoBytes = 128 << 10
)

// takeIn takes a request in, for a goroutine to carry out. It needs Server.streamsMu, under which the session has not ended.
func (s *session) takeIn(frame []byte) bool {
	st := s.stream
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.todo) == maxTodo || len(st.todo) > 0 && st.waiting+len(frame) > maxTodoBytes {
		return false
	}
	st.todo = append(st.todo, frame)
	st.waiting += len(frame)
	if !st.running {
		st.running = true
		s.srv.wg.Go(s.carryOutTodo)
	}
	return true
}

func (s *session) carryOutTodo() {
	for {
		frame, more := s.stream.next()
		if !more {
			return
		}
		s.carryOutFrame(frame)
	}
}

// next gives the request that is to be carried out. If there is none the caller is not running any more.
func (st *stream) next() (frame []byte, more bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.todo) == 0 {
		st.running = false
		return nil, false
	}
	frame = st.todo[0]
	st.todo = st.todo[1:]
	st.waiting -= len(frame)
	return frame, true
}

// carryOutFrame carries out a request once its answer has space.
func (s *session) carryOutFrame(frame []byte) {
	if !s.conn.WaitForSpace() {
		return
	}
	s.stream.turn.Lock()
	defer s.stream.turn.Unlock()
	select {
	case <-s.ended:
		return
	default:
	}
	req, bad := wire.Parse(frame, s.srv.cfg.MaxText)
	if bad == nil && !s.tooFast(&req) {
		bad = s.request(s.srv.ctx, &req)
	}
	if bad != nil {
		s.refuse(req.Req, bad)
	}
}

// newStream makes a name for a stream: the node that it is on, and a secret.
func (s *Server) newStream() *stream {
	return &stream{name: fmt.Sprintf("%08x%s", s.base>>32, newSecret())}
}

// nodeRoom is where the node of that base hears of requests for its streams that came to others. No client can name it.
func nodeRoom(base uint64) string { return fmt.Sprintf("\x00node %08x", base>>32) }

// A streamSink takes what other nodes pass on.
type streamSink struct{ s *Server }

// Deliver implements bus.Sink.
func (streamSink) Deliver(bus.Message) {}

// Presence implements bus.Sink.
func (streamSink) Presence(bus.Change) {}

// Signal takes a request: the stream's name, and a frame.
func (k streamSink) Signal(body []byte) {
	if len(body) > streamName {
		k.s.takeIn(string(body[:streamName]), body[streamName:])
	}
}

const streamName = 8 + 22 // bytes of a stream's name

// takeIn passes a request on to a stream of this node.
func (s *Server) takeIn(name string, frame []byte) *wire.Error {
	s.streamsMu.Lock()
	defer s.streamsMu.Unlock()
	sess := s.streams[name]
	switch {
	case sess == nil:
		return wire.Errorf(wire.NotFound, "there is no such stream: open another")
	case !sess.takeIn(frame):
		return &wire.Error{Code: wire.RateLimited, Message: "too many requests of this stream wait", RetryAfter: leastWait}
	}
	return nil
}

// listenForStreams has other nodes pass on what comes to them.
func (s *Server) listenForStreams(ctx context.Context) error {
	s.nodeSubMu.Lock()
	defer s.nodeSubMu.Unlock()
	switch {
	case s.nodeSub != nil:
		return nil
	case s.ctx.Err() != nil: // Shutdown may have closed it
		return bus.ErrUnavailable
	}
	sub, err := s.cfg.Bus.Subscribe(ctx, nodeRoom(s.base), streamSink{s})
	if err == nil {
		s.nodeSub = sub
	}
	return err
}

// postEvent passes a request on to a stream, on whichever node it is.
func (s *Server) postEvent(w http.ResponseWriter, r *http.Request) *wire.Error {
	frame, bad := s.readBody(w, r)
	if bad != nil {
		return bad
	}
	req, bad := wire.Parse(frame, s.cfg.MaxText)
	if bad != nil {
		return bad
	}
	if req.Op != "join" && req.Op != "leave" && req.Op != "signal" && req.Op != "hello" {
		return wire.Errorf(wire.BadRequest, "a stream takes join, leave, signal and hello, and not %s", req.Op)
	}
	name := r.PathValue("stream")
	at, err := strconv.ParseUint(name[:min(8, len(name))], 16, 32)
	if err != nil || len(name) != streamName {
		return wire.Errorf(wire.NotFound, "there is no such stream: its welcome tells its name")
	}
	if base := at << 32; base == s.base {
		bad = s.takeIn(name, frame)
	} else {
		ctx, cancel := context.WithTimeout(r.Context(), busTimeout)
		defer cancel()
		done := make(chan error, 1)
		s.cfg.Bus.Signal(nodeRoom(base), append([]byte(name), frame...), func(err error) { done <- err })
		select {
		case err = <-done:
		case <-ctx.Done():
			err = bus.ErrUnavailable
		}
		if err != nil {
			bad = busError(err)
		}
	}
	if bad == nil {
		write(w, "application/json", http.StatusAccepted, []byte("{}"))
	}
	return bad
}

// eventsOfRooms makes the connection an event stream of several rooms.
func (s *Server) eventsOfRooms(w http.ResponseWriter, r *http.Request) *wire.Error {
	query := r.URL.Query()
	limit, bad := queryLimit(r)
	if bad != nil {
		return bad
	}
	last := r.Header.Get("Last-Event-ID")
	places, bad := parseCursor(last)
	if bad != nil {
		return bad
	}
	if last == "" {
		known, bad := parseCursor(query.Get("since"))
		if bad != nil {
			return bad
		}
		for _, room := range query["room"] {
			p := place{room: room}
			for _, k := range known {
				if k.room == room {
					p = k
				}
			}
			places = append(places, p)
		}
	}
	st := s.newStream()
	joins := make([]*wire.Request, 0, len(places))
	for _, p := range places {
		if bad := wire.CheckRoom(p.room); bad != nil {
			return bad
		}
		added, bad := st.add(p.room, p.at)
		if bad != nil {
			return bad
		}
		if added {
			joins = append(joins, &wire.Request{Op: "join", Room: p.room, Since: p.at, Limit: limit})
		}
	}
	if most := s.cfg.Limits.Rooms; most > 0 && len(joins) > most {
		return s.limited(limitRooms, wire.Forbidden, 0, "a connection may be in %d rooms at a time", most)
	}
	return s.stream(w, r, st, joins)
}
