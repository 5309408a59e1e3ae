package client

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"parley/node/wire"
)

func TestWhoComesBackWaitsAsTheNodeAsks(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		var states []Status
		o := n.options()
		o.Status = func(s Status) { states = append(states, s) }
		_, fc := n.dial(o)
		began := time.Now()
		fc.say(wire.Bye{Code: wire.StatusRestart, Reason: "restart", RetryAfter: 40 * time.Second})
		go fc.ws.Close(wire.StatusRestart, "restart")
		fc2 := n.next()
		if waited := time.Since(began); waited < 40*time.Second || waited > 41*time.Second {
			t.Errorf("came back after %v, asked for 40 s", waited)
		}
		fc.cut()
		fc2.welcome()

		n.set(func() {
			n.refuse = func(w http.ResponseWriter) {
				w.Header().Set("Retry-After", "90")
				http.Error(w, "draining", http.StatusServiceUnavailable)
			}
		})
		fc2.cut()
		time.Sleep(time.Minute)
		n.set(func() { n.refuse = nil })
		dials := len(n.dialled())
		began = n.dialled()[dials-1]
		n.next().welcome()
		if waited := time.Since(began); waited < 90*time.Second || waited > 92*time.Second {
			t.Errorf("came back after %v, asked for 90 s", waited)
		}
		synctest.Wait()
		if node := states[0].Node; node != "fake" {
			t.Errorf("told that it is connected to %q", node)
		}
		var told []string
		for _, s := range states {
			told = append(told, fmt.Sprintf("%v %v", s.Up, s.Err))
		}
		want := []string{
			"true <nil>", "false the node closed the connection: 1012 restart", "true <nil>", "false the connection was lost",
			"false connect to ws://node: 503 Service Unavailable: draining", "true <nil>",
		}
		for i := range want {
			if i >= len(told) || !strings.HasPrefix(told[i], want[i]) {
				t.Fatalf("told %q, want %q", told, want)
			}
		}
	})
}

func TestBackoffGrowsWithJitterUpToItsBound(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		o := n.options()
		o.MinBackoff, o.MaxBackoff = 100*time.Millisecond, 2*time.Second
		_, fc := n.dial(o)
		time.Sleep(time.Minute / 2)
		n.set(func() { n.away = true })
		fc.cut()
		lost := time.Now()
		time.Sleep(time.Minute)
		n.set(func() { n.away = false })
		n.next().welcome()
		var waits []time.Duration
		for i, d := range n.dialled()[1:] {
			waits = append(waits, d.Sub(lost))
			lost = d
			most := min(2*time.Second, 100*time.Millisecond<<min(i, 10))
			if waits[i] < most/2 || waits[i] > most+time.Millisecond {
				t.Errorf("wait %d was %v, want between %v and %v", i, waits[i], most/2, most)
			}
		}
		seen := map[time.Duration]bool{}
		for _, w := range waits {
			seen[w] = true
		}
		if len(seen) < len(waits)*9/10 {
			t.Errorf("the waits are hardly jittered: %v", waits)
		}
	})
	if o := (Options{MinBackoff: time.Minute}).withDefaults(); o.MaxBackoff != time.Minute {
		t.Errorf("from a minute it grows up to %v", o.MaxBackoff)
	}
}

func TestASilentConnectionIsGivenUpAndOneThatSpeaksOrPingsIsNot(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		_, fc := n.dial(n.options())
		began := time.Now()
		for range 5 {
			time.Sleep(50 * time.Second)
			fc.say(wire.Live{Room: "lobby"})
		}
		for range 5 {
			time.Sleep(50 * time.Second)
			if err := pingNow(fc.ws); err != nil {
				t.Fatal(err)
			}
		}
		fc2 := n.next() // then nothing
		if got := time.Since(began); got < 555*time.Second || got > 556*time.Second {
			t.Errorf("the silent connection was given up after %v, want 500 s of life and 2.2 times 25 s of silence", got)
		}
		fc2.welcome()
	})
}

// How long a node may be silent follows from how often it says that it pings; where it does not say, it pings as by default.
func TestANodeMayBeSilentForTwoOfItsPings(t *testing.T) {
	for ping, most := range map[int]time.Duration{0: 55 * time.Second, 5: 11 * time.Second, 100: 220 * time.Second} {
		withFakeNode(t, func(t *testing.T, n *fakeNode) {
			_, fc := n.dial(n.options())
			fc.cut()
			fc = n.next()
			hello := fc.want("hello")
			fc.say(wire.Welcome{Req: hello.Req, User: wire.User{ID: "me", Guest: true}, Ping: ping})
			said := time.Now()
			n.next().welcome()
			if silent := time.Since(said); silent < most || silent > most+time.Second {
				t.Errorf("with a ping every %d s it was given up after %v, want %v", ping, silent, most)
			}
		})
	}
}

// pingNow pings and waits for the answer, which needs a reader.
func pingNow(ws *websocket.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	go ws.Read(context.Background()) // ends with the connection
	return ws.Ping(ctx)
}

func TestDialGivesUpWithItsContext(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		n.set(func() { n.away = true })
		for i, scheme := range []string{"ws", "wss", "http", "https"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := Dial(ctx, scheme+"://node", n.options()); err == nil || err.Error() != "connect to "+scheme+"://node: connection refused" {
				t.Errorf("got %v", err)
			}
			if len(n.dialled()) < 5*(i+1) {
				t.Errorf("tried only %d times", len(n.dialled()))
			}
		}
	})
}
