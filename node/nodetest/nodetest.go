// Package nodetest runs nodes in a process, for tests that talk to them over real sockets.
package nodetest

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/memory"
	"parley/node"
	"parley/node/socket"
)

// A Cluster is some nodes on one bus.
type Cluster struct{ Nodes []*Node }

// A Node is a running node, listening on loopback.
type Node struct {
	*node.Server
	Bus  bus.Bus
	Addr string // 127.0.0.1:port

	scheme  string
	http    *http.Server
	serving sync.WaitGroup
	dead    bool // by Kill or Stop
}

// Start runs n nodes on one bus in memory. They end with the test. each may change what a node is made of.
func Start(t testing.TB, n int, each ...func(*node.Config)) *Cluster {
	t.Helper()
	return StartOn(t, n, memory.New(bus.Retention{}).Open, each...)
}

// StartTLS is Start with nodes that serve TLS, with a certificate that nobody signed.
func StartTLS(t testing.TB, n int, each ...func(*node.Config)) *Cluster {
	t.Helper()
	return start(t, n, front{secure: true}, memory.New(bus.Retention{}).Open, each...)
}

// StartUnparked is StartTLS with a goroutine for each connection, as on systems without a poller.
func StartUnparked(t testing.TB, n int, each ...func(*node.Config)) *Cluster {
	t.Helper()
	return start(t, n, front{secure: true, unparked: true}, memory.New(bus.Retention{}).Open, each...)
}

// StartNarrow is Start with nodes whose sockets take little: what a client does not read soon waits in its queue.
func StartNarrow(t testing.TB, n int, each ...func(*node.Config)) *Cluster {
	t.Helper()
	return start(t, n, front{narrow: true}, memory.New(bus.Retention{}).Open, each...)
}

// StartNarrowTLS is StartTLS and StartNarrow.
func StartNarrowTLS(t testing.TB, n int, each ...func(*node.Config)) *Cluster {
	t.Helper()
	return start(t, n, front{secure: true, narrow: true}, memory.New(bus.Retention{}).Open, each...)
}

// StartOn runs n nodes, each on a handle that open gives.
func StartOn(t testing.TB, n int, open func(bus.Observer) bus.Bus, each ...func(*node.Config)) *Cluster {
	t.Helper()
	return start(t, n, front{}, open, each...)
}

// StartNarrowOn is StartOn and StartNarrow.
func StartNarrowOn(t testing.TB, n int, open func(bus.Observer) bus.Bus, each ...func(*node.Config)) *Cluster {
	t.Helper()
	return start(t, n, front{narrow: true}, open, each...)
}

// frozenFor is how long a client may do nothing, unless a test says otherwise: on a busy machine nobody is dropped for being slow.
const frozenFor = 5 * time.Minute

// A front is what nodes listen with.
type front struct{ secure, narrow, unparked bool }

func start(t testing.TB, n int, f front, open func(bus.Observer) bus.Bus, each ...func(*node.Config)) *Cluster {
	t.Helper()
	c := &Cluster{}
	for range n {
		b := open(bus.NoObserver{})
		cfg := node.Config{
			Bus: b, Log: slog.New(slog.DiscardHandler), Drain: 100 * time.Millisecond,
			PingInterval: frozenFor, StallTimeout: frozenFor,
		}
		for _, change := range each {
			change(&cfg)
		}
		l, err := socket.Listen(context.Background(), "127.0.0.1:0", net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: time.Minute, Count: 3})
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Bus != b {
			cfg.Bus = byName{cfg.Bus}
		}
		nd := &Node{Server: node.New(cfg), Bus: b, Addr: l.Addr().String(), scheme: "ws://"}
		if f.narrow {
			narrow(t, l)
		}
		if f.secure {
			cert := httptest.NewTLSServer(nil)
			if f.unparked {
				l = tls.NewListener(l, cert.TLS)
			} else {
				l = socket.TLSListener(l, cert.TLS)
			}
			cert.Close()
			nd.scheme = "wss://"
		}
		nd.http = &http.Server{Handler: nd.Handler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		upgrades := &socket.Upgrades{Listener: l, Handler: nd.http.Handler, Log: nd.http.ErrorLog}
		nd.serving.Go(func() {
			nd.http.Serve(upgrades)
			upgrades.Wait()
		})
		t.Cleanup(nd.Kill)
		c.Nodes = append(c.Nodes, nd)
	}
	return c
}

// narrow has the connections of a listener begin with a small buffer for what is written.
func narrow(t testing.TB, l net.Listener) {
	t.Helper()
	raw, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	failed := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 32<<10) })
	if err = cmp.Or(failed, err); err != nil {
		t.Fatal(err)
	}
}

// URL is where a client connects; path begins with "/".
func (n *Node) URL(path string) string { return n.scheme + n.Addr + path }

// HTTP is the same for requests that are no upgrade.
func (n *Node) HTTP(path string) string { return strings.Replace(n.URL(path), "ws", "http", 1) }

// Kill cuts all connections off, without goodbyes.
func (n *Node) Kill() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n.end(ctx)
}

// Stop shuts the node down as a signal to its process would.
func (n *Node) Stop(ctx context.Context) error { return n.end(ctx) }

func (n *Node) end(ctx context.Context) error {
	if n.dead {
		return nil
	}
	n.dead = true
	err := n.Shutdown(ctx)
	n.http.Close()
	n.Bus.Close()
	n.serving.Wait()
	return err
}
