package main

import (
	"context"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A drain may take longer than all else that a shutdown waits for, and hardly any time: the last client, too, is said goodbye, and waited for.
func TestADrainCutsNobodyOffHoweverLongItIs(t *testing.T) {
	t.Parallel()
	for _, drain := range []time.Duration{time.Nanosecond, afterDrain + 2*time.Second} {
		t.Run(drain.String(), func(t *testing.T) {
			t.Parallel()
			const clients = 20
			n := startNode(t, "--drain", drain.String())
			ctx, cancel := context.WithTimeout(t.Context(), drain+patience)
			defer cancel()
			closed := make(chan websocket.StatusCode, clients)
			for range clients {
				c := dial(t, ctx, n, "/")
				go func() {
					_, _, err := c.Read(ctx)
					closed <- websocket.CloseStatus(err)
				}()
			}
			if err := n.terminate(); err != nil {
				t.Errorf("%v: %s", err, n.stderr.Bytes())
			}
			for i := range clients {
				if code := <-closed; code != websocket.StatusServiceRestart {
					t.Errorf("client %d of %d was closed with %d", i+1, clients, code)
				}
			}
		})
	}
}
