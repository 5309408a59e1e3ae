package node_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/bus"
	"parley/node/nodetest"
	"parley/node/wire"
)

// A gate is a bus that holds back what is published while it is shut. The watch notes it as "held".
type gate struct {
	bus.Bus
	w    *watch
	room string // only what is said there; "" for all rooms

	mu   sync.Mutex
	shut bool
	held []func()
}

func (g *gate) Publish(room string, d bus.Draft, done func(bus.ID, error)) {
	g.mu.Lock()
	if !g.shut || g.room != "" && g.room != room {
		g.mu.Unlock()
		g.Bus.Publish(room, d, done)
		return
	}
	g.held = append(g.held, func() { g.Bus.Publish(room, d, done) })
	g.mu.Unlock()
	g.w.note("held")
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
}

// open lets through what was held, in its order.
func (g *gate) open() {
	for {
		g.mu.Lock()
		held := g.held
		g.held = nil
		g.shut = len(held) > 0
		g.mu.Unlock()
		if len(held) == 0 {
			return
		}
		for _, publish := range held {
			publish()
		}
	}
}

// still gives what a count has come to when it did not change for a while: more is not to be expected.
func still(count func() int) int {
	n, since := count(), time.Now()
	for time.Since(since) < 500*time.Millisecond {
		time.Sleep(10 * time.Millisecond)
		if now := count(); now != n {
			n, since = now, time.Now()
		}
	}
	return n
}

// A raw is a client of parley.v1 that has only its socket, for what no library does.
type raw struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// dialRaw connects. What is early is sent with the handshake.
func dialRaw(t testing.TB, n *nodetest.Node, early ...byte) *raw {
	t.Helper()
	c := connectRaw(t, n)
	c.open(wire.Subprotocol, early...)
	c.want(wire.OpText, "welcome")
	return c
}

// connectRaw only connects.
func connectRaw(t testing.TB, n *nodetest.Node) *raw {
	t.Helper()
	nc, err := net.Dial("tcp", n.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.(*net.TCPConn).SetReadBuffer(64 << 10)
	nc.(*net.TCPConn).SetWriteBuffer(64 << 10)
	if strings.HasPrefix(n.URL(""), "wss") {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	return &raw{nc, t, bufio.NewReader(nc)}
}

// open shakes hands, with subprotocols.
func (c *raw) open(offers string, early ...byte) {
	c.t.Helper()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: parley\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: "+offers+"\r\n\r\n"+string(early))
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		c.t.Fatalf("the handshake is answered %v, %v", resp, err)
	}
}

// next reads a frame.
func (c *raw) next() (op byte, payload []byte, err error) { return wire.ReadRaw(c.r) }

// want reads on to a frame of that kind with that in it.
func (c *raw) want(op byte, in string) {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		got, payload, err := c.next()
		if err != nil {
			c.t.Fatalf("waiting for %q: %v", in, err)
		}
		if got == op && bytes.Contains(payload, []byte(in)) {
			return
		}
	}
}

// masked is a frame of a client's.
func masked(op byte, payload string) []byte { return wire.AppendMasked(nil, op, payload) }
