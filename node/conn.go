package node

import (
	"errors"
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
// queue is empty writes it. All methods may be called concurrently except Read.
type conn struct {
	net.Conn               // static
	fd       int           // static; the socket, or -1 where only Conn may write to it (TLS)
	limit    int           // static; bytes that may wait
	stall    time.Duration // static

	lastRead atomic.Int64 // Unix nanoseconds of the last bytes that came

	mu        sync.Mutex
	queue     []byte        // guarded by mu; what waits behind the drainer's
	taken     int           // guarded by mu; bytes that the drainer holds
	draining  bool          // guarded by mu; while true only drain writes to the socket
	finishing bool          // guarded by mu; the last frame is queued, nothing may follow it
	lingering bool          // guarded by mu; Close was called, drain closes when it is done
	closed    bool          // guarded by mu
	cause     error         // guarded by mu; why the node ended it
	freed     chan struct{} // guarded by mu; made by who waits for space, closed when there may be some
}

func newConn(nc net.Conn, limit int, stall time.Duration) *conn {
	c := &conn{Conn: nc, fd: socketOf(nc), limit: limit, stall: stall}
	c.lastRead.Store(time.Now().UnixNano())
	return c
}

// Read notes that the peer lives.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.lastRead.Store(time.Now().UnixNano())
	}
	return n, err
}

// Write takes the frames of the WebSocket library: pongs and closes, one frame a call. It never waits.
func (c *conn) Write(p []byte) (int, error) {
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
func (c *conn) deadLocked() bool { return c.closed || c.finishing }

func (c *conn) waitingLocked() int { return len(c.queue) + c.taken }

// drain writes the queue until it is empty.
func (c *conn) drain() {
	const chunk = 32 << 10 // a deadline's worth: progress within it counts
	for {
		c.mu.Lock()
		if c.closed || len(c.queue) == 0 {
			c.draining = false
			linger := c.lingering
			c.freeLocked()
			c.mu.Unlock()
			if linger {
				c.abort(nil)
			}
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

// waitForSpace returns once at most half of the queue's limit waits. It reports false if the connection has ended.
func (c *conn) waitForSpace() bool {
	for {
		c.mu.Lock()
		if c.deadLocked() || c.lingering {
			c.mu.Unlock()
			return false
		}
		if c.waitingLocked() <= c.limit/2 {
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

// finish puts the last frames, a close among them, and gives the peer closeWait to answer: reading fails after that.
func (c *conn) finish(b []byte, cause error) {
	c.mu.Lock()
	if c.deadLocked() {
		c.mu.Unlock()
		return
	}
	c.putLocked(b)
	c.finishing = true
	c.cause = cause
	c.freeLocked()
	c.mu.Unlock()
	c.Conn.SetReadDeadline(time.Now().Add(closeWait))
}

// Close ends the connection once what is queued has left.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.draining && !c.closed {
		c.lingering = true
		c.freeLocked()
		c.mu.Unlock()
		c.Conn.SetWriteDeadline(time.Now().Add(min(closeWait, c.stall)))
		c.Conn.SetReadDeadline(time.Now())
		return nil
	}
	c.mu.Unlock()
	return c.abort(nil)
}

// abort ends the connection at once. Reading from it fails; the cause is kept if it is the first.
func (c *conn) abort(cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if c.cause == nil {
		c.cause = cause
	}
	c.queue, c.taken = nil, 0
	c.freeLocked()
	return c.Conn.Close() // under mu: nobody may write to a descriptor that is somebody else's by now
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
