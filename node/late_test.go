package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// slowToKnow is an Authenticator that takes its time.
type slowToKnow struct {
	asked, answer chan struct{}
}

func (a slowToKnow) Authenticate(_ context.Context, token string) (node.Grant, error) {
	if token == "slow" {
		close(a.asked)
		<-a.answer
	}
	return node.Grant{User: node.User{ID: token}}, nil
}

// Who has asked for a connection before a drain, and is told who it is after the goodbyes have begun, is sent away like the others.
func TestWhoComesAsADrainBeginsIsSentAway(t *testing.T) {
	t.Parallel()
	auth := slowToKnow{make(chan struct{}), make(chan struct{})}
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Auth, cfg.Guests, cfg.Drain = auth, true, time.Hour })
	n := c.Nodes[0]
	for range 3 { // whose goodbyes keep the drain from ending
		nodetest.Dial(t, n.URL("/"))
	}
	closed := make(chan websocket.StatusCode, 1)
	go func() {
		ws, _, err := socketWith(t, n.URL("/"), []string{wire.Subprotocol, "bearer.slow"})
		if err != nil {
			t.Error(err)
			closed <- 0
			return
		}
		_, code := frames(t, ws)
		closed <- code
	}()
	<-auth.asked
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = n.Stop(ctx)
	}()
	defer func() { cancel(); <-stopped }()
	for n.Ready() == nil {
		time.Sleep(time.Millisecond)
	}
	close(auth.answer)
	select {
	case code := <-closed:
		if code != wire.StatusRestart {
			t.Errorf("it was closed with %d", code)
		}
	case <-time.After(20 * time.Second):
		t.Error("it was not sent away")
	}
}
