package node_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
)

// slowGrants are grants that are told once they may be.
type slowGrants struct {
	grants
	asked chan struct{} // capacity 1
	tell  chan struct{}
}

func (g slowGrants) Authenticate(ctx context.Context, token string) (node.Grant, error) {
	g.asked <- struct{}{}
	<-g.tell
	return g.grants.Authenticate(ctx, token)
}

// counting counts the calls of Count.
type counting struct {
	bus.Bus
	calls *atomic.Int64
}

func (c counting) Count(ctx context.Context, of, holder string, n int, life time.Duration) (int, error) {
	c.calls.Add(1)
	return c.Bus.Count(ctx, of, holder, n, life)
}

// What was asked before a node ended, and goes on after it, finds a node that begins nothing any more: no room is opened, and no
// goroutine left that nobody waits for. A user whose connection was counted meanwhile has none.
func TestWhatOutlivesTheNodeBeginsNothing(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{
		"a message":                "/v1/rooms/r/messages",
		"a stream":                 "/v1/rooms/r/events",
		"a stream of some rooms":   "/v1/events?room=r&room=s",
		"a socket of plain text":   "/?room=r&token=ada",
		"a socket of the protocol": "/",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			auth := slowGrants{asked: make(chan struct{}, 1), tell: make(chan struct{})}
			var opened, calls atomic.Int64
			c := nodetest.Start(t, 1, func(cfg *node.Config) {
				cfg.Auth, cfg.Limits.UserConnections, cfg.Limits.UserMessages = auth, 3, 3
				cfg.Bus = counting{asked{cfg.Bus, &opened}, &calls}
			})
			n := c.Nodes[0]
			var asking sync.WaitGroup
			asking.Go(func() {
				switch {
				case strings.HasPrefix(name, "a socket"):
					var offers []string
					if path == "/" {
						offers = []string{"parley.v1", "bearer.ada"}
					}
					_, _, _ = socketWith(t, n.URL(path), offers)
				default:
					method := map[bool]string{true: "POST", false: "GET"}[name == "a message"]
					r, err := http.NewRequest(method, n.HTTP(path), strings.NewReader(`{"text":"x"}`))
					if err != nil {
						t.Error(err)
						return
					}
					r.Header.Set("Authorization", "Bearer ada")
					resp, err := http.DefaultClient.Do(r)
					if err != nil {
						return
					}
					resp.Body.Close()
					if name == "a message" && resp.StatusCode != http.StatusServiceUnavailable {
						t.Errorf("it is answered %d", resp.StatusCode)
					}
				}
			})
			<-auth.asked
			if err := n.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			close(auth.tell)
			asking.Wait()
			for deadline := time.Now().Add(20 * time.Second); name != "a message"; time.Sleep(time.Millisecond) {
				total, err := n.Bus.Count(t.Context(), "connections of ada", "test", 0, time.Minute)
				if err == nil && total == 0 && calls.Load()%2 == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("after %d countings the user has %d connections, %v", calls.Load(), total, err)
				}
			}
			if m := opened.Load(); m > 0 {
				t.Errorf("the bus was asked for %d rooms", m)
			}
		})
	}
}
