package socket

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"parley/node/wire"
)

// closeWait is how long a peer may take to answer a close, and what waits for it to leave.
const closeWait = 5 * time.Second

// A Conn is a client's connection and the queue of what waits for it. Everything that is written, by the fan-out and by replies,
// passes through Put and Offer, in whole frames, so there is one order and no half-written frame.
//
// No writer ever waits: what the socket does not take at once is queued, and a goroutine that lives until the
// queue is empty writes it. All methods may be called concurrently, but for Serve.
type Conn struct {
	// What a write looks at comes first: to thousands of connections, what is apart in memory is slow.
	group     *Group     // static
	secure    *secure    // static; nil without TLS, and where only crypto/tls may use what is beneath
	fd        int        // static; the socket of nc, or -1 where only nc may use it
	mu        sync.Mutex // guards what says so
	corked    bool       // guarded by mu; all that is put is queued, until uncork
	draining  bool       // guarded by mu; while true only drain writes to the socket
	finishing bool       // guarded by mu; the last frame is queued, nothing may follow it
	hangUp    bool       // guarded by mu; drain ends the connection when it is done
	lingering bool       // guarded by mu; close was called, drain closes when it is done
	dead      bool       // guarded by mu; nothing is written any more
	closed    bool       // guarded by mu; the descriptor may be somebody else's
	head      []byte     // guarded by mu; the answer to the handshake, until it is given: nothing comes before it

	queue   []byte        // guarded by mu; what waits behind the drainer's
	taken   int           // guarded by mu; bytes that the drainer holds
	seen    progress      // guarded by mu; at the last look
	code    int           // guarded by mu; the close code for which the node ended it, zero for none
	expires time.Time     // guarded by mu; when Expire aborts it, zero for never
	freed   chan struct{} // guarded by mu; made by a waiter, closed when there may be space

	nc      net.Conn // static; under TLS what is beneath it, but where only crypto/tls may use that
	below   int      // static; the socket in any case, or -1: only to be asked about
	polled  bool     // static; it has no goroutine while it is idle
	listens bool     // static; the client only listens: it is no WebSocket

	lastRead atomic.Int64 // Unix nanoseconds of the last bytes that came
	waits    atomic.Bool  // nothing is read, as what was said before has to wait

	// Owned by the reader.
	handler Handler
	frames  frames
	rest    []byte // what has come and has to wait, or came with the handshake
	timed   bool   // the rest of what was begun is expected in time
	deaf    bool   // nothing that comes can be made sense of any more

	// Owned by the reader; set by the poller.
	slot, generation int32
}

func (g *Group) newConn(nc net.Conn) *Conn {
	c := &Conn{group: g, nc: nc}
	if g.poller != nil {
		if c.secure = secureOf(nc, c); c.secure != nil {
			c.nc = c.secure.under.Conn
		}
	}
	c.fd = socketOf(c.nc)
	c.below = c.fd
	for t, ok := nc.(interface{ NetConn() net.Conn }); ok && c.below < 0; t, ok = nc.(interface{ NetConn() net.Conn }) {
		nc = t.NetConn()
		c.below = socketOf(nc)
	}
	giveUpAfter(c.below, g.cfg.StallTimeout)
	c.polled = g.poller != nil && c.fd >= 0
	c.lastRead.Store(time.Now().UnixNano())
	return c
}

// Silence is how long nothing has come from the client, though it would have been read.
func (c *Conn) Silence(now time.Time) time.Duration {
	if c.waits.Load() {
		return 0
	}
	return now.Sub(time.Unix(0, c.lastRead.Load()))
}

// Offer writes or queues whole frames, unless the queue has no space for them: then it takes nothing and reports false.
func (c *Conn) Offer(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if (c.draining || c.corked) && c.waitingLocked()+len(b) > c.group.cfg.QueueBytes {
		return c.deadLocked()
	}
	c.putLocked(b)
	return true
}

// PutIfSpace puts whole frames if WaitForSpace would return at once; otherwise it takes nothing and reports false.
func (c *Conn) PutIfSpace(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasSpaceLocked() {
		return false
	}
	c.putLocked(b)
	return true
}

// Put writes or queues whole frames, beyond the limit too: the caller bounds what it puts, or waits for space first. The first
// Put answers the handshake, be there frames or not.
func (c *Conn) Put(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(b)
}

func (c *Conn) putLocked(b []byte) {
	if len(b)+len(c.head) == 0 || c.deadLocked() {
		return
	}
	if c.head != nil {
		b = append(c.head, b...)
		c.head = nil
	}
	if c.secure != nil {
		b = c.secure.seal(b)
	}
	c.sendLocked(b)
}

// sendLocked writes or queues bytes as the socket is to have them.
func (c *Conn) sendLocked(b []byte) {
	if len(b) == 0 {
		return
	}
	if !c.draining && !c.corked {
		n, err := writeNow(c.fd, b)
		c.brokenLocked(err)
		if err != nil || n == len(b) { // a broken socket is the reader's to notice
			return
		}
		b = b[n:]
		c.draining = true
		go c.drain() // ends when the queue is empty, or the connection closed
	}
	c.queue = append(c.queue, b...)
}

// cork has all that is put leave in one write, at uncork. Only the reader corks, and it does not wait meanwhile.
func (c *Conn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

func (c *Conn) uncork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return
	}
	c.corked = false
	if c.draining || len(c.queue) == 0 || c.dead {
		return
	}
	n, err := writeNow(c.fd, c.queue)
	c.brokenLocked(err)
	if err != nil || n == len(c.queue) {
		c.queue = nil
		c.freeLocked() // somebody may have found it full
		return
	}
	c.queue = c.queue[n:]
	c.draining = true
	go c.drain() // as in putLocked
}

// deadLocked reports that nothing can be said any more; what is put is dropped.
func (c *Conn) deadLocked() bool { return c.dead || c.finishing }

// Waiting is how many bytes wait for the client.
func (c *Conn) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waitingLocked()
}

func (c *Conn) waitingLocked() int { return len(c.queue) + c.taken }

// drain writes the queue until it is empty.
func (c *Conn) drain() {
	const chunk = 32 << 10 // a deadline's worth: progress within it counts
	defer c.endLookout(c.lookOut())
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
			c.nc.SetWriteDeadline(time.Now().Add(c.patience()))
			n, err := c.nc.Write(out[:min(chunk, len(out))])
			out = out[n:]
			c.mu.Lock()
			c.taken -= n
			if c.waitingLocked() <= c.group.cfg.QueueBytes/2 {
				c.freeLocked()
			}
			c.mu.Unlock()
			if err == nil || n > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			}
			code := 0
			if errors.Is(err, os.ErrDeadlineExceeded) || isGivenUp(err) {
				code = wire.StatusStalled
			}
			c.Abort(code)
			break
		}
	}
}

// A lookout puts the deadline of a drain's writes off for as long as the peer takes something: what it takes leaves the socket's buffer,
// but a write goes on only when a good part of that is free.
type lookout struct {
	timer *time.Timer
	seen  progress // guarded by Conn.mu
	over  bool     // guarded by Conn.mu
}

func (c *Conn) lookOut() *lookout {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &lookout{}
	every := c.group.cfg.StallTimeout / 4
	w.timer = time.AfterFunc(every, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if w.over || c.dead || c.lingering || c.finishing {
			return
		}
		if c.takesLocked(&w.seen) {
			c.nc.SetWriteDeadline(time.Now().Add(c.group.cfg.StallTimeout))
		}
		w.timer.Reset(every)
	})
	return w
}

func (c *Conn) endLookout(w *lookout) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// progress is how far the peer was with what it is told.
type progress struct {
	acked   uint64 // bytes that have arrived
	window  uint32 // bytes that it has space for
	waiting bool   // there were more
}

// takesLocked reports whether the peer has taken something since the last look, of what waited for it, and looks. What arrives in an
// empty buffer shows only that there is a buffer: that does not count, but space that grows does.
func (c *Conn) takesLocked(seen *progress) bool {
	now, ok := progressOf(c.below)
	if !ok {
		return false
	}
	now.waiting = now.waiting || c.draining
	last := *seen
	*seen = now
	return last != progress{} && (last.waiting && now.acked > last.acked || now.window > last.window)
}

// Takes reports whether the client has read something since the last call, of what had to wait for it.
func (c *Conn) Takes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && c.takesLocked(&c.seen)
}

func (c *Conn) patience() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lingering || c.finishing {
		return min(closeWait, c.group.cfg.StallTimeout)
	}
	return c.group.cfg.StallTimeout
}

func (c *Conn) freeLocked() {
	if c.freed != nil {
		close(c.freed)
		c.freed = nil
	}
}

// HasSpace reports whether WaitForSpace would return at once.
func (c *Conn) HasSpace() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasSpaceLocked()
}

func (c *Conn) hasSpaceLocked() bool {
	return c.deadLocked() || c.waitingLocked() <= c.group.cfg.QueueBytes/2
}

// isDead reports that nothing can be said any more.
func (c *Conn) isDead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadLocked()
}

// WaitForSpace returns once at most half of the queue's limit waits. It reports false if the connection has ended.
func (c *Conn) WaitForSpace() bool {
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

// Finish puts the last frames. The peer has closeWait to answer the close among them. Where the client only listens, the
// connection ends once they have left. The reader goes on until then.
func (c *Conn) Finish(b []byte, code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadLocked() {
		return
	}
	c.putLocked(b)
	c.finishing, c.hangUp = true, c.listens
	c.code = code
	c.expires = time.Now().Add(closeWait)
	c.freeLocked()
	if c.hangUp && !c.draining {
		c.abortLocked()
	}
}

// close ends the connection, once what is queued has left. The reader calls it, last of all.
func (c *Conn) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining && !c.dead {
		c.lingering = true
		c.freeLocked()
		c.nc.SetWriteDeadline(time.Now().Add(min(closeWait, c.group.cfg.StallTimeout)))
		return nil
	}
	return c.closeLocked()
}

func (c *Conn) closeLocked() error {
	if c.secure != nil && !c.dead && c.waitingLocked() == 0 {
		writeNow(c.fd, c.secure.goodbye())
	}
	c.dead, c.closed = true, true // under mu: nobody may use a descriptor that is somebody else's by now
	c.queue = nil
	c.freeLocked()
	return c.nc.Close()
}

// Abort ends the connection at once: the reader finds that it has ended. The first code is kept; zero is none.
func (c *Conn) Abort(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return
	}
	if c.code == 0 {
		c.code = code
	}
	c.abortLocked()
}

func (c *Conn) abortLocked() {
	if c.dead {
		return // and the descriptor may be somebody else's
	}
	c.dead = true
	c.queue = nil
	c.freeLocked()
	if !shutdownNow(c.fd) {
		c.closeLocked()
	}
}

// Expire aborts the connection if its time is over: the client does not answer a close, or not finish what it began to say.
func (c *Conn) Expire(now time.Time) {
	c.mu.Lock()
	expired := !c.expires.IsZero() && now.After(c.expires)
	c.mu.Unlock()
	if expired {
		c.Abort(0)
	}
}

// expireIn has Expire abort the connection.
func (c *Conn) expireIn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expires = time.Now().Add(d)
}

// expect sets how long the client may take to finish the message that it began. Zero ends that.
func (c *Conn) expect(d time.Duration) {
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

// isGivenUp reports that the kernel has given the peer up (see giveUpAfter). It says so once: to whoever reads or writes first.
func isGivenUp(err error) bool { return errors.Is(err, syscall.ETIMEDOUT) }

// brokenLocked notes why a write failed, if that is not the peer's doing: the reader only finds that the connection has ended.
func (c *Conn) brokenLocked(err error) {
	if isGivenUp(err) && c.code == 0 {
		c.code = wire.StatusStalled
	}
}

// awaitDrain returns once a drain has noted why the connection has ended, as the kernel may have told it and not the reader.
func (c *Conn) awaitDrain() {
	for {
		c.mu.Lock()
		if !c.draining || c.dead || !isOver(c.below) { // else its write fails at once
			c.mu.Unlock()
			return
		}
		if c.freed == nil {
			c.freed = make(chan struct{})
		}
		freed := c.freed
		c.mu.Unlock()
		<-freed
	}
}

// codeOf is the code that the connection was closed with, by the node or else by the peer. err ended the reading.
func (c *Conn) codeOf(err error) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.code != 0 {
		return c.code
	}
	if code := errClosed(0); errors.As(err, &code) {
		return int(code)
	}
	if isGivenUp(err) {
		return wire.StatusStalled
	}
	return wire.StatusAbnormal
}
