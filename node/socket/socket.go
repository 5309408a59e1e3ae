// Package socket is what a client's connection is made of: the queue of what waits for the client, WebSocket frames (RFC 6455),
// and, on Linux, a poller instead of a goroutine for each idle connection. It knows descriptors, and nothing of rooms or users.
package socket

import (
	"log/slog"
	"net"
	"sync"
	"time"
)

// Config is what all connections of a Group have in common.
type Config struct {
	QueueBytes   int           // bytes that may wait for one client
	StallTimeout time.Duration // a client that takes nothing for so long is dropped
	MessageWait  time.Duration // a client may take so long over one message, once begun
	Log          *slog.Logger
}

// A Handler takes what comes over a connection. Conn calls its methods one at a time, from the goroutine that reads.
type Handler interface {
	// Ready reports whether the next message may be handled now: nothing that Wait would wait for is left.
	Ready() bool
	// Message handles a message, and must not wait. It keeps nothing of b. It returns false if it left something to Wait.
	Message(isText bool, b []byte) bool
	// Pong takes the payload of a ping that the client has read. It keeps nothing of it.
	Pong(payload []byte)
	// Wait does what Message left, and returns when Ready is true, or the connection has ended.
	Wait()
	// Broken is called for what breaks the protocol, or is too large: it is to Finish with that close code. Nothing that follows is
	// made sense of.
	Broken(code int, reason string)
	// Ended comes last, with the code that the connection was closed with.
	Ended(code int)
}

// A Group is the connections of one node.
type Group struct {
	cfg    Config         // static
	poller *poller        // static; nil where every connection has a goroutine
	wg     sync.WaitGroup // goroutines that read for a while, in place of the poller
}

// NewGroup makes a Group. Close ends it.
func NewGroup(cfg Config) *Group {
	g := &Group{cfg: cfg}
	var err error
	if g.poller, err = newPoller(); err != nil {
		cfg.Log.Warn("each connection takes a goroutine", "err", err)
	}
	return g
}

// Close ends the poller. All connections have ended.
func (g *Group) Close() {
	g.wg.Wait()
	if g.poller != nil {
		g.poller.close()
	}
}

// Stream takes over a connection on which the client only listens. head is the beginning of what it hears.
func (g *Group) Stream(nc net.Conn, head []byte) *Conn {
	c := g.newConn(nc)
	c.head, c.listens = head, true
	return c
}
