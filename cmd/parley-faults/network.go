package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// A moving address leads to the Redis that is primary, whichever that is: connections stay where they were made.
type movingAddress struct {
	listener net.Listener

	mu    sync.Mutex
	to    string            // guarded by mu
	conns map[net.Conn]bool // guarded by mu; of the side that connects
}

func newMovingAddress(t testing.TB, to string) *movingAddress {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &movingAddress{listener: l, to: to, conns: make(map[net.Conn]bool)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { a.carry(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		a.cut()
		serving.Wait()
	})
	return a
}

func (a *movingAddress) addr() string { return a.listener.Addr().String() }

// move has new connections lead to another server.
func (a *movingAddress) move(to string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.to = to
}

// cut breaks all connections, and gives how many that were.
func (a *movingAddress) cut() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		c.Close()
	}
	return len(a.conns)
}

func (a *movingAddress) carry(c net.Conn) {
	defer c.Close()
	a.mu.Lock()
	to := a.to
	a.conns[c] = true
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.conns, c)
	}()
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(up, c)
		up.Close()
	})
	io.Copy(c, up)
	c.Close()
	both.Wait()
}

// A network is what lies between one node and Redis.
type network struct {
	testing.TB
	proxy   *toxiproxy.Proxy
	poisons atomic.Int32 // so many there were
}

func newNetwork(t testing.TB, name, upstream string) *network {
	t.Helper()
	zerolog.SetGlobalLevel(zerolog.Disabled) // some toxics have loggers of their own
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	n := &network{TB: t, proxy: toxiproxy.NewProxy(server, name, "127.0.0.1:0", upstream)}
	if err := n.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.proxy.Stop)
	return n
}

func (n *network) addr() string { return n.proxy.Listen }

// poison does something to all that passes over networks in some directions, "upstream" and "downstream", until it is cured. The
// kinds and their attributes are toxiproxy's. Of two poisons that last at the same time each has a cure of its own.
func poison(networks []*network, kind string, attributes map[string]any, streams ...string) (cure func()) {
	var cures []func()
	for _, n := range networks {
		for _, stream := range streams {
			cures = append(cures, n.poison(kind, stream, attributes))
		}
	}
	return func() {
		for _, cure := range cures {
			cure()
		}
	}
}

func (n *network) poison(kind, stream string, attributes map[string]any) (cure func()) {
	n.Helper()
	name := fmt.Sprint(kind, n.poisons.Add(1))
	toxic, _ := json.Marshal(map[string]any{
		"name": name, "type": kind, "stream": stream, "toxicity": 1, "attributes": attributes,
	})
	if _, err := n.proxy.Toxics.AddToxicJson(bytes.NewReader(toxic)); err != nil {
		n.Fatal(fmt.Errorf("%s: %w", toxic, err))
	}
	return func() {
		if err := n.proxy.Toxics.RemoveToxic(context.Background(), name); err != nil {
			n.Error(fmt.Errorf("%s: %w", name, err))
		}
	}
}

// cut breaks all connections and lets none be made until mend.
func (n *network) cut() { n.proxy.Stop() }

func (n *network) mend() {
	n.Helper()
	if err := n.proxy.Start(); err != nil {
		n.Fatal(err)
	}
}
