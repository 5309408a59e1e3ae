package node

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"parley/bus"
	"parley/bus/memory"
	"parley/node/wire"
)

// All speak while the attendant is busy, so that it finds more than it gives turns to by itself.
func TestAllWhoSpeakAtOnceGetATurn(t *testing.T) {
	b := memory.New(bus.Retention{}).Open(bus.NoObserver{})
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

func TestAClientThatSaysMuchTakesTurnsWithOthers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	b := memory.New(bus.Retention{}).Open(bus.NoObserver{})
	defer b.Close()
	s := New(Config{Bus: b, Log: slog.New(slog.DiscardHandler)})
	defer s.Shutdown(t.Context())
	sess := s.newSession(jsonV1, s.newConn(server), "")

	ping := []byte{0x89, 0x80, 0, 0, 0, 0} // masked, with no payload
	const pings, inOneGo = 1000, 100
	if _, err := client.Write(bytes.Repeat(ping, pings)); err != nil {
		t.Fatal(err)
	}
	for there := 0; there < pings*len(ping); {
		if there, err = unix.IoctlGetInt(sess.conn.fd, unix.TIOCINQ); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, inOneGo*len(ping))
	if err := sess.takeTurn(buf, false); err != nil {
		t.Fatal(err)
	}
	there, err := unix.IoctlGetInt(sess.conn.fd, unix.TIOCINQ)
	if left := there / len(ping); err != nil || left != pings-inOneGo {
		t.Errorf("%d pings are left after one turn, of %d: %v", left, pings, err)
	}
	pongs := make([]byte, 2*inOneGo)
	if _, err := io.ReadFull(client, pongs); err != nil || !bytes.Equal(pongs, bytes.Repeat([]byte{0x8a, 0}, inOneGo)) {
		t.Errorf("answered % x: %v", pongs, err)
	}
}
