package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"parley/bus"
	"parley/bus/id"
	"parley/node/wire"
)

// A handler answers a request, or says what is wrong.
type handler = func(http.ResponseWriter, *http.Request) *wire.Error

// A route is a path, and what answers it by HTTP method. HEAD is as GET, and OPTIONS says what there is.
type route struct {
	path    string
	methods map[string]handler
	open    bool // for pages of any origin, and no part of the API
}

// routes are all that a node serves beside its page. The table of them in wire/README.md is kept in step by a test.
func (s *Server) routes() []route {
	return []route{
		{"/v1/events", map[string]handler{"GET": s.eventsOfRooms}, false},
		{"/v1/events/{stream}", map[string]handler{"POST": s.paced(s.postEvent)}, false},
		{"/v1/rooms/{room}/events", map[string]handler{"GET": s.events}, false},
		{"/v1/rooms/{room}/messages", map[string]handler{"GET": s.paced(s.getMessages), "POST": s.paced(s.postMessage)}, false},
		{"/v1/rooms/{room}/members", map[string]handler{"GET": s.paced(s.getMembers)}, false},
		{"/v1/rooms", map[string]handler{"GET": s.forApps(false, s.getRooms)}, false},
		{"/v1/broadcast", map[string]handler{"POST": s.forApps(false, s.broadcast)}, false},
		{"/v1/users/{user}/disconnect", map[string]handler{"POST": s.forApps(true, s.disconnect)}, false},
		{"/v1/users/{user}/revoke", map[string]handler{"POST": s.forApps(true, s.revokeUser)}, false},
		{"/v1/revoke", map[string]handler{"POST": s.forApps(true, s.revokeAll)}, false},
		{"/v1/openapi.json", map[string]handler{"GET": s.openAPI}, true},
		{"/healthz", map[string]handler{"GET": s.healthz}, true},
		{"/readyz", map[string]handler{"GET": s.readyz}, true},
	}
}

// route adds what is served by plain HTTP. Every error is told as problem details (RFC 9457) with the wire's code.
func (s *Server) route(mux *http.ServeMux) {
	for _, rt := range s.routes() {
		mux.HandleFunc(rt.path, func(w http.ResponseWriter, r *http.Request) {
			if bad := s.serve(&rt, w, r); bad != nil {
				s.problem(w, bad)
			}
		})
	}
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) { s.problem(w, notFound(r)) })
}

func notFound(r *http.Request) *wire.Error {
	return wire.Errorf(wire.NotFound, "%s is not there: there is /v1/events, /v1/rooms/{room}/events, …/messages and …/members", r.URL.Path)
}

// serve answers a request to a route.
func (s *Server) serve(rt *route, w http.ResponseWriter, r *http.Request) *wire.Error {
	if !rt.open {
		if bad := s.cors(w, r); bad != nil {
			return bad
		}
	}
	allow := []string{}
	for _, m := range []string{"GET", "POST"} {
		if rt.methods[m] != nil {
			allow = append(allow, m)
		}
		if m == "GET" && rt.methods[m] != nil {
			allow = append(allow, "HEAD")
		}
	}
	allowed := strings.Join(append(allow, "OPTIONS"), ", ")
	if r.Method == http.MethodOptions {
		options(w, allowed)
		return nil
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	do := rt.methods[method]
	if do == nil {
		w.Header().Set("Allow", allowed)
		s.problemAs(w, http.StatusMethodNotAllowed, wire.Errorf(wire.Unsupported, "%s is not supported here: %s are", r.Method, allowed))
		return nil
	}
	if _, bad := queryOf(r); bad != nil && !rt.open {
		return bad
	}
	if strings.Contains(rt.path, "{room}") {
		if bad := wire.CheckRoom(r.PathValue("room")); bad != nil {
			return bad
		}
	}
	return do(w, r)
}

// options answers OPTIONS (RFC 9110 section 9.3.7), and the preflight of a page of another origin.
func options(w http.ResponseWriter, allowed string) {
	h := w.Header()
	h.Set("Allow", allowed)
	h.Set("Access-Control-Allow-Methods", allowed)
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Parley-Session")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}

// cors answers for the origin by the rule of the WebSocket.
func (s *Server) cors(w http.ResponseWriter, r *http.Request) *wire.Error {
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	if !s.allows(r) {
		return wire.Errorf(wire.Forbidden, "the origin %q is not among those that may use this server", origin)
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "Parley-Session, Retry-After, X-Request-Id")
	return nil
}

// paced refuses requests of an address that makes too many.
func (s *Server) paced(do handler) handler {
	return func(w http.ResponseWriter, r *http.Request) *wire.Error {
		if bad := s.mayRequest(r.RemoteAddr); bad != nil {
			return bad
		}
		return do(w, r)
	}
}

// statuses are what the wire's codes are in HTTP.
var statuses = map[wire.Code]int{
	wire.BadRequest:   http.StatusBadRequest,
	wire.Unauthorized: http.StatusUnauthorized,
	wire.Expired:      http.StatusUnauthorized,
	wire.Forbidden:    http.StatusForbidden,
	wire.NotFound:     http.StatusNotFound,
	wire.Conflict:     http.StatusConflict,
	wire.TooLarge:     http.StatusRequestEntityTooLarge,
	wire.RateLimited:  http.StatusTooManyRequests,
	wire.Unavailable:  http.StatusServiceUnavailable,
	wire.Unsupported:  http.StatusUnsupportedMediaType,
}

func (s *Server) problem(w http.ResponseWriter, e *wire.Error) { s.problemAs(w, statuses[e.Code], e) }

func (s *Server) problemAs(w http.ResponseWriter, status int, e *wire.Error) {
	s.rejected(w, e)
	writeProblem(w, status, e)
}

// rejected counts an error that a request is answered with, and has it noted.
func (s *Server) rejected(w http.ResponseWriter, e *wire.Error) {
	s.cfg.Observer.Rejected(string(e.Code))
	if a, ok := w.(*answer); ok {
		a.problem = e
	}
}

func writeProblem(w http.ResponseWriter, status int, e *wire.Error) {
	h := w.Header()
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	body := fmt.Appendf(nil, `{"title":%q,"status":%d,"detail":`, http.StatusText(status), status)
	body = wire.AppendString(body, e.Message)
	write(w, "application/problem+json", status, fmt.Appendf(body, `,"code":%q}`, e.Code))
}

// A call is an HTTP request as the operations see it: a transport that puts the one answer into a channel.
type call chan outcome

type outcome struct {
	answer appender
	bad    *wire.Error
}

func (c call) answer(f appender) { c <- outcome{answer: f} }

func (c call) refuse(_ json.RawMessage, e *wire.Error) { c <- outcome{bad: e} }

// call carries out a request and writes the answer to it.
func (s *Server) call(ctx context.Context, w http.ResponseWriter, c *caller, req *wire.Request, status int) *wire.Error {
	done := make(call, 1)
	c.replies = done
	s.do(ctx, c, req)
	select {
	case out := <-done:
		if out.bad == nil {
			write(w, "application/json", status, body(out.answer))
		}
		return out.bad
	case <-ctx.Done():
		return busError(bus.ErrUnavailable)
	}
}

// body is an answer without its op, which HTTP tells by the status.
func body(answer appender) []byte {
	frame := bytes.TrimPrefix(answer.Append(nil), []byte(`{"op":"ok",`))
	return append([]byte{'{'}, frame...)
}

func write(w http.ResponseWriter, kind string, status int, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(body, '\n')) // an error is the client's having gone
}

// postMessage says something in a room.
func (s *Server) postMessage(w http.ResponseWriter, r *http.Request) *wire.Error {
	who, bad := s.identify(r, false)
	if bad != nil {
		return bad
	}
	c := &caller{identity: who, id: s.newConnID()}
	req, bad := s.readSend(w, r, c)
	if bad != nil {
		return bad
	}
	if bad := s.may(c, operations[req.Op].needs, req.Room); bad != nil {
		return bad // before it may show whether the room is there
	}
	if wait := s.spend(&who); wait > 0 {
		return s.tooMuch(wait)
	}
	if bad := s.mayOpen(who.addr, req.Room); bad != nil {
		return bad
	}
	ctx, cancel := context.WithTimeout(r.Context(), busTimeout)
	defer cancel()
	room, err := s.enter(ctx, req.Room) // so that the node watches over what it acknowledges
	if err != nil {
		return busError(err)
	}
	defer room.release()
	if who.secret != "" {
		w.Header().Set("Parley-Session", who.secret)
	}
	c.visits = room
	return s.call(ctx, w, c, req, http.StatusCreated)
}

// readSend reads a send: a JSON object with text, data or both, or, as text/plain, the text itself.
func (s *Server) readSend(w http.ResponseWriter, r *http.Request, c *caller) (*wire.Request, *wire.Error) {
	said, bad := s.readBody(w, r)
	if bad != nil {
		return nil, bad
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if c.app != nil {
		object := said
		if kind == "text/plain" { // which may be anybody's words, whatever they look like
			object = nil
		}
		if bad := speakAs(c, object); bad != nil {
			return nil, bad
		}
	}
	req := &wire.Request{Op: "send", Room: r.PathValue("room"), Key: r.Header.Get("Idempotency-Key")}
	if bad := wire.CheckKey(req.Key); bad != nil {
		return nil, bad
	}
	switch kind {
	case "text/plain":
		text, ended := strings.CutSuffix(string(said), "\n")
		if ended {
			text = strings.TrimSuffix(text, "\r")
		}
		req.Text = text
		if req.Text == "" {
			return nil, wire.Errorf(wire.BadRequest, "there is no text")
		}
		return req, wire.CheckText(req.Text, s.cfg.MaxText)
	case "", "application/json", "application/x-www-form-urlencoded": // the last is what curl -d says by itself
		return req, req.ParseSaid(said, s.cfg.MaxText)
	default:
		return nil, wire.Errorf(wire.Unsupported, "the content type %q is not supported: send application/json or text/plain", kind)
	}
}

// readBody reads a body that may be as large as a frame.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *wire.Error) {
	arrived := s.bodies.expect(http.NewResponseController(w), s.cfg.MessageWait)
	said, err := io.ReadAll(http.MaxBytesReader(bare(w), r.Body, wire.MaxFrame))
	arrived()
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, wire.Errorf(wire.TooLarge, "a body may have %d bytes", wire.MaxFrame)
	}
	if err != nil {
		return nil, wire.Errorf(wire.BadRequest, "the body could not be read")
	}
	return said, nil
}

// bare is the server's own ResponseWriter, which knows to close the connection after a body that was too large.
func bare(w http.ResponseWriter) http.ResponseWriter {
	if a, ok := w.(*answer); ok {
		return a.ResponseWriter
	}
	return w
}

// getMessages reads a room's history: the newest messages, or those before an id.
func (s *Server) getMessages(w http.ResponseWriter, r *http.Request) *wire.Error {
	who, bad := s.identify(r, false)
	if bad != nil {
		return bad
	}
	req := &wire.Request{Op: "history", Room: r.PathValue("room")}
	if req.Before, bad = queryID(r, "before"); bad != nil {
		return bad
	}
	if req.Limit, bad = queryLimit(r); bad != nil {
		return bad
	}
	return s.call(r.Context(), w, &caller{identity: who}, req, http.StatusOK)
}

// getMembers reads who is in a room.
func (s *Server) getMembers(w http.ResponseWriter, r *http.Request) *wire.Error {
	who, bad := s.identify(r, false)
	if bad != nil {
		return bad
	}
	req := &wire.Request{Op: "members", Room: r.PathValue("room")}
	return s.call(r.Context(), w, &caller{identity: who}, req, http.StatusOK)
}

// queryOf reads the query. What is written wrongly in it must not pass for absent: a room would be the lobby, and a cursor none.
func queryOf(r *http.Request) (url.Values, *wire.Error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil { // whose text may hold a guest's session
		return nil, wire.Errorf(wire.BadRequest, "the query cannot be read: what is in it has to be escaped, %%3B for a semicolon and %%25 for a percent sign")
	}
	return query, nil
}

// queryID reads an id from the query, nil if there is none.
func queryID(r *http.Request, name string) (*id.ID, *wire.Error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return nil, nil
	}
	i, err := id.Parse(text)
	if err != nil {
		return nil, wire.Errorf(wire.BadRequest, "%s: %v", name, err)
	}
	return &i, nil
}

// queryLimit reads how many messages are asked for, nil if the query does not say.
func queryLimit(r *http.Request) (*int, *wire.Error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > wire.MaxPage {
		return nil, wire.Errorf(wire.BadRequest, "limit is a whole number from 0 to %d", wire.MaxPage)
	}
	return &n, nil
}
