package node

import (
	"bytes"
	"context"
	"net/http"

	"parley/bus/id"
	"parley/node/wire"
)

// events makes the connection an event stream of one room.
func (s *Server) events(w http.ResponseWriter, r *http.Request) *wire.Error {
	req := &wire.Request{Op: "join", Room: r.PathValue("room")}
	var bad *wire.Error
	if req.Since, bad = queryID(r, "since"); bad != nil {
		return bad
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" { // what EventSource sends when it comes back
		i, err := id.Parse(last)
		if err != nil {
			return wire.Errorf(wire.BadRequest, "Last-Event-ID: %v", err)
		}
		req.Since = &i
	}
	if req.Limit, bad = queryLimit(r); bad != nil {
		return bad
	}
	return s.stream(w, r, nil, []*wire.Request{req})
}

// stream makes the connection a stream of Server-Sent Events: a session like any other, whose client only listens. It is
// taken over from the HTTP server, so that it has the same bounded queue, and costs the same. st is nil for one of one room.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, st *stream, joins []*wire.Request) *wire.Error {
	if r.Method == http.MethodHead {
		setStream(w.Header())
		return nil
	}
	if s.draining.Load() {
		return s.turnAway(w, r, &wire.Error{Code: wire.Unavailable, Message: "this node is shutting down: connect again, to another", RetryAfter: s.retryAfter()})
	}
	who, bad := s.identify(r, true)
	if bad != nil {
		return bad
	}
	if st == nil { // a stream of several goes on without those that it may not join
		if bad := s.may(&caller{identity: who}, operations["join"].needs, joins[0].Room); bad != nil {
			return bad
		}
	}
	if st != nil {
		ctx, cancel := context.WithTimeout(r.Context(), busTimeout)
		defer cancel()
		if err := s.listenForStreams(ctx); err != nil {
			return s.turnAway(w, r, busError(err))
		}
	}
	if bad := s.arrive(r); bad != nil {
		return s.turnAway(w, r, bad)
	}
	counted, bad := s.connect(r.Context(), &who)
	if bad != nil {
		s.depart(r.RemoteAddr)
		return s.turnAway(w, r, bad)
	}
	nc, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.depart(r.RemoteAddr)
		s.disconnected(counted)
		return wire.Errorf(wire.Unsupported, "event streams need HTTP/1.1")
	}
	h := w.Header()
	setStream(h)
	head := bytes.NewBufferString("HTTP/1.1 200 OK\r\n")
	h.Write(head)
	head.WriteString("\r\n")
	sess := s.newSession(sse, s.sockets.Stream(nc, head.Bytes()), who)
	sess.counted = counted
	if st != nil {
		sess.stream = st
		s.streamsMu.Lock()
		s.streams[st.name] = sess
		s.streamsMu.Unlock()
	}
	s.noteConnected(sess, r)
	s.start(sess, joins...)
	return nil
}

func setStream(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // or proxies keep it back
	h.Set("Connection", "close")
}

// turnAway answers a request for an event stream that cannot be served now. EventSource gives up for good on any status but 200, and
// comes back after a stream that ended. A proxy is told the truth: it tries another node.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, e *wire.Error) *wire.Error {
	if e.Code == wire.Unavailable && throughProxy(r) {
		return e
	}
	s.rejected(w, e)
	setStream(w.Header())
	w.Write(sse.appendBye(nil, wire.Bye{Code: closeCodes[e.Code], Reason: e.Message, RetryAfter: e.RetryAfter}))
	return nil
}

// closeCodes are with what a stream ends at once.
var closeCodes = map[wire.Code]int{wire.Unavailable: wire.StatusRestart, wire.RateLimited: wire.StatusOverload}

// closeCode is with what a connection ends whose token is refused.
func closeCode(e *wire.Error) int {
	if e.Code == wire.Unauthorized || e.Code == wire.Expired {
		return wire.StatusNoToken
	}
	return wire.StatusOverload
}
