package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"parley/node/wire"
)

// A link is one connection. One goroutine reads it and hands out what comes, another writes what is queued.
type link struct {
	ctx    context.Context         // static; the connection ends with it
	end    context.CancelCauseFunc // static
	ws     *websocket.Conn         // static once connected
	lost   chan struct{}           // static; closed when the connection is lost
	queued chan struct{}           // static; tells the writer that there is something

	// Owned by the reader.
	buf       bytes.Buffer
	bye       *wire.Frame
	complaint *wire.Error        // the last that no request was waiting for
	began     time.Time          // when the node said welcome to the hello
	silence   *time.Timer        // ends a connection that says nothing
	welcomes  chan time.Duration // has how long the token lasts, after each welcome
	patience  time.Duration

	// Guarded by Client.mu.
	out     [][]byte
	last    uint64                       // request
	waiting map[uint64]func(*wire.Frame) // by request; called by the reader, without the lock
}

// errSilent is why a connection ends that says nothing.
var errSilent = errors.New("the node has been silent for too long")

const (
	connectTimeout = 10 * time.Second // of an attempt to connect, up to the first frame
	defaultPing    = 25 * time.Second // how often a node is taken to ping that does not say
	maxFrame       = 4 << 20          // far more than a node says in one frame
)

func newLink(ctx context.Context) *link {
	l := &link{
		lost:     make(chan struct{}),
		queued:   make(chan struct{}, 1),
		patience: connectTimeout,
		welcomes: make(chan time.Duration, 1),
		waiting:  make(map[uint64]func(*wire.Frame)),
	}
	l.ctx, l.end = context.WithCancelCause(ctx)
	l.silence = time.AfterFunc(l.patience, func() { l.end(errSilent) })
	return l
}

// serve says hello, and reads until the connection is lost. It returns why.
func (c *Client) serve(l *link) error {
	l.ws.SetReadLimit(maxFrame)
	var wg sync.WaitGroup
	wg.Go(func() { c.write(l) })
	if c.opts.TokenFunc != nil {
		wg.Go(func() { c.renew(l) })
	}
	c.mu.Lock()
	l.requestLocked(c.helloLocked(), func(f *wire.Frame) {
		if f.Op == "error" {
			l.end(f.Err())
		} else {
			c.welcomed(l, f)
		}
	})
	c.mu.Unlock()
	err := c.read(l)
	if cause := context.Cause(l.ctx); cause != nil {
		err = cause
	}
	l.silence.Stop()
	c.lose(l)
	l.end(nil)
	l.ws.CloseNow()
	wg.Wait()
	return err
}

// helloLocked says who the client is. It says since when the name is so, where that is known: by that the node knows who merely
// comes back from who has a new name.
func (c *Client) helloLocked() wire.Request {
	return wire.Request{Op: "hello", Token: c.token, Session: c.session, Name: c.name, Named: c.named}
}

// heard puts off the end of a silent connection.
func (l *link) heard() { l.silence.Reset(l.patience) }

func (c *Client) read(l *link) error {
	for {
		_, r, err := l.ws.Reader(l.ctx)
		if err != nil {
			return err
		}
		l.buf.Reset()
		if _, err := l.buf.ReadFrom(r); err != nil {
			return err
		}
		l.heard()
		f, err := wire.ParseFrame(l.buf.Bytes())
		if err != nil {
			return err
		}
		c.take(l, &f)
	}
}

// take hands a frame to whom it concerns.
func (c *Client) take(l *link, f *wire.Frame) {
	c.mu.Lock()
	room := c.rooms[f.Room]
	req, _ := strconv.ParseUint(string(f.Req), 10, 64) // ours begin at 1
	reply := l.waiting[req]
	delete(l.waiting, req)
	c.mu.Unlock()
	switch {
	case reply != nil:
		reply(f)
	case f.Op == "bye":
		l.bye = f
	case f.Op == "error":
		l.complaint = f.Err()
		c.opts.Log.Warn("the node reports an error", "err", f.Err())
	case room != nil:
		room.take(f)
	}
}

// welcomed puts the link into use.
func (c *Client) welcomed(l *link, f *wire.Frame) {
	l.patience = cmp.Or(time.Duration(f.Ping)*time.Second, defaultPing) * 22 / 10
	l.heard()
	l.began = time.Now()
	l.lasts(f)
	c.mu.Lock()
	c.greetLocked(f)
	c.link = l
	for _, r := range c.rooms {
		r.joinLocked()
	}
	close(c.up)
	c.unlock()
	c.opts.Status(Status{Up: true, Node: f.Node})
}

// lose takes the link out of use.
func (c *Client) lose(l *link) {
	c.mu.Lock()
	defer c.unlock()
	close(l.lost)
	if c.link != l {
		return
	}
	c.link = nil
	c.up = make(chan struct{})
	for _, r := range c.rooms {
		r.awayLocked()
	}
}

// requestLocked queues a request. reply is called by the reader, without the lock, but not if the connection is lost.
func (l *link) requestLocked(r wire.Request, reply func(*wire.Frame)) {
	l.last++
	r.Req = strconv.AppendUint(nil, l.last, 10)
	l.waiting[l.last] = reply
	l.out = append(l.out, r.Append(nil))
	select {
	case l.queued <- struct{}{}:
	default:
	}
}

// write writes what is queued until the connection is lost.
func (c *Client) write(l *link) {
	for {
		select {
		case <-l.queued:
		case <-l.lost:
			return
		}
		c.mu.Lock()
		frames := l.out
		l.out = nil
		c.mu.Unlock()
		for _, f := range frames {
			if err := l.ws.Write(l.ctx, websocket.MessageText, f); err != nil {
				l.end(err)
				return
			}
		}
	}
}

// close says goodbye to the node, and does not wait long for its answer.
func (l *link) close() {
	t := time.AfterFunc(time.Second, func() { l.end(ErrClosed) })
	defer t.Stop()
	l.ws.Close(websocket.StatusNormalClosure, "")
}
