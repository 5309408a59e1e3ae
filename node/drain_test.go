package node_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

func TestADrainHandsClientsOverAndRefusesNewOnes(t *testing.T) {
	c := nodetest.Start(t, 2, func(cfg *node.Config) { cfg.Drain = 200 * time.Millisecond })
	url := c.Nodes[0].URL("/")
	holdOut := nodetest.Dial(t, url) // keeps the drain from ending, as it doesn't answer the close
	if status, body, _ := get(t, c.Nodes[0].HTTP("/readyz")); status != 200 {
		t.Fatalf("ready: %d %s", status, body)
	}
	var peers []*nodetest.Peer
	for range 20 {
		p := nodetest.Dial(t, url)
		p.Join("lobby")
		peers = append(peers, p)
	}
	plain := settled(t, url, "lobby", peers...)
	acked := peers[0].SendText("lobby", "before")
	stopped := make(chan error, 1)
	go func() { stopped <- c.Nodes[0].Stop(context.Background()) }()
	spread := map[time.Duration]bool{}
	for _, p := range peers {
		for {
			f := p.Next()
			if f.Op == "bye" {
				if f.Close != wire.StatusRestart || f.RetryAfter <= 0 || f.Reason == "" {
					t.Errorf("got %s", nodetest.Show(f))
				}
				spread[f.RetryAfter] = true
				break
			}
		}
		p.WantClose(wire.StatusRestart)
	}
	plain.WantClose(wire.StatusRestart)
	if len(spread) < 10 {
		t.Errorf("the clients are all told to come back after %v", spread)
	}
	if status, body, _ := get(t, c.Nodes[0].HTTP("/readyz")); status != http.StatusServiceUnavailable || !strings.Contains(body, "shutting down") {
		t.Errorf("readyz while draining: %d %s", status, body)
	}
	if status, _, _ := get(t, c.Nodes[0].HTTP("/healthz")); status != 200 {
		t.Errorf("healthz while draining: %d", status)
	}
	status, _, header := get(t, c.Nodes[0].HTTP("/"), "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
		"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("an upgrade while draining: %d %v", status, header)
	}
	holdOut.WantClose(wire.StatusRestart)
	if err := <-stopped; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	b := nodetest.Dial(t, c.Nodes[1].URL("/"))
	if _, backlog := b.Join("lobby", fmt.Sprintf(`"since":"%d-0"`, acked.Ms-1)); len(backlog) != 2 || backlog[1].ID != acked {
		t.Errorf("on the other node: %v", texts(backlog))
	}
}

// slowBus answers publishes only when told to.
type slowBus struct {
	bus.Bus
	hold chan struct{}
}

func (b slowBus) Publish(room string, d bus.Draft, done func(bus.ID, error)) {
	b.Bus.Publish(room, d, func(id bus.ID, err error) {
		go func() { <-b.hold; done(id, err) }()
	})
}

func TestADrainFinishesWhatWasSent(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		hold := make(chan struct{})
		c := start(t, 1, func(cfg *node.Config) { cfg.Bus = slowBus{cfg.Bus, hold} })
		p := nodetest.Dial(t, c.Nodes[0].URL("/"))
		watcher := nodetest.Dial(t, c.Nodes[0].URL("/"))
		watcher.Join("lobby")
		p.Join("elsewhere")
		p.Join("lobby")
		p.Say(`{"op":"signal","req":"s","room":"elsewhere","kind":"k"}`)
		p.Say(`{"op":"send","req":"m","room":"lobby","text":"the last","key":"k"}`)
		watcher.Until("message")
		stopped := make(chan error, 1)
		go func() { stopped <- c.Nodes[0].Stop(context.Background()) }()
		watcher.WantClose(wire.StatusRestart)
		close(hold)
		answered := false
		for {
			f := p.Next()
			if f.Op == "ok" && string(f.Req) == `"m"` {
				answered = true
			}
			if f.Op == "bye" {
				break
			}
		}
		if !answered {
			t.Error("the goodbye came before the answer to a send")
		}
		p.WantClose(wire.StatusRestart)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

func TestAShutdownThatTakesTooLongCutsOff(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 1)
		p := nodetest.Dial(t, c.Nodes[0].URL("/"))
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := c.Nodes[0].Stop(ctx); err != context.DeadlineExceeded { // the peer answers no close
			t.Errorf("got %v", err)
		}
		p.WantClose(wire.StatusRestart)
	})
}
