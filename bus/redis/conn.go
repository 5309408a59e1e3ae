package redis

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
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
	mender     mender     // what is to be found out before anything is published

	mu   sync.Mutex
	conn *serverConn // guarded by mu; nil while there is none
}

// A conn is one connection of a link.
type conn struct {
	*serverConn // static

	mu      sync.Mutex
	awaited []awaited // guarded by mu; what was sent and not answered yet, the oldest first
	since   time.Time // guarded by mu; when something began to be awaited

	asked map[string]bool // owned by the writer; channels subscribed to, or about to be
	heard time.Time       // owned by the reader, which begins with the time of the connection; when something last came
}

// awaited is a command that was sent: an op; a SUBSCRIBE or UNSUBSCRIBE of channels, each with its confirmation; or another, whose
// answer goes to a function. The reader calls that, also when the connection breaks: with an error then.
type awaited struct {
	op       *op
	channels []string // those not confirmed yet
	ends     string   // the channel of an SUNSUBSCRIBE and its fence; see ending
	answer   func(resp.Value)
}

const (
	linkBuffer = 64 << 10 // what is read in one go
	yieldAfter = 32       // values that are received before others get their turn, however many there are
)

func newLink(r *Bus) *link {
	l := &link{bus: r, wake: make(chan struct{}, 1)}
	l.publisher.init(l)
	l.subscriber.init(l)
	l.mender.link = l
	return l
}

// enter has the link subscribe to a room, and ask what its log has lost. In this order: a connection that is made meanwhile forgets what was
// to be asked, and then asks about the rooms that are subscribed to.
func (l *link) enter(rm *room, ask bool) {
	l.subscriber.want(rm)
	if ask {
		l.mender.add([]*room{rm}, nil)
	}
}

// linkOf is the link that a room is hashed to.
func (r *Bus) linkOf(room string) *link { return r.links[hash(room)%uint32(len(r.links))] }

// hash is FNV-1a, stirred: its lowest bit is only that of all bytes together, so that names such as dm:X:X would share a link.
func hash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	h = (h ^ h>>16) * 0x85ebca6b
	return h ^ h>>13
}

// Between two connections a link waits: the longer the more often they failed, and the more at random the more rooms it has, so that
// the nodes of a cluster do not come back all at once to a server that has too much to do.
const (
	minBackoff   = 100 * time.Millisecond
	maxBackoff   = 2 * time.Second
	spreadByRoom = 50 * time.Microsecond
)

// run makes one connection after the other. While there is none, what is published fails.
func (l *link) run() {
	backoff := minBackoff
	for {
		worked := l.subscriber.connections.Load()
		err := l.serve()
		if l.subscriber.connections.Load() > worked {
			backoff = minBackoff
		}
		if l.bus.ctx.Err() != nil {
			l.publisher.finish()
			l.publisher.broke(bus.ErrClosed)
			return
		}
		if !errors.Is(err, errOutside) { // before the first attempt to be let in
			l.bus.complain("connection lost", err)
		}
		wake(l.bus.lost)
		l.publisher.broke(unavailable(err))
		select {
		case <-time.After(backoff/2 + rand.N(backoff+min(maxBackoff, spreadByRoom*time.Duration(l.subscriber.rooms())))):
		case <-l.bus.ctx.Done():
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// serve makes a connection, and reads and writes until it breaks.
func (l *link) serve() error {
	if err := l.bus.notLetIn(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(l.bus.ctx)
	defer cancel()
	nc, err := l.bus.connect(ctx, true)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.conn = nc
	l.mu.Unlock()
	if l.bus.ctx.Err() != nil { // drop may have come too early
		l.drop()
	}
	c := &conn{serverConn: nc, asked: make(map[string]bool), heard: time.Now()}
	l.mender.begin()
	var writer sync.WaitGroup
	writer.Go(func() { l.write(ctx, c) })
	err = l.read(c)
	l.bus.server.heard(nc.run, c.heard)
	cancel()
	l.drop()
	_ = nc.Close()
	writer.Wait()
	for _, a := range c.awaited {
		if a.answer != nil {
			a.answer(resp.Value{Kind: resp.Error, Text: []byte(err.Error())})
		}
	}
	l.mu.Lock()
	l.conn = nil
	l.mu.Unlock()
	return err
}

// drop ends the connection, if there is one, at once.
func (l *link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.cut()
	}
}

// write sends changes of subscriptions, questions and batches, in one write what there is at the time. What a room's log has lost
// is asked, and marked, before anything is appended to it.
func (l *link) write(ctx context.Context, c *conn) {
	var out []byte
	for {
		var await []awaited
		out, await = l.subscriber.appendChanges(out[:0], c)
		out, await = l.mender.appendQuestions(out, await)
		out, await = l.publisher.appendBatch(out, await)
		if len(out) == 0 {
			select {
			case <-l.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		c.await(await, l.bus.cfg.Timeout)
		if _, err := c.Write(out); err != nil {
			l.drop() // the reader notices
			return
		}
		if cap(out) > batchBytes {
			out = nil
		}
	}
}

// await notes what is about to be sent, and sets the reader's deadline.
func (c *conn) await(sent []awaited, timeout time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.awaited) == 0 {
		c.since = time.Now()
		_ = c.SetReadDeadline(c.since.Add(timeout))
	}
	c.awaited = append(c.awaited, sent...)
}

// isLate is called when the reader's deadline has passed. It reports whether the server is late: something is awaited, and nothing
// at all has come for as long as the time-out. If not, it sets a new deadline.
func (c *conn) isLate(timeout time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.awaited) == 0 {
		_ = c.SetReadDeadline(time.Time{})
		return false
	}
	from := c.since
	if from.Before(c.heard) {
		from = c.heard
	}
	deadline := from.Add(timeout)
	_ = c.SetReadDeadline(deadline)
	return !time.Now().Before(deadline)
}

// read takes what comes until the connection breaks.
func (l *link) read(c *conn) error {
	var parser resp.Parser
	buf := make([]byte, linkBuffer)
	kept, values := 0, 0 // bytes of a value that has not all come; values read
	for {
		n, err := c.Read(buf[kept:])
		if n > 0 {
			c.heard = time.Now()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && !c.isLate(l.bus.cfg.Timeout) {
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
		switch kind := string(v.Elems[0].Text); kind {
		case l.bus.scripts.message:
			l.subscriber.receive(v.Elems[1].Text, v.Elems[2].Text)
			return nil
		case l.bus.scripts.subscribed, l.bus.scripts.ended:
			channel, begins := string(v.Elems[1].Text), kind == l.bus.scripts.subscribed
			if l.bus.cluster != nil && !begins {
				if !c.ending(channel) {
					l.subscriber.ended(channel)
				}
				return nil
			}
			l.subscriber.confirm(channel, begins)
			return c.confirmed()
		}
	}
	if v.Kind == resp.Push {
		return nil // of no concern to us
	}
	a, err := c.answered(v)
	switch {
	case err != nil:
	case a.ends != "":
		if v.Kind != resp.Error { // its fence's
			l.subscriber.confirm(a.ends, false)
		}
	case a.op != nil:
		l.publisher.answered(a.op, v)
	case a.answer != nil:
		a.answer(v)
	default:
		l.subscriber.refused(a.channels, refusal(v.Text))
	}
	if v.Kind == resp.Error && isElsewhere(string(v.Text)) && !l.bus.redirected(v) {
		l.bus.server.leave()
		wake(l.bus.lost)
		return refusal(v.Text)
	}
	return err
}

var errUnasked = errors.New("the server answered what it was not asked")

// confirmed counts a confirmation of a channel of the oldest subscription.
func (c *conn) confirmed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.awaited) == 0 || len(c.awaited[0].channels) == 0 {
		return errUnasked
	}
	if a := &c.awaited[0]; len(a.channels) > 1 {
		a.channels = a.channels[1:]
	} else {
		c.popLocked()
	}
	return nil
}

// answered gives the command that v answers. Subscriptions are answered only if they are refused, as a whole.
func (c *conn) answered(v resp.Value) (a awaited, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.awaited) == 0 {
		return a, errUnasked
	}
	a = c.awaited[0]
	switch {
	case len(a.channels) > 0 && v.Kind != resp.Error:
		return awaited{}, errUnasked
	case a.ends != "" && v.Kind == resp.Error: // the fence is still to be answered
		return a, nil
	}
	c.popLocked()
	return a, nil
}

// ending reports whether we asked for the end of a subscription that a primary says has ended. It says so by itself too, when the
// slot moves away, and then refuses what we ask. Which of the two it was shows nowhere, nor how many answers there will be: so a
// fence follows each SUNSUBSCRIBE, whose answer ends the wait for both.
func (c *conn) ending(channel string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.awaited, func(a awaited) bool { return a.ends == channel })
}

func (c *conn) popLocked() {
	c.awaited[0] = awaited{}
	if c.awaited = c.awaited[1:]; len(c.awaited) == 0 {
		c.awaited = nil
	}
}

// sendBeat sends a heartbeat the way that messages go.
func (l *link) sendBeat() { l.publisher.add(newBeatOp(*l.subscriber.beats.Load())) }
