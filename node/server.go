// Package node is one node of the service: it accepts clients, and passes what they say to a bus and what the bus brings to
// them.
package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"parley/bus"
	"parley/node/socket"
	"parley/node/web"
	"parley/node/wire"
)

// A Server serves the clients of one node.
type Server struct {
	cfg      Config             // static
	ctx      context.Context    // static; done when the node ends
	cancel   context.CancelFunc // static
	base     uint64             // static; the upper half of the ids of this node's connections
	draining atomic.Bool
	outage   outage
	bodies   bodies
	notes    notes

	flushers flushers
	batches  sync.Pool      // of *batch, for room.flushHere
	sockets  *socket.Group  // static
	buffers  sync.Pool      // of *sayBuffers
	wg       sync.WaitGroup // sessions, catch-ups and the janitor; see begin
	nextConn atomic.Uint32

	board  board
	users  users
	holder string // static; names this node among those that count connections

	connections atomic.Int64 // open ones, and those being opened
	addresses   addresses

	streamsMu sync.Mutex
	streams   map[string]*session // guarded by streamsMu; event streams of several rooms, by name
	nodeSubMu sync.Mutex
	nodeSub   bus.Subscription // guarded by nodeSubMu; nil before the first such stream

	roomsMu sync.Mutex
	rooms   map[string]*room // guarded by roomsMu
	roomsWG sync.WaitGroup   // rooms being opened
	shut    bool             // guarded by roomsMu; no room is opened any more

	endMu sync.Mutex
	ended bool // guarded by endMu; begin begins nothing any more

	sessionsMu sync.Mutex
	sessions   []*session    // guarded by sessionsMu
	closed     bool          // guarded by sessionsMu; no session is admitted any more
	empty      chan struct{} // guarded by sessionsMu; made by Shutdown, closed when the last session has ended
}

// New makes a Server. Shutdown ends it.
func New(cfg Config) *Server {
	s := &Server{
		cfg:   cfg.withDefaults(),
		base:  rand.Uint64() &^ 0xffffffff,
		rooms: make(map[string]*room),

		streams: make(map[string]*session),
	}
	s.addresses.limits = &s.cfg.Limits
	s.notes.log = s.cfg.Log
	s.holder = fmt.Sprintf("%x", s.base)
	s.batches.New = func() any { return new(batch) }
	s.buffers.New = func() any { return new(sayBuffers) }
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.flushers.start()
	s.sockets = socket.NewGroup(socket.Config{
		QueueBytes:   s.cfg.QueueBytes,
		StallTimeout: s.cfg.StallTimeout,
		MessageWait:  s.cfg.MessageWait,
		Log:          s.cfg.Log,
	})
	s.wg.Go(s.janitor)
	if s.cfg.Auth != nil || s.cfg.Apps != nil {
		s.board.begin()
		s.wg.Go(s.watchBoard)
		s.wg.Go(s.watchUsers)
	}
	return s
}

// begin has f run in a goroutine that Shutdown waits for. Once Shutdown waits it does nothing, and reports false: only what a session
// does, which Shutdown awaits before, may use wg itself.
func (s *Server) begin(f func()) bool {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	if !s.ended {
		s.wg.Go(f)
	}
	return !s.ended
}

// Handler serves everything public: the WebSocket, the page, HTTP under /v1, /healthz and /readyz.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	page := web.Handler()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if isUpgrade(r) && r.URL.Path == "/" {
			s.accept(w, r)
			return
		}
		if !s.servePage(page, w, r) {
			s.problem(w, notFound(r))
		}
	})
	mux.HandleFunc("/ws", s.accept)
	s.route(mux)
	return s.noting(s.answerInTime(mux))
}

// servePage serves the page, but for what it does not have: then it returns false.
func (s *Server) servePage(page http.Handler, w http.ResponseWriter, r *http.Request) bool {
	const allowed = "GET, HEAD, OPTIONS"
	found := web.Has(r.URL.Path)
	switch {
	case !found:
		return false
	case r.Method == http.MethodOptions:
		options(w, allowed)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", allowed)
		s.problemAs(w, http.StatusMethodNotAllowed, wire.Errorf(wire.Unsupported, "%s is not supported here: %s are", r.Method, allowed))
	default:
		page.ServeHTTP(w, r)
	}
	return true
}

// healthz says that the node lives.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) *wire.Error {
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprintln(w, "alive")
	return nil
}

// readyz says whether clients should be sent here.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) *wire.Error {
	if err := s.Ready(); err != nil {
		writeProblem(w, http.StatusServiceUnavailable, wire.Errorf(wire.Unavailable, "%v", err)) // which is no request of a client
		return nil
	}
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprintln(w, "ready")
	if parts, ok := s.cfg.Bus.(interface{ Away() []string }); ok { // some rooms suffer, and would at any node
		for _, away := range parts.Away() {
			fmt.Fprintln(w, "away:", away)
		}
	}
	return nil
}

// Ready says why clients should not be sent here: nil, or that the node drains, or what is wrong with its bus.
func (s *Server) Ready() error {
	if s.draining.Load() {
		return fmt.Errorf("not ready: shutting down")
	}
	if err := s.cfg.Bus.Ready(); err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	return nil
}

// newConnID returns an id for a caller, unique over all nodes.
func (s *Server) newConnID() uint64 { return s.base | uint64(s.nextConn.Add(1)) }

// isOwn reports whether an id is, or was, that of one of this node's callers.
func (s *Server) isOwn(conn uint64) bool { return conn&^0xffffffff == s.base }

// admit adds a session to the list. It returns false if the node takes no more.
func (s *Server) admit(sess *session) bool {
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	s.cfg.Observer.Connected(sess.codec.String())
	if s.closed || s.draining.Load() {
		sess.place = -1
		return false
	}
	sess.place = len(s.sessions)
	sess.nextPing = time.Now().Add(s.jitter(s.cfg.PingInterval)).UnixNano()
	s.sessions = append(s.sessions, sess)
	return true
}

// forget undoes admit.
func (s *Server) forget(sess *session) {
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	if sess.place < 0 {
		return
	}
	last := len(s.sessions) - 1
	s.sessions[sess.place] = s.sessions[last]
	s.sessions[sess.place].place = sess.place
	s.sessions[last] = nil
	s.sessions = s.sessions[:last]
	if last == 0 {
		s.emptyLocked()
	}
}

// jitter is d, give or take a tenth.
func (s *Server) jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}
