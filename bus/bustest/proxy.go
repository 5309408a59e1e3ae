package bustest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
)

// A proxy stands between one handle and a Redis, and does to their connections what networks and paused machines do.
type proxy struct {
	dir      string
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex // guards what follows
	server *RedisServer
	pass   *sync.Cond // signalled when what is held has changed
	frozen bool       // nothing passes
	mute   bool       // nothing passes towards the server
	deaf   bool       // nothing passes towards the handle
	closed bool
	links  map[*link]bool
	drops  []*catch // pub/sub messages that shall not arrive
	holds  []*catch // requests that shall wait
	waits  []*catch // answers that shall wait
	tears  []*catch // answers that shall break off in the middle
}

// A link is one connection of the handle, and the one to the server that carries it on.
type link struct {
	down, up net.Conn
	silent   bool // guarded by proxy.mu; nothing passes towards the handle, ever
}

// A catch is something that was said, by a part of it.
type catch struct {
	match    []byte
	caught   chan struct{} // closed when it came by
	passed   chan struct{} // closed when it was carried on, of a request
	released bool          // guarded by proxy.mu
}

func newProxy(t testing.TB, server *RedisServer) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "pb")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "p"))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{dir: dir, server: server, listener: l, links: map[*link]bool{}}
	p.pass = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) url() string { return "unix://" + p.listener.Addr().String() }

// freeze holds all that is said, as if the node or the network stood still. thaw lets it pass, late.
func (p *proxy) freeze() { p.set(func() { p.frozen = true }) }
func (p *proxy) thaw()   { p.set(func() { p.frozen, p.mute, p.deaf = false, false, false }) }

// deafen holds all that the server says: what it is told it does, but the answers don't arrive until thaw.
func (p *proxy) deafen() { p.set(func() { p.deaf = true }) }

// hush holds all that the handle says, until thaw. What the server says arrives.
func (p *proxy) hush() { p.set(func() { p.mute = true }) }

func (p *proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.pass.Broadcast()
}

// silence makes the connections that there are now half-open: the server hears the handle, but the handle nothing any more,
// not even that they break. New connections pass.
func (p *proxy) silence() {
	p.set(func() {
		for l := range p.links {
			l.silent = true
		}
	})
}

// cut breaks all connections. New ones pass.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

func (l *link) close() {
	l.down.Close()
	l.up.Close()
}

// redirect makes new connections go to another server, and breaks the old ones.
func (p *proxy) redirect(server *RedisServer) {
	p.move(server)
	p.cut()
}

// move makes new connections go to another server. The old ones stay.
func (p *proxy) move(server *RedisServer) { p.set(func() { p.server = server }) }

// dropMessage swallows the next pub/sub message that contains match. The channel is closed once that has happened.
func (p *proxy) dropMessage(match string) <-chan struct{} {
	c := &catch{match: []byte(match), caught: make(chan struct{})}
	p.set(func() { p.drops = append(p.drops, c) })
	return c.caught
}

// holdRequest keeps the next request that contains match, and what follows it on its connection, from the server until it is
// released. Other connections pass. The channel is closed once there is such a request. Released, it passes even while all
// else is frozen; release returns once it has been carried to the server.
func (p *proxy) holdRequest(match string) (held <-chan struct{}, release func()) {
	c := &catch{match: []byte(match), caught: make(chan struct{}), passed: make(chan struct{})}
	p.set(func() { p.holds = append(p.holds, c) })
	return c.caught, func() {
		p.set(func() { c.released = true })
		<-c.passed
	}
}

// holdAnswer is holdRequest for what the server says, pub/sub messages aside.
func (p *proxy) holdAnswer(match string) (held <-chan struct{}, release func()) {
	c := &catch{match: []byte(match), caught: make(chan struct{})}
	p.set(func() { p.waits = append(p.waits, c) })
	return c.caught, func() { p.set(func() { c.released = true }) }
}

// tear breaks the connection on which the server says something that contains match, when half of that has passed.
func (p *proxy) tear(match string) <-chan struct{} {
	c := &catch{match: []byte(match), caught: make(chan struct{})}
	p.set(func() { p.tears = append(p.tears, c) })
	return c.caught
}

// close ends it for good: the handle can't reach the server any more, as if its machine had died.
func (p *proxy) close() {
	p.set(func() { p.closed = true })
	p.listener.Close()
	p.cut()
	p.wg.Wait()
	os.RemoveAll(p.dir)
}

func (p *proxy) accept() {
	for {
		down, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		server := p.server
		p.mu.Unlock()
		up, err := net.Dial(server.network, server.addr)
		if err != nil {
			down.Close()
			continue
		}
		l := &link{down: down, up: up}
		p.mu.Lock()
		p.links[l] = true
		if p.closed {
			l.close()
		}
		p.mu.Unlock()
		var both sync.WaitGroup
		both.Go(func() { l.carry(down, up, readChunk, p.passUp) })
		both.Go(func() { l.carry(up, down, readReply, func(b []byte) (bool, *catch) { return p.passDown(l, b), nil }) })
		p.wg.Go(func() {
			both.Wait()
			l.close()
			p.set(func() { delete(p.links, l) })
		})
	}
}

// carry passes on what read takes from one side, until that is closed, or neither. pass may wait, and say no; what it
// caught is told when it has passed.
func (l *link) carry(
	from, to net.Conn, read func(*bufio.Reader, []byte) ([]byte, error), pass func([]byte) (ok bool, caught *catch),
) {
	defer l.close()
	r := bufio.NewReaderSize(from, 64<<10)
	var buf []byte
	for {
		var err error
		if buf, err = read(r, buf[:0]); err != nil {
			return
		}
		ok, caught := pass(buf)
		if !ok {
			continue
		}
		_, err = to.Write(buf)
		if caught != nil {
			close(caught.passed)
		}
		if err != nil {
			return
		}
	}
}

// passUp waits while what the handle says is held.
func (p *proxy) passUp(b []byte) (ok bool, held *catch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held = take(&p.holds, b)
	for !p.closed && (held == nil && (p.frozen || p.mute) || held != nil && !held.released) {
		p.pass.Wait()
	}
	return true, held
}

// passDown waits while what the server says is held, and reports whether it is not to be dropped.
func (p *proxy) passDown(l *link, b []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	message := isPubSubMessage(b)
	var held *catch
	if !message {
		held = take(&p.waits, b)
	}
	for !p.closed && (p.frozen || p.deaf || l.silent || held != nil && !held.released) {
		p.pass.Wait()
	}
	if take(&p.tears, b) != nil {
		l.down.Write(b[:len(b)/2])
		l.close()
		return false
	}
	return !message || take(&p.drops, b) == nil
}

// take gives the first catch that matches, which is one no more.
func take(catches *[]*catch, b []byte) *catch {
	for i, c := range *catches {
		if bytes.Contains(b, c.match) {
			*catches = slices.Delete(*catches, i, i+1)
			close(c.caught)
			return c
		}
	}
	return nil
}

// readChunk reads whatever there is.
func readChunk(r *bufio.Reader, buf []byte) ([]byte, error) {
	if _, err := r.Peek(1); err != nil {
		return buf, err
	}
	n := r.Buffered()
	b, err := r.Peek(n)
	buf = append(buf, b...)
	r.Discard(n)
	return buf, err
}

// isPubSubMessage tells a message or smessage, in RESP2 or RESP3, from other replies.
func isPubSubMessage(b []byte) bool {
	if len(b) < 4 || (b[0] != '>' && b[0] != '*') || string(b[1:4]) != "3\r\n" {
		return false
	}
	return bytes.HasPrefix(b[4:], []byte("$7\r\nmessage\r\n")) || bytes.HasPrefix(b[4:], []byte("$8\r\nsmessage\r\n"))
}

// readReply reads one whole reply of the server: https://redis.io/docs/latest/develop/reference/protocol-spec/
func readReply(r *bufio.Reader, buf []byte) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	buf = append(buf, line...)
	if err != nil {
		return buf, err
	}
	if len(line) < 3 {
		return buf, errors.New("a reply without a type")
	}
	n, _ := strconv.Atoi(string(line[1 : len(line)-2])) // of those types that have no length it is not used
	switch line[0] {
	case '$', '=', '!':
		if n >= 0 {
			at := len(buf)
			buf = append(buf, make([]byte, n+2)...)
			_, err = io.ReadFull(r, buf[at:])
		}
	case '*', '>', '~':
		buf, err = readReplies(r, buf, n)
	case '%':
		buf, err = readReplies(r, buf, 2*n)
	case '|': // attributes, then the reply itself
		buf, err = readReplies(r, buf, 2*n+1)
	}
	return buf, err
}

func readReplies(r *bufio.Reader, buf []byte, n int) ([]byte, error) {
	var err error
	for range n {
		if buf, err = readReply(r, buf); err != nil {
			return buf, err
		}
	}
	return buf, nil
}
