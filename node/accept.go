package node

import (
	"net/http"
	"slices"
	"strings"

	"parley/node/wire"
)

// isUpgrade reports whether a request wants to become a WebSocket.
func isUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// accept makes a WebSocket of a request, or answers it with what is wrong.
func (s *Server) accept(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		s.problem(w, &wire.Error{Code: wire.Unavailable, Message: "this node is shutting down: connect again, to another", RetryAfter: s.retryAfter()})
		return
	}
	if !s.allows(r) {
		s.problem(w, wire.Errorf(wire.Forbidden, "the origin %q is not among those that may connect here", r.Header.Get("Origin")))
		return
	}
	c, offers := plain, subprotocols(r)
	if slices.Contains(offers, wire.Subprotocol) {
		c = jsonV1
	} else if len(offers) > 0 {
		offers = slices.DeleteFunc(offers, func(o string) bool { return strings.HasPrefix(o, bearerProtocol) })
		s.problem(w, wire.Errorf(wire.BadRequest, "none of the subprotocols %s is spoken here: offer %q, or none for plain text",
			strings.Join(offers, ", "), wire.Subprotocol))
		return
	}
	query, bad := queryOf(r)
	if bad != nil {
		s.problem(w, bad)
		return
	}
	room, name := query.Get("room"), query.Get("name")
	if room == "" && !query.Has("room") {
		room = "lobby"
	}
	bad = wire.CheckName(name)
	if c == plain {
		bad = firstError(wire.CheckRoom(room), bad)
	}
	if bad != nil {
		s.problem(w, bad)
		return
	}

	if bad := s.arrive(r); bad != nil { // before a token costs anything
		s.problem(w, bad)
		return
	}
	join := &wire.Request{Op: "join", Room: room, Limit: new(int)}
	who, late, bad := s.identifySocket(r, c, offers, name)
	if bad == nil && c == plain {
		bad = s.may(&caller{identity: who}, operations["join"].needs, room)
	}
	counted := ""
	if bad == nil {
		counted, bad = s.connect(r.Context(), &who)
	}
	if bad != nil && !late {
		s.depart(r.RemoteAddr)
		s.problem(w, bad)
		return
	}
	refusal := &refusal{ResponseWriter: w}
	conn, err := s.sockets.Accept(refusal, r, wire.Subprotocol)
	if err != nil {
		s.depart(r.RemoteAddr)
		s.disconnected(counted)
		if refusal.status != 0 {
			s.problemAs(w, refusal.status, wire.Errorf(wire.BadRequest, "%s", strings.TrimSpace(string(refusal.says))))
		}
		return
	}
	sess := s.newSession(c, conn, who)
	s.noteConnected(sess, r)
	sess.refused, sess.counted = bad, counted
	if c == jsonV1 {
		s.start(sess)
		return
	}
	sess.home = room
	s.start(sess, join)
}

// A refusal keeps back what is wrong with a handshake, to be told as problem details.
type refusal struct {
	http.ResponseWriter
	status int
	says   []byte
}

// WriteHeader implements http.ResponseWriter.
func (r *refusal) WriteHeader(status int) { r.status = status }

// Write implements http.ResponseWriter.
func (r *refusal) Write(b []byte) (int, error) {
	r.says = append(r.says, b...)
	return len(b), nil
}

// Unwrap is for http.ResponseController.
func (r *refusal) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// start serves a session. joins are the requests that connecting stands for. What may wait is done in a goroutine of the session's
// own: that of the request, with its grown stack and its buffers, ends.
func (s *Server) start(sess *session, joins ...*wire.Request) {
	if !s.admit(sess) {
		sess.end(closing{code: wire.StatusRestart, reason: "this node is shutting down", retry: s.retryAfter()})
		sess.conn.End(sess)
		return
	}
	if sess.conn.Polled() && sess.refused == nil && len(joins) == 0 {
		s.wg.Add(1)
		defer s.wg.Done()
		sess.welcome(nil)
		sess.conn.Serve(sess)
		return
	}
	s.wg.Go(func() {
		if bad := sess.refused; bad != nil {
			sess.expel(bad, closeCode(bad))
			sess.conn.Serve(sess)
			return
		}
		sess.welcome(nil)
		if bad := sess.joinAll(joins); bad != nil {
			sess.refuse(nil, bad)
			sess.end(closing{code: wire.StatusOverload, reason: bad.Message, retry: bad.RetryAfter})
		}
		sess.conn.Serve(sess)
	})
}

// joinAll carries out what connecting stands for. In plain text that answers the handshake too, so an open connection hears
// everything from there on.
func (s *session) joinAll(joins []*wire.Request) (bad *wire.Error) {
	if s.stream != nil {
		s.stream.turn.Lock()
		defer s.stream.turn.Unlock()
	}
	for _, join := range joins {
		if !s.conn.WaitForSpace() {
			break // Serve finds that it has ended
		}
		_, bad = s.srv.carryOut(s.srv.ctx, &s.caller, join)
		if bad != nil && bad.Code == wire.Forbidden && s.stream != nil {
			s.stream.remove(join.Room)
			s.say("left", wire.Left{Room: join.Room, Err: bad})
			bad = nil
		}
		if bad != nil {
			break
		}
	}
	return bad
}

func firstError(errs ...*wire.Error) *wire.Error {
	for _, e := range errs {
		if e != nil {
			return e
		}
	}
	return nil
}

// subprotocols are those that a client offers, in its order (RFC 6455 section 11.3.4).
func subprotocols(r *http.Request) []string {
	var out []string
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); p != "" {
				out = append(out, p)
			}
		}
	}
	return out
}
