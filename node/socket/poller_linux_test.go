package socket

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"
)

// serve accepts WebSockets and hands their connections to take. The group ends with the test.
func serve(t *testing.T, take func(*Conn)) (*Group, *httptest.Server) {
	t.Helper()
	g := NewGroup(Config{QueueBytes: 64 << 10, StallTimeout: 10 * time.Second, MessageWait: 30 * time.Second, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(g.Close)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := g.Accept(w, r, "echo")
		if err != nil {
			t.Error(err)
			return
		}
		c.Put(nil)
		take(c)
	}))
	t.Cleanup(front.Close)
	return g, front
}

// All speak while the poller is busy, so that it finds more than it reads by itself.
func TestAllWhoSpeakAtOnceAreHeard(t *testing.T) {
	const n = 64
	ended := make(chan int, n)
	g, front := serve(t, func(c *Conn) { c.Serve(&echo{c: c, ended: ended}) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var clients []*websocket.Conn
	for range n {
		c, _, err := websocket.Dial(ctx, front.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		clients = append(clients, c)
	}
	g.poller.mu.Lock()
	for i, c := range clients {
		if err := c.Write(ctx, websocket.MessageText, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	g.poller.mu.Unlock()
	for i, c := range clients {
		if _, answer, err := c.Read(ctx); err != nil || string(answer) != fmt.Sprint(i) {
			t.Fatalf("client %d got %s, %v", i, answer, err)
		}
		c.Close(websocket.StatusNormalClosure, "")
	}
	for range n {
		select {
		case code := <-ended:
			if code != int(websocket.StatusNormalClosure) {
				t.Errorf("ended with %d", code)
			}
		case <-ctx.Done():
			t.Fatal("not all have ended")
		}
	}
}

func TestAClientThatSaysMuchIsReadInPieces(t *testing.T) {
	conns := make(chan *Conn, 1)
	_, front := serve(t, func(c *Conn) { conns <- c })
	client, err := net.Dial("tcp", front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	fmt.Fprint(client, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	hears := bufio.NewReader(client)
	if res, err := http.ReadResponse(hears, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res, err)
	}
	c := <-conns
	e := &echo{c: c, ended: make(chan int, 1)}
	c.handler = e

	ping := []byte{0x89, 0x80, 0, 0, 0, 0} // masked, with no payload
	const pings, inOneGo = 2000, 100
	if _, err := client.Write(bytes.Repeat(ping, pings)); err != nil {
		t.Fatal(err)
	}
	for there := 0; there < pings*len(ping); {
		if there, err = unix.IoctlGetInt(c.fd, unix.TIOCINQ); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, inOneGo*len(ping))
	if err := c.readSome(buf, false); err != nil {
		t.Fatal(err)
	}
	there, err := unix.IoctlGetInt(c.fd, unix.TIOCINQ)
	if left := there / len(ping); err != nil || left != pings-inOneGo {
		t.Errorf("%d pings are left after one go, of %d: %v", left, pings, err)
	}
	if err := c.readSome(make([]byte, pollBuffer), false); err != nil {
		t.Fatal(err)
	}
	before := there
	if there, err = unix.IoctlGetInt(c.fd, unix.TIOCINQ); err != nil || before-there != turnBytes {
		t.Errorf("%d bytes are read in a turn, want %d: %v", before-there, turnBytes, err)
	}
	pongs := make([]byte, 2*inOneGo)
	if _, err := io.ReadFull(hears, pongs); err != nil || !bytes.Equal(pongs, bytes.Repeat([]byte{0x8a, 0}, inOneGo)) {
		t.Errorf("answered % x: %v", pongs, err)
	}
	c.End(e)
}

// A wake-up may be under way when its connection ends. It is nobody's then, though another connection has the place.
func TestAWakeUpIsNotTakenForThatOfTheNextConnection(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	arrive := func(c *Conn) (wakeUp unix.EpollEvent) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.assignLocked(c)
		return unix.EpollEvent{Fd: c.slot, Pad: c.generation}
	}
	gone, next := new(Conn), new(Conn)
	late := arrive(gone)
	p.remove(gone)
	own := arrive(next)
	if own.Fd != late.Fd {
		t.Fatalf("the place %d was not used again, but %d", late.Fd, own.Fd)
	}
	if got := p.parked(nil, []unix.EpollEvent{late}); len(got) != 0 {
		t.Error("the next connection is woken for the one before it")
	}
	if got := p.parked(nil, []unix.EpollEvent{own}); len(got) != 1 || got[0] != next {
		t.Error("the next connection is not woken")
	}
	p.remove(next)
}
