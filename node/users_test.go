package node_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// A user that floods three nodes says at most 1.2 times what it may; others, and what comes after, are not touched.
func TestAUserHasOneRateOverAllNodes(t *testing.T) {
	t.Parallel()
	const most, burst = 40, 40 * 5
	var draws atomic.Int64
	c := nodetest.Start(t, 3, withGrants, func(cfg *node.Config) {
		cfg.Limits.UserMessages = most
		cfg.Bus = drawing{cfg.Bus, &draws}
	})
	var handlers []func(token string) int
	for _, n := range c.Nodes {
		h := n.Handler()
		handlers = append(handlers, func(token string) int {
			r := httptest.NewRequest("POST", "/v1/rooms/r/messages", strings.NewReader(`{"text":"x"}`))
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code
		})
	}
	var said, refused atomic.Int64
	began := time.Now()
	var floods sync.WaitGroup
	for _, post := range handlers {
		floods.Go(func() {
			for time.Since(began) < 3*time.Second {
				switch status := post("ada"); status {
				case 201:
					said.Add(1)
				case 429:
					refused.Add(1)
					time.Sleep(time.Millisecond) // or nothing else is done here
				default:
					t.Errorf("status %d", status)
					return
				}
			}
		})
	}
	floods.Wait()
	took := time.Since(began)
	may := burst + most*took.Seconds()
	t.Logf("%d were said in %s, where %.0f may be, with %d draws; %d were refused", said.Load(), took, may, draws.Load(), refused.Load())
	if n := float64(said.Load()); n > 1.2*may || n < burst/2 {
		t.Errorf("%.0f were said in %s", n, took)
	}
	if refused.Load() == 0 {
		t.Error("none was refused")
	}
	if n := draws.Load(); n > said.Load()/2 {
		t.Errorf("%d draws for %d messages", n, said.Load())
	}
	draws.Store(0)
	for range 5 { // as a person does
		for i, post := range handlers {
			if status := post("bob"); status != 201 {
				t.Errorf("node %d: a bystander got %d", i, status)
			}
		}
	}
	if n := draws.Load(); n > 0 {
		t.Errorf("a person made the nodes draw %d times", n)
	}
}

func TestAUserIsToldThatItSaysTooMuchOverASocketToo(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withGrants, func(cfg *node.Config) { cfg.Limits.UserMessages, cfg.Guests = 4, true })
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	hello(p, "ada")
	p.Join("r")
	for range 100 {
		p.Say(`{"op":"signal","room":"r","kind":"k"}`)
	}
	if f := p.UntilError(); f.Code != wire.RateLimited || f.RetryAfter < time.Second || !strings.Contains(f.Message, "over all that you have open") {
		t.Errorf("got %s", nodetest.Show(f))
	}
	g := nodetest.Dial(t, c.Nodes[0].URL("/"))
	g.Join("r")
	for range 100 {
		g.Say(`{"op":"send","room":"r","text":"x"}`)
	}
	for range 100 {
		g.Until("message")
	}
}

func TestAUserHasSoManyConnectionsOverAllNodes(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2, withGrants, func(cfg *node.Config) { cfg.Limits.UserConnections = 3 })
	one := nodetest.Dial(t, c.Nodes[0].URL("/"))
	hello(one, "ada")
	hello(one, "ada/*:*") // again the same
	two, _, err := socketWith(t, c.Nodes[1].URL("/?token=ada"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := listen(t, c.Nodes[1].HTTP("/v1/events?token=ada"))
	s.until("welcome")

	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Say(`{"op":"hello","token":"ada"}`)
	if e := p.WantError(wire.RateLimited); !strings.Contains(e.Message, "3 connections") {
		t.Error(e)
	}
	if _, resp, err := socketWith(t, c.Nodes[1].URL("/?token=ada"), nil); err == nil || resp.StatusCode != 429 {
		t.Errorf("one more: %v", err)
	}
	if _, f := listen(t, c.Nodes[0].HTTP("/v1/events?token=ada")).until("bye"); f.Close != wire.StatusOverload {
		t.Errorf("one more stream: %s", nodetest.Show(f))
	}
	ws, _, err := socketWith(t, c.Nodes[0].URL("/"), []string{"parley.v1", "bearer.ada"})
	if err != nil {
		t.Fatal(err)
	}
	if said, code := frames(t, ws); said[0].Code != wire.RateLimited || code != wire.StatusOverload {
		t.Errorf("one more: %v, %d", said, code)
	}
	hello(p, "bob") // who may

	two.CloseNow()
	for end := time.Now().Add(20 * time.Second); ; {
		q := nodetest.Dial(t, c.Nodes[0].URL("/"))
		q.Say(`{"op":"hello","token":"ada"}`)
		f := q.Next()
		if f.Op == "welcome" {
			break
		}
		q.Cut()
		if time.Now().After(end) {
			t.Fatalf("the place was not freed: %s", nodetest.Show(f))
		}
	}
}

// An application speaks for many: it has not one user's rate.
func TestAnApplicationIsNotLimitedAsAUserIs(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, withGrants, withApps, func(cfg *node.Config) { cfg.Limits.UserMessages = 1 }).Nodes[0]
	for i := range 20 {
		if status, _, problem := call(t, "POST", n.HTTP("/v1/rooms/r/messages"), `{"text":"x"}`, "Authorization", "Bearer "+wholeKey); status != 201 {
			t.Fatalf("message %d: %d %v", i, status, problem)
		}
	}
}

// Who asks for a WebSocket as none can be made has no connection.
func TestAHandshakeThatFailsTakesNoneOfTheUsersConnections(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withGrants, func(cfg *node.Config) { cfg.Limits.UserConnections = 1 })
	n := c.Nodes[0]
	for range 3 {
		status, body, _ := get(t, n.HTTP("/"), "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "8",
			"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Authorization", "Bearer ada")
		if status != 400 {
			t.Fatalf("a version that is not spoken: %d %s", status, body)
		}
	}
	hello(nodetest.Dial(t, n.URL("/")), "ada")
}

// An event stream that a user has one too many of takes no place of another's.
func TestAStreamThatIsOneTooManyTakesNoPlace(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withGrants, func(cfg *node.Config) { cfg.Limits.UserConnections, cfg.Limits.Connections = 1, 2 })
	n := c.Nodes[0]
	hello(nodetest.Dial(t, n.URL("/")), "ada")
	for range 3 {
		if _, f := listen(t, n.HTTP("/v1/events?token=ada")).until("bye"); !strings.Contains(f.Reason, "1 connections") {
			t.Errorf("one more stream: %s", nodetest.Show(f))
		}
	}
	hello(nodetest.Dial(t, n.URL("/")), "bob")
}

// A stream that can't be begun, as over HTTP/2, is no connection of the user or of the address.
func TestAStreamThatFailsTakesNoPlace(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withGrants, func(cfg *node.Config) { cfg.Limits.UserConnections, cfg.Limits.AddressConnections = 1, 1 })
	front := httptest.NewUnstartedServer(c.Nodes[0].Handler())
	front.EnableHTTP2 = true
	front.StartTLS()
	defer front.Close()
	for range 3 {
		resp, err := front.Client().Get(front.URL + "/v1/events?token=ada")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusUnsupportedMediaType || !strings.Contains(string(body), "need HTTP/1.1") {
			t.Fatalf("%s, %s: %s", resp.Proto, resp.Status, body)
		}
	}
	hello(nodetest.Dial(t, c.Nodes[0].URL("/")), "ada")
}
