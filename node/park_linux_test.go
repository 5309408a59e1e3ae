package node

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/bus"
	"parley/node/wire"
)

// All speak while the attendant is busy, so that it finds more than it gives turns to by itself.
func TestAllWhoSpeakAtOnceGetATurn(t *testing.T) {
	b := bus.NewMemory(bus.Retention{}).Open(bus.NoObserver{})
	defer b.Close()
	s := New(Config{Bus: b, Log: slog.New(slog.DiscardHandler), Drain: time.Millisecond})
	front := httptest.NewServer(s.Handler())
	defer front.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	defer s.Shutdown(ctx)

	clients := make([]*websocket.Conn, 64)
	for i := range clients {
		c, _, err := websocket.Dial(ctx, front.URL, &websocket.DialOptions{Subprotocols: []string{wire.Subprotocol}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		if _, _, err := c.Read(ctx); err != nil { // welcome
			t.Fatal(err)
		}
		clients[i] = c
	}
	s.lot.mu.Lock()
	for _, c := range clients {
		if err := c.Write(ctx, websocket.MessageText, []byte(`{"op":"ping","req":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	s.lot.mu.Unlock()
	for i, c := range clients {
		if _, answer, err := c.Read(ctx); err != nil || string(answer) != `{"op":"ok","req":1}` {
			t.Fatalf("client %d got %s, %v", i, answer, err)
		}
	}
}
