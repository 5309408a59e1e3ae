package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"parley/node/wire"
)

// A happening is what is noted of clients, so that one who complains can be found.
type happening int

const (
	connected happening = iota
	closed
	refused
	flooded // over a limit
	slow    // its queue was full
	happenings
)

func (h happening) String() string {
	return [...]string{"connected", "closed", "refused", "flooded", "slow"}[h]
}

// noteEvery is how often a happening is logged at info. What is left out in between is counted, and there at debug.
const noteEvery = 10 * time.Second

// notes are the log of what happens to clients. All methods may be called concurrently.
type notes struct {
	log *slog.Logger // static

	mu   sync.Mutex
	kept [happenings]struct {
		next  time.Time // no sooner is one logged at info
		since int       // left out since the last one
	} // guarded by mu
}

// note logs a happening.
func (n *notes) note(h happening, attrs ...slog.Attr) {
	level := slog.LevelDebug
	if since, ok := n.sample(h, time.Now()); ok {
		level = slog.LevelInfo
		if since > 0 {
			attrs = append(attrs, slog.Int("unlogged", since))
		}
	}
	n.log.LogAttrs(context.Background(), level, h.String(), attrs...)
}

// sample says whether a happening is logged at info, and how many were not since the last one that was.
func (n *notes) sample(h happening, now time.Time) (since int, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := &n.kept[h]
	if now.Before(k.next) {
		k.since++
		return 0, false
	}
	since, k.since, k.next = k.since, 0, now.Add(noteEvery)
	return since, true
}

// noteConnected notes a client that came. Its request's id, which it was answered, stands beside the connection's.
func (s *Server) noteConnected(sess *session, r *http.Request) {
	s.notes.note(connected, sess.connAttr(), sess.fromAttr(), slog.String("request", requestID(r.Context())),
		slog.String("user", sess.user.ID), slog.String("codec", sess.codec.String()))
}

// noteRefused notes what was answered with an error, but for what scanners and mistakes in programs cause.
func (n *notes) noteRefused(e *wire.Error, attrs ...slog.Attr) {
	h := refused
	switch e.Code {
	case wire.RateLimited:
		h = flooded
	case wire.Forbidden, wire.Unauthorized, wire.Unavailable, wire.TooLarge, wire.Conflict:
	default:
		return
	}
	n.note(h, append(attrs, slog.String("code", string(e.Code)), slog.String("err", e.Message))...)
}

// connAttr is what a connection is called in the log.
func (s *session) connAttr() slog.Attr { return slog.String("conn", fmt.Sprintf("%016x", s.id)) }

// fromAttr is where it calls from.
func (s *session) fromAttr() slog.Attr { return slog.String("from", s.from) }

// An answer remembers the error that a request was answered with.
type answer struct {
	http.ResponseWriter
	problem *wire.Error
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// noting notes the requests over HTTP that were refused.
func (s *Server) noting(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answer{ResponseWriter: w}
		h.ServeHTTP(a, r)
		if a.problem != nil {
			s.notes.noteRefused(a.problem, slog.String("from", r.RemoteAddr), slog.String("request", requestID(r.Context())),
				slog.String("path", r.URL.Path))
		}
	})
}
