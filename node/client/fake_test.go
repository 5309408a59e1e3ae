package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"parley/node/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeNode is a WebSocket server whose every word the test decides. It is reached over pipes, so that a test's clock can
// be synctest's.
type fakeNode struct {
	t     *testing.T
	pipes chan net.Conn
	conns chan *fakeConn

	mu     sync.Mutex
	refuse func(w http.ResponseWriter) // guarded by mu; answers the handshake, if not nil
	away   bool                        // guarded by mu; nothing listens
	dials  []time.Time                 // guarded by mu
	made   []*fakeConn                 // guarded by mu
}

// withFakeNode runs a test with a node and a clock of its own.
func withFakeNode(t *testing.T, test func(t *testing.T, n *fakeNode)) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{t: t, pipes: make(chan net.Conn), conns: make(chan *fakeConn, 100)}
		srv := &http.Server{Handler: http.HandlerFunc(n.accept)}
		var wg sync.WaitGroup
		wg.Go(func() { srv.Serve(pipeListener{n.pipes, make(chan struct{}), new(sync.Once)}) })
		t.Cleanup(wg.Wait)
		t.Cleanup(func() {
			srv.Close()
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, c := range n.made {
				c.cut()
			}
		})
		test(t, n)
	})
}

func (n *fakeNode) accept(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	refuse := n.refuse
	n.mu.Unlock()
	if refuse != nil {
		refuse(w)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{wire.Subprotocol}})
	if err != nil {
		n.t.Error(err)
		return
	}
	c := &fakeConn{t: n.t, ws: ws, over: make(chan struct{})}
	n.set(func() { n.made = append(n.made, c) })
	n.conns <- c
	<-c.over
}

func (n *fakeNode) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *fakeNode) dialled() []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// options lead to the node.
func (n *fakeNode) options() Options {
	return Options{HTTPClient: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			n.mu.Lock()
			away := n.away
			n.dials = append(n.dials, time.Now())
			n.mu.Unlock()
			if away {
				return nil, errors.New("connection refused")
			}
			ours, theirs := net.Pipe()
			select {
			case n.pipes <- theirs:
				return ours, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}}}
}

// dial connects a client, welcomed.
func (n *fakeNode) dial(o Options) (*Client, *fakeConn) {
	n.t.Helper()
	type dialled struct {
		c   *Client
		err error
	}
	got := make(chan dialled)
	go func() {
		c, err := Dial(n.t.Context(), "ws://node", o)
		got <- dialled{c, err}
	}()
	fc := n.next()
	fc.welcome()
	d := <-got
	if d.err != nil {
		n.t.Fatal(d.err)
	}
	n.t.Cleanup(func() {
		go fc.drain() // answers the close
		d.c.Close()
	})
	return d.c, fc
}

// next waits for the next connection.
func (n *fakeNode) next() *fakeConn {
	n.t.Helper()
	select {
	case c := <-n.conns:
		return c
	case <-time.After(time.Hour):
		n.t.Fatal("no connection was made")
		return nil
	}
}

// A fakeConn is one connection, as the node sees it.
type fakeConn struct {
	t    *testing.T
	ws   *websocket.Conn
	over chan struct{}
	once sync.Once
}

func (c *fakeConn) say(frame interface{ Append([]byte) []byte }) {
	c.t.Helper()
	c.raw(frame.Append(nil))
}

func (c *fakeConn) raw(frame []byte) {
	c.t.Helper()
	if err := c.ws.Write(context.Background(), websocket.MessageText, frame); err != nil {
		c.t.Fatal(err)
	}
}

// message says that somebody said something.
func (c *fakeConn) message(room, from, key, text string, i ID) {
	c.t.Helper()
	c.raw(wire.AppendMessage(nil, i, wire.Said{Room: room, From: wire.Member{ID: from}, Text: text, Key: key}.Body()))
}

// want reads the next request and checks its op.
func (c *fakeConn) want(op string) wire.Request {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	_, b, err := c.ws.Read(ctx)
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", op, err)
	}
	r, bad := wire.Parse(b, 4096)
	if bad != nil || r.Op != op {
		c.t.Fatalf("got %s, %v, want %s", b, bad, op)
	}
	return r
}

// welcome answers the client's hello.
func (c *fakeConn) welcome() wire.Request {
	c.t.Helper()
	w := wire.Welcome{User: wire.User{ID: "me", Guest: true}, Session: "first", Node: "fake", Ping: 25, Limits: wire.LimitsOf(4096, 500)}
	c.say(w)
	hello := c.want("hello")
	w.Req, w.Session = hello.Req, "secret"
	c.say(w)
	return hello
}

// joined answers a join.
func (c *fakeConn) joined(last ID) wire.Request {
	c.t.Helper()
	j := c.want("join")
	c.say(wire.Joined{Req: j.Req, Room: j.Room, Last: last})
	return j
}

// drain reads on until the connection ends.
func (c *fakeConn) drain() {
	for {
		if _, _, err := c.ws.Read(context.Background()); err != nil {
			return
		}
	}
}

// cut ends the connection without a word.
func (c *fakeConn) cut() {
	c.once.Do(func() {
		c.ws.CloseNow()
		close(c.over)
	})
}

// A pipeListener accepts what the client's dialler makes.
type pipeListener struct {
	pipes  chan net.Conn
	closed chan struct{}
	once   *sync.Once
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.pipes:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{} }
