package node

import (
	"bytes"
	"net/http"

	"parley/bus/id"
	"parley/node/wire"
)

// events makes the connection a stream of Server-Sent Events: a session like any other, whose client only listens. It is
// taken over from the HTTP server, so that it has the same bounded queue, and costs the same.
func (s *Server) events(w http.ResponseWriter, r *http.Request) *wire.Error {
	if s.draining.Load() {
		return &wire.Error{Code: wire.Unavailable, Message: "this node is shutting down: connect again, to another", RetryAfter: s.retryAfter()}
	}
	who, bad := s.identify(r)
	if bad != nil {
		return bad
	}
	req := &wire.Request{Op: "join", Room: r.PathValue("room")}
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
	nc, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return wire.Errorf(wire.Unsupported, "event streams need HTTP/1.1")
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // or proxies keep it back
	h.Set("Connection", "close")
	head := bytes.NewBufferString("HTTP/1.1 200 OK\r\n")
	h.Write(head)
	head.WriteString("\r\n")
	s.start(s.newSession(sse, s.sockets.Stream(nc, head.Bytes()), who), req)
	return nil
}
