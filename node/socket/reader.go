package socket

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"parley/node/wire"
)

// A parked connection is read when something has come: a turn's worth of it is handled, and it is parked again, so that others have
// their turn. So it needs a goroutine only while one of its requests has to wait for something. Other connections (on other
// systems) have a goroutine that reads until the end. What is read goes the same way in both: take.

var (
	errNothing   = error(nothing{})
	errWouldWait = errors.New("this has to wait") // for space in the queue, or for what Handler.Wait waits for
)

// nothing is a net.Error, and a temporary one: TLS reads on after it.
type nothing struct{}

func (nothing) Error() string   { return "nothing to read yet" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

// errClosed ends the reading: the peer closed, with that code.
type errClosed int

func (errClosed) Error() string { return "the peer closed" }

const (
	turnBytes  = 4 << 10     // what is read in a turn: some 200 of the smallest requests
	pollBuffer = 64 << 10    // and of a message that was begun, up to so much
	restBuffer = 512         // what a goroutine reads at a time, of a client that says little
	deafWait   = time.Second // how long a client has to take in a close, if its answer would not be understood
)

var readBuffers = sync.Pool{New: func() any { b := make([]byte, turnBytes); return &b }}

// Serve reads and has h handle what the client says, until the connection ends or is parked: then it goes on by itself.
// Exactly one goroutine calls it, once. Where the connection is Polled it does not wait.
func (c *Conn) Serve(h Handler) {
	c.handler = h
	if c.polled {
		if c.unread() {
			c.park()
			return
		}
		buf := readBuffers.Get().(*[]byte)
		defer readBuffers.Put(buf)
		c.readPolled(*buf)
		return
	}
	err := c.take(c.rest, true)
	c.rest = nil
	for buf := make([]byte, restBuffer); err == nil; {
		var n int
		var ended error
		if n, ended = c.nc.Read(buf); n > 0 {
			c.lastRead.Store(time.Now().UnixNano())
			err = c.take(buf[:n], true)
		}
		err = cmp.Or(err, ended)
		if n == len(buf) { // there is more
			if n < turnBytes {
				buf = make([]byte, turnBytes)
			}
			runtime.Gosched() // the scheduler is not told of what is written (see writeNow)
		}
	}
	c.over(err)
}

// End ends a connection that is not to be served.
func (c *Conn) End(h Handler) {
	c.handler = h
	c.over(io.EOF)
}

// over ends the connection, for the error with which reading ended.
func (c *Conn) over(err error) {
	if c.polled {
		c.group.poller.remove(c)
	}
	c.awaitDrain()
	c.close() // once what is queued has left
	c.handler.Ended(c.codeOf(err))
}

// Polled reports whether the connection needs no goroutine while it is idle.
func (c *Conn) Polled() bool { return c.polled }

// unread reports that whatever has come is in the socket still: the poller is woken for it.
func (c *Conn) unread() bool { return c.rest == nil && c.secure == nil }

// park hands the connection to the poller.
func (c *Conn) park() {
	if !c.group.poller.park(c) {
		c.group.wg.Go(func() { c.over(io.ErrClosedPipe) }) // Ended may wait
	}
}

// readPolled is the poller's: it reads what has come, and parks the connection. What has to wait goes on in a goroutine.
func (c *Conn) readPolled(buf []byte) {
	switch err := c.readSome(buf, false); {
	case errors.Is(err, errWouldWait):
		c.group.wg.Go(c.servePolled)
	case err != nil:
		c.group.wg.Go(func() { c.over(err) }) // Ended may wait
	case c.secure != nil && c.secure.inside: // others have their turn; the poller is not woken for it
		c.group.wg.Go(c.servePolled)
	default:
		c.park()
	}
}

// servePolled is readPolled where waiting is allowed.
func (c *Conn) servePolled() {
	c.wait()
	if c.unread() {
		c.park()
		return
	}
	buf := readBuffers.Get().(*[]byte)
	defer readBuffers.Put(buf)
	err := c.readSome(*buf, true)
	for err == nil && c.secure != nil && c.secure.inside {
		runtime.Gosched()
		err = c.readSome(*buf, true)
	}
	if err != nil {
		c.over(err)
	} else {
		c.park()
	}
}

// readSome takes a turn's worth of what has come: a client that says more is read again after others. It returns nil then, and
// otherwise why it ended.
func (c *Conn) readSome(buf []byte, mayWait bool) error {
	if rest := c.rest; rest != nil { // what could not wait before
		c.rest = nil
		if err := c.take(rest, mayWait); err != nil {
			return err
		}
	}
	n, err := c.readNow(buf[:min(turnBytes+c.frames.left, len(buf))])
	if err == nil {
		err = c.take(buf[:n], mayWait)
	}
	if errors.Is(err, errNothing) {
		err = nil
	}
	if err == nil && c.secure != nil {
		c.timeRecord()
	}
	return err
}

// readNow reads what the client has said, without waiting: errNothing if it has said nothing, io.EOF at the end.
func (c *Conn) readNow(b []byte) (int, error) {
	if c.secure == nil {
		return c.readSocket(b)
	}
	n, err := c.secure.read(b)
	c.flushSecure()
	return n, err
}

// take handles what has come. It returns the error with which the connection has ended, or errWouldWait: then what is left is in
// rest. What a client says while the answers don't fit into its queue is not taken, so there is space for one.
func (c *Conn) take(b []byte, mayWait bool) error {
	if c.listens {
		return nil
	}
	defer c.uncork()
	for len(b) > 0 && !c.deaf {
		if !c.HasSpace() || !c.handler.Ready() {
			if !mayWait {
				c.rest = bytes.Clone(b)
				return errWouldWait
			}
			c.wait()
		}
		op, payload, rest, bad := c.frames.next(b)
		b = rest
		if len(b) > 0 {
			c.cork() // more answers may come, and leave together
		}
		if bad == nil && op == wire.OpClose {
			return c.answerClose(payload)
		}
		if bad != nil {
			c.fail(bad)
			return nil
		}
		if c.timed && op != 0 && !c.frames.amid() {
			c.timed = false
			c.expect(0) // it is whole
		}
		waits := false
		switch op {
		case wire.OpPing:
			var frame [2 + 125]byte
			c.Put(appendControl(frame[:0], wire.OpPong, payload))
		case wire.OpPong:
			c.handler.Pong(payload)
		case wire.OpText, wire.OpBinary:
			waits = !c.isDead() && !c.handler.Message(op == wire.OpText, payload) // dead: the close is on its way
			c.frames.release()
		}
		if waits {
			if !mayWait {
				if len(b) > 0 {
					c.rest = bytes.Clone(b)
				}
				return errWouldWait
			}
			c.wait()
		}
	}
	if !c.timed && c.frames.begun() && !c.deaf {
		c.timed = true
		c.expect(c.group.cfg.MessageWait)
	}
	return nil
}

// wait waits for what the next message has to wait for. The client is not silent meanwhile, but is not listened to. Others have their
// turn then, though it may have been over at once: what it says may be as dear as a join.
func (c *Conn) wait() {
	c.uncork()
	c.waits.Store(true)
	c.WaitForSpace()
	c.handler.Wait()
	c.lastRead.Store(time.Now().UnixNano())
	c.waits.Store(false)
	runtime.Gosched()
}

// answerClose answers a close with its code, unless this side has closed before (RFC 6455 section 5.5.1).
func (c *Conn) answerClose(payload []byte) error {
	code, bad := closeCode(payload)
	if bad != nil {
		c.fail(bad)
		return nil
	}
	var frame [2 + 125]byte
	c.Put(appendControl(frame[:0], wire.OpClose, payload))
	return errClosed(code)
}

// fail closes the connection, as the client broke the protocol. What else it says is read, so that it gets to know, and dropped.
func (c *Conn) fail(bad *breach) {
	c.handler.Broken(bad.code, bad.reason)
	c.expireIn(deafWait)
	c.deaf = true
	c.frames = frames{}
}
