package bustest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
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
	pass   *sync.Cond // frozen, deaf or closed has changed
	frozen bool       // nothing passes
	deaf   bool       // nothing passes towards the handle
	closed bool
	conns  map[net.Conn]bool
	drops  []*drop
}

// A drop is a pub/sub message that shall not arrive.
type drop struct {
	match []byte
	done  chan struct{} // closed when it was dropped
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
	p := &proxy{dir: dir, server: server, listener: l, conns: map[net.Conn]bool{}}
	p.pass = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) url() string { return "unix://" + p.listener.Addr().String() }

// freeze holds all that is said, as if the node or the network stood still. thaw lets it pass, late.
func (p *proxy) freeze() { p.set(func() { p.frozen = true }) }
func (p *proxy) thaw()   { p.set(func() { p.frozen, p.deaf = false, false }) }

// deafen holds all that the server says: what it is told it does, but the answers don't arrive until thaw.
func (p *proxy) deafen() { p.set(func() { p.deaf = true }) }

func (p *proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.pass.Broadcast()
}

// cut breaks all connections. New ones pass.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// redirect makes new connections go to another server, and breaks the old ones.
func (p *proxy) redirect(server *RedisServer) {
	p.set(func() { p.server = server })
	p.cut()
}

// dropMessage swallows the next pub/sub message that contains match. The channel is closed once that has happened.
func (p *proxy) dropMessage(match string) <-chan struct{} {
	d := &drop{[]byte(match), make(chan struct{})}
	p.set(func() { p.drops = append(p.drops, d) })
	return d.done
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
		p.mu.Lock()
		p.conns[up], p.conns[down] = true, true
		if p.closed {
			up.Close()
			down.Close()
		}
		p.mu.Unlock()
		p.wg.Go(func() { p.carry(down, up, readChunk, func() bool { return p.frozen }) })
		p.wg.Go(func() { p.carry(up, down, readReply, func() bool { return p.frozen || p.deaf }) })
	}
}

// carry passes on what read takes from one connection, until either is closed. held is called with the lock.
func (p *proxy) carry(from, to net.Conn, read func(*bufio.Reader, []byte) ([]byte, error), held func() bool) {
	defer func() {
		from.Close()
		to.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
		delete(p.conns, to)
	}()
	r := bufio.NewReaderSize(from, 64<<10)
	var buf []byte
	for {
		var err error
		if buf, err = read(r, buf[:0]); err != nil {
			return
		}
		if !p.mayPass(buf, held) {
			continue
		}
		if _, err := to.Write(buf); err != nil {
			return
		}
	}
}

// mayPass waits while all is held, and reports whether what was read is not to be dropped.
func (p *proxy) mayPass(b []byte, held func() bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for held() && !p.closed {
		p.pass.Wait()
	}
	if len(p.drops) == 0 || !isPubSubMessage(b) {
		return true
	}
	for i, d := range p.drops {
		if bytes.Contains(b, d.match) {
			close(d.done)
			p.drops = append(p.drops[:i:i], p.drops[i+1:]...)
			return false
		}
	}
	return true
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
