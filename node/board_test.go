package node_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// lateBoard is a bus whose board cannot be read before it is there.
type lateBoard struct {
	bus.Bus
	there chan struct{}
}

func (b lateBoard) Posted(ctx context.Context, known string) ([]string, string, error) {
	select {
	case <-b.there:
		return b.Bus.Posted(ctx, known)
	case <-ctx.Done():
		return nil, "", bus.ErrUnavailable
	}
}

// A node that has just started takes nothing that may be revoked before it knows what is.
func TestANodeThatStartsTakesNoRevokedToken(t *testing.T) {
	t.Parallel()
	var nodes atomic.Int64
	there := make(chan struct{})
	c := nodetest.Start(t, 2, withIssued, withApps, func(cfg *node.Config) {
		cfg.Guests = true
		if nodes.Add(1) == 2 {
			cfg.Bus = lateBoard{cfg.Bus, there}
		}
	})
	if status, _, said := call(t, "POST", c.Nodes[0].HTTP("/v1/users/ada/revoke"), "", "Authorization", "Bearer "+wholeKey); status != 202 {
		t.Fatalf("%d %v", status, said)
	}
	late := c.Nodes[1]
	history := late.HTTP("/v1/rooms/r/messages")
	for _, token := range []string{"ada@1", "bob@1"} {
		if status, _, said := call(t, "GET", history, "", "Authorization", "Bearer "+token); status != 503 || said["code"] != "unavailable" {
			t.Errorf("%s before the board is read: %d %v", token, status, said)
		}
	}
	if status, _, said := call(t, "GET", history, ""); status != 503 {
		t.Errorf("a guest before the board is read: %d %v", status, said)
	}
	if status, _, said := call(t, "GET", history, "", "Authorization", "Bearer "+wholeKey); status != 200 {
		t.Errorf("an application: %d %v", status, said)
	}
	early := nodetest.Dial(t, late.URL("/"))
	early.Say(`{"op":"hello","token":"ada@1"}`)
	early.WantError(wire.Unavailable)
	waits := nodetest.Dial(t, late.URL("/"))
	waits.Say(`{"op":"hello","token":"bob@1"}`)
	close(there)
	for f := waits.Next(); f.Op != "welcome"; f = waits.Next() { // it may have been too early
		if f.Code != wire.Unavailable {
			t.Fatalf("who waited hears %s", nodetest.Show(f))
		}
		time.Sleep(10 * time.Millisecond)
		waits.Say(`{"op":"hello","token":"bob@1"}`)
	}
	waits.Join("r")
	if status, _, said := call(t, "GET", history, "", "Authorization", "Bearer ada@1"); status != 401 {
		t.Errorf("a revoked token: %d %v", status, said)
	}
	if status, _, said := call(t, "GET", history, "", "Authorization", "Bearer bob@1"); status != 200 {
		t.Errorf("another's: %d %v", status, said)
	}
	if status, _, said := call(t, "GET", history, ""); status != 200 {
		t.Errorf("a guest: %d %v", status, said)
	}
}

// countsNothing is a bus that is away for those who count connections.
type countsNothing struct{ bus.Bus }

func (countsNothing) Count(context.Context, string, string, int, time.Duration) (int, error) {
	return 0, bus.ErrUnavailable
}

func TestWhileTheBusIsAwayAUserHasSoManyConnectionsPerNode(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2, withGrants, func(cfg *node.Config) {
		cfg.Limits.UserConnections = 2
		cfg.Bus = countsNothing{cfg.Bus}
	})
	for _, n := range c.Nodes {
		first := nodetest.Dial(t, n.URL("/"))
		hello(first, "ada")
		second := nodetest.Dial(t, n.URL("/"))
		hello(second, "ada")
		third := nodetest.Dial(t, n.URL("/"))
		third.Say(`{"op":"hello","token":"ada"}`)
		third.WantError(wire.RateLimited)
		hello(third, "bob")
		hello(second, "cy") // which frees a place
		fourth := nodetest.Dial(t, n.URL("/"))
		hello(fourth, "ada")
	}
}

// What an operator did before a node came, is done: it ends nobody's connection who has come back since.
func TestANodeThatStartsDisconnectsNobody(t *testing.T) {
	t.Parallel()
	b := lateBoard{there: make(chan struct{})}
	c := nodetest.Start(t, 1, withGrants, func(cfg *node.Config) {
		b.Bus = cfg.Bus
		cfg.Bus, cfg.Guests = b, true
	})
	n := c.Nodes[0]
	back := nodetest.Dial(t, n.URL("/"))
	if err := b.Post(t.Context(), `notice {"disconnect":"`+back.Welcome.User.ID+`","at":1}`, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	close(b.there)
	hello(nodetest.Dial(t, n.URL("/")), "ada") // which waits for the reading
	back.Say(`{"op":"ping"}`)
	back.Want("ok")
}

// Who was disconnected, or whose token was revoked, is told once, however often that is asked for, and heard no more: not even if it
// does not close.
func TestWhoIsExpelledIsToldOnceAndHeardNoMore(t *testing.T) {
	t.Parallel()
	for path, code := range map[string]wire.Code{"/v1/users/ada/disconnect": wire.Forbidden, "/v1/users/ada/revoke": wire.Unauthorized} {
		n := nodetest.Start(t, 1, withIssued, withApps, func(cfg *node.Config) { cfg.Guests = true }).Nodes[0]
		other := nodetest.Dial(t, n.URL("/"))
		other.Join("lobby")
		ada := dialRaw(t, n)
		ada.Write(masked(wire.OpText, `{"op":"hello","token":"ada@1"}`))
		ada.want(wire.OpText, `"id":"ada"`)
		ada.Write(masked(wire.OpText, `{"op":"join","room":"lobby"}`))
		ada.want(wire.OpText, `"op":"live"`)
		for range 2 {
			if status, _, said := call(t, "POST", n.HTTP(path), "", "Authorization", "Bearer "+wholeKey); status != 202 {
				t.Fatalf("%d %v", status, said)
			}
		}
		ada.Write(masked(wire.OpText, `{"op":"send","room":"lobby","text":"in spite of all"}`))
		ada.Write(masked(wire.OpClose, "\x03\xe8"))
		told := map[string]int{}
		for {
			op, payload, err := ada.next()
			if err != nil {
				break
			}
			if f, err := wire.ParseFrame(payload); op == wire.OpText && err == nil {
				told[strings.TrimSpace(f.Op+" "+string(f.Code))]++
			}
		}
		other.SendText("lobby", "next")
		if m := other.Until("message"); m.Text != "next" {
			t.Errorf("%s: whoever was expelled is heard: %q", path, m.Text)
		}
		if told["error "+string(code)] != 1 || told["bye"] != 1 {
			t.Errorf("%s: it is told %v", path, told)
		}
	}
}

// A token that was revoked opens nothing, and a guest whose session was revoked does not come back with it.
func TestWhoWasRevokedDoesNotComeBack(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, withIssued, withApps, func(cfg *node.Config) { cfg.Guests = true }).Nodes[0]
	guest := nodetest.Dial(t, n.URL("/"))
	for _, user := range []string{"ada", guest.Welcome.User.ID} {
		if status, _, said := call(t, "POST", n.HTTP("/v1/users/"+user+"/revoke"), "", "Authorization", "Bearer "+wholeKey); status != 202 {
			t.Fatalf("%d %v", status, said)
		}
	}
	guest.WantClose(wire.StatusNoToken)
	if _, resp, err := socketWith(t, n.URL("/"), []string{wire.Subprotocol}, "Authorization", "Bearer ada@1"); err == nil || resp.StatusCode != 401 {
		t.Errorf("a WebSocket with a token that was revoked: %v", err)
	}
	back := nodetest.Dial(t, n.URL("/"))
	for _, who := range []string{`"session":"` + guest.Welcome.Session + `"`, `"token":"ada@1"`} {
		back.Say(`{"op":"hello",%s}`, who)
		if e := back.WantError(wire.Unauthorized); !strings.Contains(e.Message, "revoked") {
			t.Errorf("hello with %s: %v", who, e)
		}
	}
	back.Join("lobby") // as who it was
}

// Who is told over the open socket that its token is not good harms nobody until it is gone, whatever is posted meanwhile.
func TestANoticePassesOverWhoHasNoGoodToken(t *testing.T) {
	t.Parallel()
	nodes := nodetest.Start(t, 2, withIssued, withApps).Nodes
	c := connectRaw(t, nodes[1])
	c.open(wire.Subprotocol + ", bearer.wrong")
	c.want(wire.OpClose, "")
	for _, path := range []string{"/v1/users/ada/disconnect", "/v1/users/ada/revoke"} {
		if status, _, said := call(t, "POST", nodes[0].HTTP(path), "", "Authorization", "Bearer "+wholeKey); status != 202 {
			t.Fatalf("%s: %d %v", path, status, said)
		}
	}
	for status := 0; status != 401; { // once the other node has read it
		status, _, _ = call(t, "GET", nodes[1].HTTP("/v1/rooms/r/messages"), "", "Authorization", "Bearer ada@1")
	}
}
