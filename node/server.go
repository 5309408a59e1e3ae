// Package node is one node of the service: it accepts clients, and passes what they say to a bus and what the bus brings to
// them.
package node

import (
	"context"
	"net/http"
)

// A Server serves the clients of one node.
type Server struct{ cfg Config }

// New makes a Server. Shutdown ends it.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// Handler serves everything public: the WebSocket, the page, /healthz and /readyz.
func (s *Server) Handler() http.Handler { return http.NotFoundHandler() }

// Shutdown hands the clients over to other nodes: /readyz fails and upgrades get 503 at once, then every client gets a
// goodbye and a close, spread over Config.Drain. It returns when the last one is gone, or ctx is done.
func (s *Server) Shutdown(ctx context.Context) error { return nil }
