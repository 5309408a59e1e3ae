package node_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// Who behaves well is not cut off: these clients are slow, or have to wait for the node.

func TestAClientWhosePongsWaitBehindItsOwnRequestsStays(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		const ping, says = time.Second, 200
		w := newWatch()
		var g *gate
		c := start(t, 1, func(cfg *node.Config) {
			g = &gate{Bus: cfg.Bus, w: w}
			cfg.Bus, cfg.Observer, cfg.PingInterval, cfg.MessageWait = g, w, ping, 2*time.Second
		})
		p := nodetest.Dial(t, c.Nodes[0].URL("/"))
		p.Join("lobby")
		g.close()
		for i := range says { // more than are read before one is answered
			p.Say(`{"op":"send","req":%d,"room":"lobby","text":"m"}`, i)
		}
		answered := make(chan error, 1)
		go func() { // and it answers each ping
			defer close(answered)
			for i := range says {
				if f := p.Until("ok"); string(f.Req) != fmt.Sprint(i) {
					answered <- fmt.Errorf("the answer to %s came, want that to %d", f.Req, i)
					return
				}
			}
		}()
		time.Sleep(4 * ping)
		g.open()
		if err := <-answered; err != nil {
			t.Error(err)
		}
		if n := w.count("closed 1006"); n > 0 {
			t.Error("it was cut off")
		}
	})
}

// Its buffers, and so the pings in them, are far behind.
func TestAClientThatReadsSteadilyButSlowlyStays(t *testing.T) {
	for name, start := range narrowWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const ping, messages = 3 * time.Second, 250
			w := newWatch()
			c := start(t, 1, func(cfg *node.Config) {
				cfg.Observer, cfg.PingInterval, cfg.StallTimeout, cfg.QueueBytes = w, ping, 20*time.Second, 256<<10
			})
			slow, sender := nodetest.Dial(t, c.Nodes[0].URL("/")), nodetest.Dial(t, c.Nodes[0].URL("/"))
			slow.Narrow()
			slow.Join("lobby")
			sender.Join("lobby")
			pad := strings.Repeat("x", 4000)
			said := make(chan struct{})
			go func() {
				defer close(said)
				for i := range messages {
					sender.SendText("lobby", fmt.Sprint(i, " ", pad))
				}
				for { // it answers its own pings
					if _, _, err := sender.WS.Read(t.Context()); err != nil {
						return
					}
				}
			}()
			for i := range messages {
				if m := slow.Until("message"); !strings.HasPrefix(m.Text, fmt.Sprint(i, " ")) {
					t.Fatalf("heard %.10q, want %d", m.Text, i)
				}
				time.Sleep(50 * time.Millisecond)
			}
			sender.Cut()
			<-said
			if w.count("overflowed") == 0 {
				t.Error("it was quick")
			}
		})
	}
}

func TestJoinsAreRefusedAtOnceWhileTheBusIsAway(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		const joins = 12
		w := newWatch()
		c := start(t, 1, func(cfg *node.Config) {
			cfg.Bus, cfg.Observer, cfg.MessageWait, cfg.PingInterval = noRooms{cfg.Bus}, w, 2*time.Second, 2*time.Second
		})
		p := nodetest.Dial(t, c.Nodes[0].URL("/"))
		began := time.Now()
		for i := range joins {
			p.Say(`{"op":"join","req":%d,"room":"room %d"}`, i, i)
		}
		for i := range joins {
			f := p.UntilError()
			if f.Code != wire.Unavailable || f.RetryAfter == 0 || string(f.Req) != fmt.Sprint(i) {
				t.Errorf("join %d: %s", i, nodetest.Show(f))
			}
		}
		if took := time.Since(began); took > 2*5*time.Second+slack {
			t.Errorf("refused after %v", took)
		}
		// Others, while it is known to be away.
		other := nodetest.Dial(t, c.Nodes[0].URL("/"))
		p.Say(`{"op":"join","room":"one more"}`)
		p.UntilError()
		began = time.Now()
		other.Say(`{"op":"join","room":"tea"}`)
		other.WantError(wire.Unavailable)
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("refused after %v", took)
		}
	})
}
