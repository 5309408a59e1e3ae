package socket

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/coder/websocket"

	"parley/node/wire"
)

// The reader of a polled connection reads what has come, handles the messages that are whole, keeps the beginning of one that is
// not, and parks the connection again. So a connection needs a goroutine only while one of its requests has to wait for
// something. Other connections (TLS, other systems) have a goroutine that reads until the end.

var (
	errNothing   = errors.New("nothing to read yet")
	errWouldWait = errors.New("this has to wait") // for space in the queue, or for what Handler.Wait waits for
)

const (
	pollBuffer = 64 << 10    // what the poller reads in one go
	deafWait   = time.Second // how long a client has to take in a close, if its answer would not be understood
)

var readBuffers = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}

// Serve reads and has h handle what the client says, until the connection ends or is parked: then it goes on by itself.
// Exactly one goroutine calls it, once.
func (c *Conn) Serve(h Handler) {
	c.handler = h
	switch {
	case c.polled:
		c.servePolled()
	case c.ws == nil:
		_, err := io.Copy(io.Discard, library{c.nc, c})
		c.over(cmp.Or(err, io.EOF))
	default:
		var err error
		for err == nil {
			c.WaitForSpace()
			h.Wait()
			err = c.readOne(true)
		}
		c.over(err)
	}
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
	if c.ws != nil {
		c.ws.CloseNow() // which closes c, once what is queued has left
	} else {
		c.close()
	}
	c.handler.Ended(c.closeCode(err))
}

// readPolled is the poller's: it reads what has come, and parks the connection. What has to wait goes on in a goroutine.
func (c *Conn) readPolled(buf []byte) {
	switch err := c.readSome(buf, false); {
	case errors.Is(err, errWouldWait):
		c.group.wg.Go(c.servePolled)
	case err != nil:
		c.group.wg.Go(func() { c.over(err) }) // Ended may wait
	case !c.group.poller.park(c):
		c.group.wg.Go(func() { c.over(io.ErrClosedPipe) })
	}
}

// servePolled is readPolled where waiting is allowed.
func (c *Conn) servePolled() {
	buf := readBuffers.Get().(*[]byte)
	defer readBuffers.Put(buf)
	c.handler.Wait()
	if err := c.readSome(*buf, true); err != nil {
		c.over(err)
	} else if !c.group.poller.park(c) {
		c.over(io.ErrClosedPipe)
	}
}

// readSome handles what has come, as much as it reads in one go: a client that says more than that is read again after
// others. It returns nil then, and otherwise why it ended.
func (c *Conn) readSome(buf []byte, mayWait bool) error {
	rest, err := c.handleWhole(c.begun, mayWait) // what could not wait before
	c.keep(rest)
	if err != nil {
		return err
	}
	n, err := c.readNow(buf)
	if errors.Is(err, errNothing) {
		return nil
	}
	if err != nil {
		return err
	}
	b := buf[:n]
	if len(c.begun) > 0 {
		c.begun = append(c.begun, b...)
		b = c.begun
	}
	rest, err = c.handleWhole(b, mayWait)
	c.keep(rest)
	return err
}

// keep keeps what is left of what was read, and sees to it that a message which was begun is finished in time.
func (c *Conn) keep(rest []byte) {
	switch {
	case len(rest) > 0:
		if c.begun == nil {
			c.expect(c.group.cfg.MessageWait)
		}
		c.begun = append(c.begun[:0], rest...)
	case c.begun != nil:
		c.begun = nil
		c.expect(0)
	}
}

// handleWhole handles the messages in b that are whole, and returns what is behind them.
func (c *Conn) handleWhole(b []byte, mayWait bool) (rest []byte, err error) {
	if c.ws == nil || c.deaf {
		return nil, nil
	}
	for len(b) > 0 {
		if !c.hasSpace() || !c.handler.Ready() {
			if !mayWait {
				return b, errWouldWait
			}
			c.WaitForSpace()
			c.handler.Wait()
		}
		n, v := wholeMessage(b)
		switch v {
		case partial:
			return b, nil
		case tooBig:
			c.handler.TooBig()
			c.expireIn(deafWait)
			c.deaf = true
			return nil, nil
		case ping:
			c.Put(appendPong(nil, b[:n]))
		case whole:
			c.given = b[:n]
			err = c.readOne(mayWait)
		}
		b = b[n:]
		if err != nil {
			return b, err
		}
	}
	return nil, nil
}

var messageBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooled is the largest buffer worth keeping.
const maxPooled = 16 << 10

// readOne has the library read one message, and the handler handle it. It returns the error with which the connection has
// ended, or errWouldWait. What a client says while the answers don't fit into its queue is not read, so there is space.
func (c *Conn) readOne(mayWait bool) error {
	kind, r, err := c.ws.Reader(context.Background())
	if err != nil {
		return err
	}
	buf := messageBuffers.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= maxPooled {
			messageBuffers.Put(buf)
		}
	}()
	buf.Reset()
	if _, err := buf.ReadFrom(r); err != nil {
		return err
	}
	if c.isDead() || c.handler.Message(kind == websocket.MessageText, buf.Bytes()) { // dead: the close is on its way
		return nil
	}
	if !mayWait {
		return errWouldWait
	}
	c.handler.Wait()
	return nil
}

// A library is a Conn as the WebSocket library knows it.
type library struct {
	net.Conn
	c *Conn
}

// Read reads from the message at hand, or what came with the handshake, and then, unless the connection is polled, from the
// socket, noting that the peer lives.
func (l library) Read(p []byte) (int, error) {
	c := l.c
	if len(c.given) > 0 {
		n := copy(p, c.given)
		c.given = c.given[n:]
		return n, nil
	}
	if c.polled {
		return 0, io.ErrUnexpectedEOF // the message is improper, and so the end
	}
	n, err := c.nc.Read(p)
	if n > 0 {
		c.lastRead.Store(time.Now().UnixNano())
	}
	return n, err
}

// Write takes the library's own frames, pongs and closes, one frame a call. Only the reader writes so. It waits for space for a
// pong: a client that asks for more than it takes is not read meanwhile.
func (l library) Write(p []byte) (int, error) {
	if len(p) > 0 && p[0]&0x0f == wire.OpPong {
		l.c.WaitForSpace()
	}
	l.c.Put(p)
	return len(p), nil
}

// Close ends the connection, once what is queued has left.
func (l library) Close() error { return l.c.close() }
