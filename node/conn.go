package node

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"parley/node/wire"
)

// closeWait is how long a peer may take to answer a close, and what waits for it to leave.
const closeWait = 5 * time.Second

// errStalled ends a client that took nothing for Config.StallTimeout.
var errStalled = errors.New("the client takes nothing")

// errSilent ends a client that does not answer pings.
var errSilent = errors.New("the client does not answer")

// A conn is a client's connection and the queue of what waits for it. Everything that is written, by the fan-out, by replies
// and by the WebSocket library, passes through put, in whole frames, so there is one order and no half-written frame.
//
// Nobody who writes ever waits: what the socket does not take at once is queued, and a goroutine that lives until the
// queue is empty writes it. All methods may be called concurrently except Read, and those of the reader in turn.go.
type conn struct {
	net.Conn               // static
	fd       int           // static; the socket, or -1 where only Conn may use it (TLS)
	limit    int           // static; bytes that may wait
	stall    time.Duration // static

	lastRead atomic.Int64 // Unix nanoseconds of the last bytes that came

	// Owned by the reader.
	turns bool   // static; it reads by turns
	begun []byte // then: what has come of a message, and what is behind the one at hand
	given []byte // what Read reads first: the message at hand

	mu        sync.Mutex
	queue     []byte        // guarded by mu; what waits behind the drainer's
	taken     int           // guarded by mu; bytes that the drainer holds
	draining  bool          // guarded by mu; while true only drain writes to the socket
	finishing bool          // guarded by mu; the last frame is queued, nothing may follow it
	hangUp    bool          // guarded by mu; drain ends the connection when it is done
	lingering bool          // guarded by mu; Close was called, drain closes when it is done
	dead      bool          // guarded by mu; nothing is written any more
	closed    bool          // guarded by mu; the descriptor may be somebody else's
	cause     error         // guarded by mu; why the node ended it
	expires   time.Time     // guarded by mu; when the sweep aborts it, zero for never
	freed     chan struct{} // guarded by mu; made by who waits for space, closed when there may be some
}

func newConn(nc net.Conn, limit int, stall time.Duration) *conn {
	c := &conn{Conn: nc, fd: socketOf(nc), limit: limit, stall: stall}
	c.lastRead.Store(time.Now().UnixNano())
	return c
}

// Read reads from the message at hand, or what came with the handshake, and then, unless the reader reads by turns, from the
// socket, noting that the peer lives.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.given) > 0 {
		n := copy(p, c.given)
		c.given = c.given[n:]
		return n, nil
	}
	if c.turns {
		return 0, io.ErrUnexpectedEOF // the message is improper, and so the end
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.lastRead.Store(time.Now().UnixNano())
	}
	return n, err
}

// Write takes the frames of the WebSocket library: pongs and closes, one frame a call. Only the reader writes so. It waits for
// space for a pong: who asks for more than it takes is not read meanwhile.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) > 0 && p[0]&0x0f == wire.OpPong {
		c.waitForSpace()
	}
	c.put(p)
	return len(p), nil
}

// offer writes or queues whole frames, unless the queue has no space for them: then it takes nothing and reports false.
func (c *conn) offer(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining && c.waitingLocked()+len(b) > c.limit {
		return c.deadLocked()
	}
	c.putLocked(b)
	return true
}

// put writes or queues whole frames, beyond the limit too: who calls it bounds what it puts, or waits for space first.
func (c *conn) put(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(b)
}

func (c *conn) putLocked(b []byte) {
	if len(b) == 0 || c.deadLocked() {
		return
	}
	if !c.draining {
		n, err := writeNow(c.fd, b)
		if err != nil || n == len(b) { // a broken socket is the reader's to notice
			return
		}
		b = b[n:]
		c.draining = true
		go c.drain() // ends when the queue is empty, or the connection closed
	}
	c.queue = append(c.queue, b...)
}

// deadLocked reports that nothing can be said any more; what is put is dropped.
func (c *conn) deadLocked() bool { return c.dead || c.finishing }

func (c *conn) waitingLocked() int { return len(c.queue) + c.taken }

// drain writes the queue until it is empty.
func (c *conn) drain() {
	const chunk = 32 << 10 // a deadline's worth: progress within it counts
	for {
		c.mu.Lock()
		if c.dead || len(c.queue) == 0 {
			c.draining = false
			c.freeLocked()
			if c.lingering {
				c.closeLocked()
			} else if c.hangUp {
				c.abortLocked()
			}
			c.mu.Unlock()
			return
		}
		out := c.queue
		c.queue, c.taken = nil, len(out)
		c.mu.Unlock()

		for len(out) > 0 {
			c.Conn.SetWriteDeadline(time.Now().Add(c.patience()))
			n, err := c.Conn.Write(out[:min(chunk, len(out))])
			out = out[n:]
			c.mu.Lock()
			c.taken -= n
			if c.waitingLocked() <= c.limit/2 {
				c.freeLocked()
			}
			c.mu.Unlock()
			if err == nil || n > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = errStalled
			}
			c.abort(err)
			break
		}
	}
}

func (c *conn) patience() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lingering || c.finishing {
		return min(closeWait, c.stall)
	}
	return c.stall
}

func (c *conn) freeLocked() {
	if c.freed != nil {
		close(c.freed)
		c.freed = nil
	}
}

// hasSpace reports whether waitForSpace would return at once.
func (c *conn) hasSpace() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasSpaceLocked()
}

func (c *conn) hasSpaceLocked() bool { return c.deadLocked() || c.waitingLocked() <= c.limit/2 }

// isDead reports that nothing can be said any more.
func (c *conn) isDead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadLocked()
}

// waitForSpace returns once at most half of the queue's limit waits. It reports false if the connection has ended.
func (c *conn) waitForSpace() bool {
	for {
		c.mu.Lock()
		if c.deadLocked() || c.lingering {
			c.mu.Unlock()
			return false
		}
		if c.hasSpaceLocked() {
			c.mu.Unlock()
			return true
		}
		if c.freed == nil {
			c.freed = make(chan struct{})
		}
		freed := c.freed
		c.mu.Unlock()
		<-freed
	}
}

// finish puts the last frames, and gives the peer closeWait to answer the close among them. Where there is none to answer, it
// hangs up once they have left.
func (c *conn) finish(b []byte, cause error, hangUp bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadLocked() {
		return
	}
	c.putLocked(b)
	c.finishing, c.hangUp = true, hangUp
	c.cause = cause
	c.expires = time.Now().Add(closeWait)
	c.freeLocked()
	if hangUp && !c.draining {
		c.abortLocked()
	}
}

// Close ends the connection, once what is queued has left. The reader calls it, last of all.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining && !c.dead {
		c.lingering = true
		c.freeLocked()
		c.Conn.SetWriteDeadline(time.Now().Add(min(closeWait, c.stall)))
		return nil
	}
	return c.closeLocked()
}

func (c *conn) closeLocked() error {
	c.dead, c.closed = true, true // under mu: nobody may use a descriptor that is somebody else's by now
	c.queue = nil
	c.freeLocked()
	return c.Conn.Close()
}

// abort ends the connection at once: the reader finds that it has ended. The first cause is kept.
func (c *conn) abort(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return
	}
	if c.cause == nil {
		c.cause = cause
	}
	c.abortLocked()
}

func (c *conn) abortLocked() {
	c.dead = true
	c.queue = nil
	c.freeLocked()
	if !shutdownNow(c.fd) {
		c.closeLocked()
	}
}

// abortIfExpired ends a connection whose time is over: it does not answer a close, or not finish what it began to say.
func (c *conn) abortIfExpired(now time.Time) {
	c.mu.Lock()
	expired := !c.expires.IsZero() && now.After(c.expires)
	c.mu.Unlock()
	if expired {
		c.abort(errSilent)
	}
}

// expireIn has the sweep abort the connection.
func (c *conn) expireIn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expires = time.Now().Add(d)
}

// expect gives the client that long to finish what it began to say; zero takes that back.
func (c *conn) expect(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.finishing:
	case d == 0:
		c.expires = time.Time{}
	case c.expires.IsZero():
		c.expires = time.Now().Add(d)
	}
}

// why is the reason for which the node ended the connection, nil if it did not.
func (c *conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// appendClose appends a close frame. A reason is cut to what a control frame holds (RFC 6455 section 5.5).
func appendClose(dst []byte, code int, reason string) []byte {
	if len(reason) > 123 {
		reason = reason[:123]
	}
	dst = wire.AppendHeader(dst, wire.OpClose, 2+len(reason))
	dst = append(dst, byte(code>>8), byte(code))
	return append(dst, reason...)
}
