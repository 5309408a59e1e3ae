package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"parley/bus"
	"parley/bus/id"
	"parley/node/wire"
)

// methods are what a path answers, by HTTP method.
type methods map[string]func(http.ResponseWriter, *http.Request) *wire.Error

// route adds what is served by plain HTTP. Every error is told as problem details (RFC 9457) with the wire's code.
func (s *Server) route(mux *http.ServeMux) {
	handle := func(path string, methods methods) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if !s.cors(w, r, methods) {
				return
			}
			do := methods[r.Method]
			if err := wire.CheckRoom(r.PathValue("room")); err != nil {
				s.problem(w, err)
			} else if err := do(w, r); err != nil {
				s.problem(w, err)
			}
		})
	}
	handle("/v1/rooms/{room}/events", methods{"GET": s.events})
	handle("/v1/rooms/{room}/messages", methods{"GET": s.getMessages, "POST": s.postMessage})
	handle("/v1/rooms/{room}/members", methods{"GET": s.getMembers})
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, wire.Errorf(wire.NotFound, "there is /v1/rooms/{room}/events, …/messages and …/members"))
	})
}

// cors answers for the origin by the rule of the WebSocket, and the preflight. It reports whether to go on.
func (s *Server) cors(w http.ResponseWriter, r *http.Request, methods methods) bool {
	h := w.Header()
	if origin := r.Header.Get("Origin"); origin != "" {
		if !s.allows(origin) {
			s.problem(w, wire.Errorf(wire.Forbidden, "the origin %q is not among those that may use this server", origin))
			return false
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "Parley-Session, Retry-After")
		h.Add("Vary", "Origin")
	}
	allowed := "OPTIONS"
	for _, m := range []string{"GET", "POST"} {
		if methods[m] != nil {
			allowed = m + ", " + allowed
		}
	}
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", allowed)
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Parley-Session")
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
		return false
	}
	if methods[r.Method] == nil {
		h.Set("Allow", allowed)
		s.problemAs(w, http.StatusMethodNotAllowed, wire.Errorf(wire.Unsupported, "%s is not supported here: %s are", r.Method, allowed))
		return false
	}
	return true
}

// statuses are what the wire's codes are in HTTP.
var statuses = map[wire.Code]int{
	wire.BadRequest:   http.StatusBadRequest,
	wire.Unauthorized: http.StatusUnauthorized,
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
	s.cfg.Observer.Rejected(string(e.Code))
	h := w.Header()
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	answer(w, "application/problem+json", status, struct {
		Title  string    `json:"title"`
		Status int       `json:"status"`
		Detail string    `json:"detail"`
		Code   wire.Code `json:"code"`
	}{http.StatusText(status), status, e.Message, e.Code})
}

func answer(w http.ResponseWriter, kind string, status int, body any) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.Encode(body) // an error is the client's having gone
}

// who tells who a request is from: a token's user, or the guest of a session, a new one if it names none. EventSource can set no
// headers, so the query does too; it is never logged.
func (s *Server) who(r *http.Request) (u User, session string, bad *wire.Error) {
	query := r.URL.Query()
	name := query.Get("name")
	if bad := wire.CheckName(name); bad != nil {
		return User{}, "", bad
	}
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		token = query.Get("token")
	}
	if token != "" {
		u, bad := s.authenticate(token)
		return u, "", bad
	}
	session = r.Header.Get("Parley-Session")
	if session == "" {
		session = query.Get("session")
	}
	if session == "" {
		session = newSessionToken()
	} else if !validSessionToken(session) {
		return User{}, "", wire.Errorf(wire.BadRequest, "the session is not a token that a welcome, or the header Parley-Session, gave")
	}
	return guest(session, name), session, nil
}

// postMessage says something in a room: a JSON object with text, data or both, or, as text/plain, the text itself.
func (s *Server) postMessage(w http.ResponseWriter, r *http.Request) *wire.Error {
	user, session, bad := s.who(r)
	if bad != nil {
		return bad
	}
	req, bad := s.readSend(w, r)
	if bad != nil {
		return bad
	}
	ctx, cancel := context.WithTimeout(r.Context(), busTimeout)
	defer cancel()
	room, err := s.enter(ctx, req.Room) // so that the node watches over what it acknowledges
	if err != nil {
		return busError(err)
	}
	defer room.release()
	d := draft(wire.Origin{Conn: s.newConnID()}, user, req)
	type result struct {
		id  bus.ID
		err error
	}
	done := make(chan result, 1)
	room.sub.Publish(d, func(i bus.ID, err error) { done <- result{i, err} })
	select {
	case res := <-done:
		if res.err != nil {
			return busError(res.err)
		}
		if session != "" {
			w.Header().Set("Parley-Session", session)
		}
		answer(w, "application/json", http.StatusCreated, map[string]any{"id": res.id})
		return nil
	case <-ctx.Done():
		return busError(bus.ErrUnavailable)
	}
}

// readSend reads what is to be said by the rules of the wire's send.
func (s *Server) readSend(w http.ResponseWriter, r *http.Request) (*wire.Request, *wire.Error) {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.cfg.MessageWait))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxFrame))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, wire.Errorf(wire.TooLarge, "a body may have %d bytes", wire.MaxFrame)
	}
	if err != nil {
		return nil, wire.Errorf(wire.BadRequest, "the body could not be read")
	}
	var said struct{ Text, Data json.RawMessage }
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case "text/plain":
		if !utf8.Valid(body) {
			return nil, wire.Errorf(wire.BadRequest, "text has to be UTF-8")
		}
		said.Text = wire.AppendString(nil, bytes.TrimSuffix(body, []byte("\n")))
	case "", "application/json", "application/x-www-form-urlencoded": // the last is what curl -d says by itself
		if err := json.Unmarshal(body, &said); err != nil {
			return nil, wire.Errorf(wire.BadRequest, "the body has to be a JSON object with text, data or both")
		}
	default:
		return nil, wire.Errorf(wire.Unsupported, "the content type %q is not supported: send application/json or text/plain", kind)
	}
	frame := wire.AppendString([]byte(`{"op":"send","room":`), r.PathValue("room"))
	if key := r.Header.Get("Idempotency-Key"); key != "" {
		frame = wire.AppendString(append(frame, `,"key":`...), key)
	}
	if said.Text != nil {
		frame = append(append(frame, `,"text":`...), said.Text...)
	}
	if said.Data != nil {
		frame = append(append(frame, `,"data":`...), said.Data...)
	}
	req, bad := wire.Parse(append(frame, '}'), s.cfg.MaxText)
	return &req, bad
}

// getMessages reads a room's history: the newest messages, or those before an id.
func (s *Server) getMessages(w http.ResponseWriter, r *http.Request) *wire.Error {
	before, bad := queryID(r, "before")
	if bad != nil {
		return bad
	}
	limit, bad := queryLimit(r)
	if bad != nil {
		return bad
	}
	ctx, cancel := context.WithTimeout(r.Context(), busTimeout)
	defer cancel()
	entries, more, err := s.history(ctx, r.PathValue("room"), before, limit)
	if err != nil {
		return busError(err)
	}
	list := make([]json.RawMessage, len(entries))
	for i, e := range entries {
		list[i] = e
	}
	answer(w, "application/json", http.StatusOK, map[string]any{"room": r.PathValue("room"), "messages": list, "more": more})
	return nil
}

// getMembers reads who is in a room.
func (s *Server) getMembers(w http.ResponseWriter, r *http.Request) *wire.Error {
	ctx, cancel := context.WithTimeout(r.Context(), busTimeout)
	defer cancel()
	roster, err := s.roster(ctx, r.PathValue("room"))
	if err != nil {
		return busError(err)
	}
	members := wireMembers(roster)
	slices.SortFunc(members, func(a, b wire.Member) int { return strings.Compare(a.ID, b.ID) })
	answer(w, "application/json", http.StatusOK, map[string]any{"room": r.PathValue("room"), "members": members, "count": roster.Count})
	return nil
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
