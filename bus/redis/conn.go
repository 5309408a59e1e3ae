package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"parley/bus"
	"parley/bus/redis/resp"
)

// A link publishes what is said in some of the rooms, and receives their channels. Each room belongs to one link, by the hash
// of its name. A link makes one connection after the other, and uses one for both directions: a node's own message comes
// with the answer to it. Two connections would cost Redis one more write, and the node one more wake-up. In 500 rooms of ten at
// 2,500 messages a second one connection spared a seventh of the CPU time of nodes and Redis. README.md says why go-redis
// does not make this connection.
//
// No library reconnects or sends again, so the link knows exactly what was sent and not answered.
type link struct {
	bus  *Bus
	wake chan struct{} // capacity 1: the writer has something to look at

	publisher  publisher  // what is to be published
	subscriber subscriber // what is to be received

	mu   sync.Mutex
	conn net.Conn // guarded by mu; nil while there is none
}

// A conn is one connection of a link.
type conn struct {
	net.Conn // static

	mu      sync.Mutex
	awaited []awaited // guarded by mu; what was sent and not answered yet, the oldest first

	asked map[string]bool // owned by the writer; channels subscribed to, or about to be
}

// awaited is a command that was sent: an op, or a SUBSCRIBE or UNSUBSCRIBE of so many channels, each with its confirmation.
type awaited struct {
	op       *op
	channels int
}

const (
	linkBuffer = 64 << 10 // what is read in one go
	yieldAfter = 32       // values that are received before others get their turn, however many there are
)

func newLink(r *Bus) *link {
	l := &link{bus: r, wake: make(chan struct{}, 1)}
	l.publisher.init(l)
	l.subscriber.init(l)
	return l
}

// linkOf is the link that a room is hashed to.
func (r *Bus) linkOf(room string) *link { return r.links[hash(room)%uint32(len(r.links))] }

// hash is FNV-1a.
func hash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

// run makes one connection after the other. While there is none, what is published fails.
func (l *link) run() {
	for {
		err := l.serve()
		if l.bus.ctx.Err() != nil {
			l.publisher.finish()
			l.publisher.broke(bus.ErrClosed)
			return
		}
		l.bus.complain("connection lost", err)
		l.publisher.broke(unavailable(err))
		select {
		case <-time.After(50*time.Millisecond + rand.N(200*time.Millisecond)):
		case <-l.bus.ctx.Done():
		}
	}
}

// serve makes a connection, and reads and writes until it breaks.
func (l *link) serve() error {
	ctx, cancel := context.WithCancel(l.bus.ctx)
	defer cancel()
	nc, err := l.bus.connect(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.conn = nc
	l.mu.Unlock()
	if l.bus.ctx.Err() != nil { // drop may have come too early
		l.drop()
	}
	c := &conn{Conn: nc, asked: make(map[string]bool)}
	l.subscriber.begin()
	var writer sync.WaitGroup
	writer.Go(func() { l.write(ctx, c) })
	err = l.read(c)
	cancel()
	l.drop()
	_ = nc.Close()
	writer.Wait()
	l.mu.Lock()
	l.conn = nil
	l.mu.Unlock()
	return err
}

// drop closes the connection, if there is one, at once. Under TLS it closes the TCP connection: TLS's goodbye could block.
func (l *link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch c := l.conn.(type) {
	case nil:
	case *tls.Conn:
		_ = c.NetConn().Close()
	default:
		_ = c.Close()
	}
}

// write sends changes of subscriptions and batches, in one write what there is at the time.
func (l *link) write(ctx context.Context, c *conn) {
	var out []byte
	for {
		time.Sleep(l.publisher.early())
		var await []awaited
		out, await = l.subscriber.appendChanges(out[:0], c)
		out, await = l.publisher.appendBatch(out, await, c)
		if len(out) == 0 {
			select {
			case <-l.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		c.mu.Lock()
		c.awaited = append(c.awaited, await...)
		c.mu.Unlock()
		if _, err := c.Write(out); err != nil {
			l.drop() // the reader notices
			return
		}
		if cap(out) > batchBytes {
			out = nil
		}
	}
}

// read takes what comes until the connection breaks.
func (l *link) read(c *conn) error {
	var parser resp.Parser
	buf := make([]byte, linkBuffer)
	kept, values := 0, 0 // bytes of a value that has not all come; values read
	for {
		n, err := c.Read(buf[kept:])
		if errors.Is(err, os.ErrDeadlineExceeded) && !l.publisher.isLate(c) {
			err = nil
		}
		if err != nil {
			return err
		}
		rest := buf[:kept+n]
		for len(rest) > 0 {
			v, size, err := parser.Parse(rest)
			if err != nil {
				return err
			}
			if size == 0 {
				break
			}
			if err := l.take(c, v); err != nil {
				return err
			}
			rest = rest[size:]
			if values++; values%yieldAfter == 0 {
				runtime.Gosched() // see quietSocket
			}
		}
		// What was said comes before its answer, where both have come: a sender gets them in one write.
		l.publisher.settle()
		kept = copy(buf, rest)
		switch {
		case kept == len(buf): // a value that is larger
			buf = append(buf, make([]byte, len(buf))...)
		case kept == 0 && len(buf) > linkBuffer:
			buf = make([]byte, linkBuffer)
		}
	}
}

// take handles one value that came. The bytes in it are good only until it returns.
func (l *link) take(c *conn, v resp.Value) error {
	if v.Kind == resp.Push && len(v.Elems) == 3 {
		switch string(v.Elems[0].Text) {
		case "message":
			l.subscriber.receive(v.Elems[1].Text, v.Elems[2].Text)
			return nil
		case "subscribe", "unsubscribe":
			l.subscriber.confirm(string(v.Elems[1].Text), string(v.Elems[0].Text) == "subscribe")
			return c.confirmed()
		}
	}
	if v.Kind == resp.Push {
		return nil // of no concern to us
	}
	o, err := c.answered(v)
	if err != nil {
		return err
	}
	l.publisher.answered(o, v)
	return nil
}

var errUnasked = errors.New("the server answered what it was not asked")

// confirmed counts a confirmation of a channel of the oldest subscription.
func (c *conn) confirmed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.awaited) == 0 || c.awaited[0].op != nil {
		return errUnasked
	}
	if c.awaited[0].channels--; c.awaited[0].channels == 0 {
		c.popLocked()
	}
	return nil
}

// answered gives the op that v answers. Subscriptions are answered only if they are refused.
func (c *conn) answered(v resp.Value) (*op, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.awaited) == 0:
		return nil, errUnasked
	case c.awaited[0].op != nil:
		o := c.awaited[0].op
		c.popLocked()
		return o, nil
	case v.Kind == resp.Error:
		return nil, fmt.Errorf("subscribe: %s", v.Text)
	}
	return nil, errUnasked
}

func (c *conn) popLocked() {
	c.awaited[0] = awaited{}
	if c.awaited = c.awaited[1:]; len(c.awaited) == 0 {
		c.awaited = nil
	}
}

// sendBeat sends a heartbeat the way that messages go.
func (l *link) sendBeat() { l.publisher.add(newPlainOp(l.subscriber.beats, "", nil)) }

// connect makes a connection that speaks version 3 of the protocol, to a server that knows append.lua.
func (r *Bus) connect(ctx context.Context) (net.Conn, error) {
	conn, err := r.options.Dialer(ctx, r.options.Network, r.options.Addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = conn.SetDeadline(time.Now().Add(r.cfg.Timeout))
	if err := r.greet(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if !stop() {
		_ = conn.Close()
		return nil, context.Cause(ctx)
	}
	return conn, conn.SetDeadline(time.Time{})
}

// greet logs in, chooses the database and loads append.lua.
func (r *Bus) greet(conn net.Conn) error {
	o := r.options
	hello := []string{"HELLO", "3"}
	if o.Password != "" {
		user := o.Username
		if user == "" {
			user = "default"
		}
		hello = append(hello, "AUTH", user, o.Password)
	}
	out := resp.Append(nil, hello...)
	out = resp.AppendInt(resp.AppendArg(resp.AppendCommand(out, 2), "SELECT"), int64(r.db))
	out = appendLoad(out)
	if _, err := conn.Write(out); err != nil {
		return err
	}
	var parser resp.Parser
	var got []byte
	for answers := 0; answers < 3; {
		v, size, err := parser.Parse(got)
		if err != nil {
			return err
		}
		if size > 0 {
			if v.Kind == resp.Error {
				return refusal(v.Text)
			}
			got = got[size:]
			answers++
			continue
		}
		var buf [512]byte
		n, err := conn.Read(buf[:])
		if err != nil {
			return err
		}
		got = append(got, buf[:n]...)
	}
	return nil
}

// tryLink finds out whether links can be had.
func (r *Bus) tryLink(ctx context.Context) error {
	conn, err := r.connect(ctx)
	if err != nil {
		return fmt.Errorf("a connection in version 3 of the protocol, which Redis 6.2 and newer speak: %w", err)
	}
	return conn.Close()
}
