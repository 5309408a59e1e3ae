package node_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

func TestADrainHandsClientsOverAndRefusesNewOnes(t *testing.T) {
	t.Parallel()
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
	for c.Nodes[0].Ready() == nil {
		time.Sleep(time.Millisecond)
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

func TestADrainFinishesWhatWasSentAndTakesOnNothingMore(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		w := newWatch()
		var g *gate
		c := start(t, 1, func(cfg *node.Config) { g = &gate{Bus: cfg.Bus, w: w}; cfg.Bus = g; cfg.Drain = 1 })
		p := nodetest.Dial(t, c.Nodes[0].URL("/"))
		p.Join("lobby")
		watcher := nodetest.Dial(t, c.Nodes[0].URL("/"))
		watcher.Join("lobby")
		g.close()
		p.Say(`{"op":"send","req":0,"room":"lobby","text":"the last","key":"k"}`)
		w.wait(t, "held", 1)
		stopped := make(chan error, 1)
		go func() { stopped <- c.Nodes[0].Stop(context.Background()) }()
		watcher.WantClose(wire.StatusRestart)

		open := 1 // sends that were taken on
		for refused := false; !refused; {
			p.Say(`{"op":"send","req":%d,"room":"lobby","text":"one more"}`, open)
			p.Say(`{"op":"ping","req":"then"}`)
			f := p.Next()
			for f.Op == "presence" {
				f = p.Next()
			}
			switch {
			case f.Op == "error" && f.Code == wire.Unavailable && f.RetryAfter > 0 && string(f.Req) == fmt.Sprint(open):
				refused = true
				p.Until("ok")
			case f.Op == "ok" && string(f.Req) == `"then"`:
				if open++; open > 50 {
					t.Fatal("a client that was said goodbye to goes on sending")
				}
			default:
				t.Fatalf("before the answer to an open send: %s", nodetest.Show(f))
			}
		}
		g.open()
		answered := 0
		for {
			f := p.Next()
			if f.Op == "ok" && string(f.Req) == fmt.Sprint(answered) {
				answered++
			}
			if f.Op == "bye" {
				break
			}
		}
		if answered != open {
			t.Errorf("the goodbye came after %d of %d answers", answered, open)
		}
		p.WantClose(wire.StatusRestart)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// The bus does not answer any more: the goodbye does not wait for ever.
func TestADrainDoesNotWaitForABusThatIsAway(t *testing.T) {
	t.Parallel()
	w := newWatch()
	var g *gate
	c := nodetest.Start(t, 1, func(cfg *node.Config) { g = &gate{Bus: cfg.Bus, w: w}; cfg.Bus = g })
	defer func() { g.open() }()
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("lobby")
	g.close()
	p.Say(`{"op":"send","room":"lobby","text":"the last"}`)
	w.wait(t, "held", 1)
	began := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- c.Nodes[0].Stop(context.Background()) }()
	p.Until("bye")
	if took := time.Since(began); took < time.Second || took > 15*time.Second {
		t.Errorf("the goodbye came after %v, with a send open", took)
	}
	p.WantClose(wire.StatusRestart)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestGoodbyesAreSpreadOverTheDrain(t *testing.T) {
	t.Parallel()
	const drain, clients = 2 * time.Second, 20
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Drain = drain })
	byes := make(chan time.Time, clients)
	var peers []*nodetest.Peer
	for range clients {
		peers = append(peers, nodetest.Dial(t, c.Nodes[0].URL("/")))
	}
	for _, p := range peers {
		go func() {
			p.WS.Read(context.Background()) // bye
			byes <- time.Now()
			p.WS.Read(context.Background()) // the close, which it answers
		}()
	}
	began := time.Now()
	if err := c.Nodes[0].Stop(context.Background()); err != nil {
		t.Error(err)
	}
	for i := range clients { // they may come late, on a busy machine, but none before its time
		if after, due := (<-byes).Sub(began), drain*time.Duration(i)/clients; after < due-20*time.Millisecond {
			t.Errorf("goodbye %d of %d came after %v, want %v", i+1, clients, after, due)
		}
	}
	if took := time.Since(began); took > drain+15*time.Second {
		t.Errorf("a drain of %v took %v", drain, took)
	}
}

// A client that ignores its close delays the end by no more than the time for an answer, 5 s.
func TestADrainDoesNotWaitForWhoIgnoresTheClose(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 1)
		nodetest.Dial(t, c.Nodes[0].URL("/"))
		began := time.Now()
		if err := c.Nodes[0].Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A 503 is final for an EventSource that talks to the node itself, but makes a proxy try another node. What is taken says when to
// come back.
func TestADrainingNodeTakesNoEventStreams(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	nodetest.Dial(t, c.Nodes[0].URL("/")) // keeps the drain from ending, as it doesn't answer the close
	stopped := make(chan error, 1)
	go func() { stopped <- c.Nodes[0].Stop(context.Background()) }()
	for status := 200; status != http.StatusServiceUnavailable; {
		status, _, _ = get(t, c.Nodes[0].HTTP("/readyz"))
	}
	for range 20 {
		status, body, header := get(t, c.Nodes[0].HTTP("/v1/rooms/lobby/events"))
		wait, err := strconv.Atoi(header.Get("Retry-After"))
		switch {
		case status == http.StatusServiceUnavailable && err == nil && wait > 0:
		case status == 200 && strings.Contains(body, "retry:"):
		default:
			t.Fatalf("an event stream is answered %d, Retry-After: %q: %s", status, header.Get("Retry-After"), body)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
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
