package main

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// handed is a listener that accepts what it is handed.
type handed struct {
	conns chan net.Conn
	over  chan struct{}
	once  sync.Once
}

func (l *handed) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}

func (l *handed) Close() error { l.once.Do(func() { close(l.over) }); return nil }

func (l *handed) Addr() net.Addr { return &net.TCPAddr{} }

// Who asks over HTTP and leaves the connection open holds it for some minutes only, if it asks for nothing more.
func TestAConnectionThatIsNotUsedAnyMoreIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
		l := &handed{conns: make(chan net.Conn), over: make(chan struct{})}
		var serving sync.WaitGroup
		serving.Go(func() { s.Serve(l) })
		defer serving.Wait()
		defer s.Close()
		nc, theirs := net.Pipe()
		defer nc.Close()
		l.conns <- theirs
		r := bufio.NewReader(nc)
		for range 3 { // it is used for longer than it may be idle
			io.WriteString(nc, "GET / HTTP/1.1\r\nHost: parley\r\n\r\n")
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			time.Sleep(time.Minute)
		}
		asked := time.Now().Add(-time.Minute) // for the last time
		nc.SetReadDeadline(asked.Add(time.Hour))
		_, err := r.ReadByte()
		if idle := time.Since(asked); err != io.EOF || idle < time.Minute || idle > 5*time.Minute {
			t.Errorf("it was closed after %v (%v)", idle, err)
		}
	})
}
