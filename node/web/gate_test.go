package web_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/node/wire"

	"parley/node/nodetest"
)

// A gate is an address in front of a node, whose network can fail in the ways that networks do.
type gate struct {
	URL string // http://127.0.0.1:port

	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	target string              // guarded by mu; empty while cut
	silent chan struct{}       // guarded by mu; closed when bytes pass again; nil while they do
	lag    time.Duration       // guarded by mu; of a round trip
	conns  map[net.Conn]func() // guarded by mu; open ones, and what ends them
}

// newGate opens a gate to a node.
func newGate(t *testing.T, n *nodetest.Node) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{URL: "http://" + listener.Addr().String(), listener: listener, target: n.Addr, conns: make(map[net.Conn]func())}
	g.wg.Go(g.accept)
	t.Cleanup(func() {
		listener.Close()
		g.speak()
		g.cut()
		g.wg.Wait()
	})
	return g
}

// cut ends all connections, and refuses new ones.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.target = ""
	for _, end := range g.conns {
		end()
	}
}

// to lets new connections through, to a node.
func (g *gate) to(n *nodetest.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.target = n.Addr
}

// slow makes each round trip take so long, that of a TCP handshake too.
func (g *gate) slow(lag time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lag = lag
}

// silence lets the node hear the client, but nothing the other way, and ends nothing.
func (g *gate) silence() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.silent = make(chan struct{})
}

func (g *gate) speak() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.silent != nil {
		close(g.silent)
		g.silent = nil
	}
}

func (g *gate) accept() {
	for {
		from, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.wg.Go(func() { g.serve(from) })
	}
}

func (g *gate) serve(from net.Conn) {
	defer from.Close()
	g.mu.Lock()
	target, lag := g.target, g.lag
	g.mu.Unlock()
	if target == "" {
		return
	}
	time.Sleep(lag)
	to, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	ended := make(chan struct{})
	end := sync.OnceFunc(func() {
		close(ended)
		from.Close()
		to.Close()
	})
	defer end()
	g.mu.Lock()
	if g.target != target {
		g.mu.Unlock()
		return
	}
	g.conns[from] = end
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.conns, from)
	}()
	g.wg.Go(func() {
		defer end()
		io.Copy(to, delayed(from, lag/2, ended))
	})
	g.pass(from, delayed(to, lag/2, ended), ended)
}

// delayed gives what comes from a connection later, but as much at a time, until all has ended.
func delayed(from net.Conn, by time.Duration, ended <-chan struct{}) io.Reader {
	if by == 0 {
		return from
	}
	type piece struct {
		due time.Time
		b   []byte
	}
	pieces := make(chan piece, 1000)
	go func() {
		defer close(pieces)
		for {
			b := make([]byte, 32<<10)
			n, err := from.Read(b)
			if err != nil {
				return
			}
			pieces <- piece{time.Now().Add(by), b[:n]}
		}
	}()
	out, in := io.Pipe()
	go func() {
		for p := range pieces {
			time.Sleep(time.Until(p.due))
			in.Write(p.b)
		}
		in.Close()
	}()
	go func() {
		<-ended
		out.Close()
	}()
	return out
}

// pass copies until either side ends, but holds back what comes while the gate is silent.
func (g *gate) pass(to io.Writer, from io.Reader, ended <-chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		g.mu.Lock()
		silent := g.silent
		g.mu.Unlock()
		if silent != nil {
			select {
			case <-silent:
			case <-ended:
				return
			}
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// blockUpgrades serves what a node does, but no WebSockets, as some proxies do.
func blockUpgrades(t *testing.T, n *nodetest.Node) string { return blockUpgradesAt(t, n.HTTP("")) }

func blockUpgradesAt(t *testing.T, at string) string {
	t.Helper()
	url, _ := blockUpgradesUntil(t, at)
	return url
}

// blockUpgradesUntil is the same, until unblock is called.
func blockUpgradesUntil(t *testing.T, at string) (url string, unblock func()) {
	t.Helper()
	var open atomic.Bool
	target, err := neturl.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1,
		Transport:     transport,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" && !open.Load() {
			http.Error(w, "no upgrades here", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		transport.CloseIdleConnections()
	})
	return s.URL, func() { open.Store(true) }
}

// flood says messages in a room, so many a second.
func flood(b bus.Bus, room string, messages, perSecond int) {
	const batch = 10
	tick := time.NewTicker(time.Second * batch / time.Duration(perSecond))
	defer tick.Stop()
	var done sync.WaitGroup
	defer done.Wait()
	for i := range messages {
		if i%batch == 0 {
			<-tick.C
		}
		said := wire.Said{Room: room, From: person(fmt.Sprint("Bot ", i%7)), Text: fmt.Sprint("flood ", i), At: time.Now().UnixMilli()}
		done.Add(1)
		b.Publish(room, bus.Draft{Body: said.Body()}, func(bus.ID, error) { done.Done() })
	}
}
