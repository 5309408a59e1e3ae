package socket

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fronts are the ways in which connections are read.
var fronts = map[string]func(*httptest.Server){
	"parked": (*httptest.Server).Start,
	"TLS": func(s *httptest.Server) {
		s.Listener = beneathTLS{s.Listener}
		s.StartTLS()
	},
	"goroutine": (*httptest.Server).StartTLS,
}

// An echo says what it is told.
type echo struct {
	c     *Conn
	ended chan int
}

func (e *echo) Ready() bool { return true }

func (e *echo) Message(_ bool, b []byte) bool {
	e.c.Put(AppendText(nil, b))
	return true
}

func (e *echo) Pong([]byte) {}

func (e *echo) Wait() {}

func (e *echo) Broken(code int, reason string) { e.c.Finish(AppendClose(nil, code, reason), code) }

func (e *echo) Ended(code int) { e.ended <- code }

// An echoes is a server that echoes what it is told, and the codes that its connections ended with.
type echoes struct {
	*httptest.Server
	conns  chan *Conn
	ended  chan int
	byHand bool // connections are not served: the test reads
}

func serveEchoes(t *testing.T, start func(*httptest.Server)) *echoes {
	t.Helper()
	g := NewGroup(Config{QueueBytes: 1 << 20, StallTimeout: 10 * time.Second, MessageWait: 30 * time.Second, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(g.Close)
	s := &echoes{conns: make(chan *Conn, 1000), ended: make(chan int, 1000)}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := g.Accept(w, r, "echo")
		if err != nil {
			t.Error(err)
			return
		}
		c.Put(nil)
		if c.handler = (&echo{c: c, ended: s.ended}); !s.byHand {
			go c.Serve(c.handler)
		}
		s.conns <- c
	}))
	start(s.Server)
	t.Cleanup(s.Close)
	return s
}

// byHandRead is a connection that is not served, whose client reads and drops what comes.
func byHandRead(t *testing.T, start func(*httptest.Server)) *Conn {
	t.Helper()
	s := serveEchoes(t, start)
	s.byHand = true
	nc := s.dial(t, nil)
	go io.Copy(io.Discard, nc) // ends with nc
	c := <-s.conns
	t.Cleanup(func() {
		c.close()
		nc.Close()
	})
	return c
}

// Who waits for space goes on once there is some, in whichever way what waited has left.
func TestSpaceIsFreedWhenWhatWasCorkedLeaves(t *testing.T) {
	for name, secure := range fronts {
		t.Run(name, func(t *testing.T) {
			c := byHandRead(t, secure)
			c.mu.Lock()
			c.group.cfg.QueueBytes = 8 << 10
			c.mu.Unlock()
			c.cork()
			c.Put(AppendText(nil, make([]byte, 6<<10))) // one write takes it all
			freed := make(chan bool)
			go func() { freed <- c.WaitForSpace() }()
			for waits := false; !waits; runtime.Gosched() {
				c.mu.Lock()
				waits = c.freed != nil
				c.mu.Unlock()
			}
			c.uncork()
			select {
			case ok := <-freed:
				if !ok {
					t.Error("the connection has ended")
				}
			case <-time.After(10 * time.Second):
				t.Error("there is space, and who waits is not told")
			}
		})
	}
}

// hello is a handshake.
const hello = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// dial connects, and sends the handshake together with early.
func (s *echoes) dial(t *testing.T, early []byte) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if s.TLS != nil {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := nc.Write(append([]byte(hello), early...)); err != nil {
		t.Fatal(err)
	}
	head, b := "", make([]byte, 1)
	for !strings.HasSuffix(head, "\r\n\r\n") {
		if _, err := io.ReadFull(nc, b); err != nil {
			t.Fatal(err)
		}
		head += string(b)
	}
	return nc
}

func TestAllConnectionsAreReadAlike(t *testing.T) {
	for name, start := range fronts {
		t.Run(name, func(t *testing.T) {
			s := serveEchoes(t, start)
			for _, c := range conversations {
				for how, piece := range map[string]int{"whole": len(c.in), "byte by byte": 1, "with the handshake": 0} {
					if piece == 1 && len(c.in) > 1000 || piece == 0 && len(c.in) > 2000 {
						continue
					}
					var early []byte
					if piece == 0 {
						early = c.in
					}
					nc := s.dial(t, early)
					for b := c.in[len(early):]; len(b) > 0; b = b[min(piece, len(b)):] {
						if _, err := nc.Write(b[:min(piece, len(b))]); err != nil {
							break // it is over before
						}
					}
					out := make([]byte, len(c.out))
					n, err := io.ReadFull(nc, out)
					if err != nil || !bytes.Equal(out, c.out) {
						t.Errorf("%s, %s: got %.80q (%v), want %.80q", c.name, how, out[:n], err, c.out)
					}
					if c.goesOn {
						nc.Write(clientFrame(0x89, "still"))
						if got := make([]byte, 7); true {
							if _, err := io.ReadFull(nc, got); err != nil || !bytes.Equal(got, pong("still")) {
								t.Errorf("%s, %s: then got %q, %v", c.name, how, got, err)
							}
						}
						nc.Close()
						<-s.ended
						continue
					}
					nc.Close()
					if code := <-s.ended; code != c.code {
						t.Errorf("%s, %s: counted as %d, want %d", c.name, how, code, c.code)
					}
				}
			}
		})
	}
}

// The library's connection has a finalizer, which closes what it was made of.
func TestIdleConnectionsOutliveCollections(t *testing.T) {
	for name, start := range fronts {
		t.Run(name, func(t *testing.T) {
			s := serveEchoes(t, start)
			var all []net.Conn
			for range 20 {
				all = append(all, s.dial(t, nil))
			}
			for range 4 {
				runtime.GC()
				time.Sleep(10 * time.Millisecond) // finalizers run by themselves
			}
			for i, nc := range all {
				nc.Write(clientFrame(0x81, fmt.Sprint(i)))
				want := text(fmt.Sprint(i))
				got := make([]byte, len(want))
				if _, err := io.ReadFull(nc, got); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("connection %d: %q, %v", i, got, err)
				}
				nc.Close()
			}
			for range all {
				<-s.ended
			}
		})
	}
}

// A waiter has everything that it is told wait, and notes how often others had their turn meanwhile.
type waiter struct {
	echo
	waits  int
	turns  func() int
	seen   int
	missed chan int
}

func (w *waiter) Ready() bool { return w.waits == 0 }

func (w *waiter) Message(bool, []byte) bool {
	w.waits = 1
	return false
}

func (w *waiter) Wait() {
	w.waits = 0
	now := w.turns()
	if now == w.seen {
		w.missed <- now
	}
	w.seen = now
}

// What waits may be over at once, again and again, and costs a good deal, such as a join: between two of them others have their turn,
// on one processor too.
func TestOthersHaveTheirTurnBetweenTwoRequestsThatWait(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	g := NewGroup(Config{QueueBytes: 1 << 20, StallTimeout: time.Minute, MessageWait: time.Minute, Log: slog.New(slog.DiscardHandler)})
	c := g.newConn(theirs)
	var turns atomic.Int64
	over := make(chan struct{})
	others := make(chan struct{})
	go func() {
		defer close(others)
		for {
			select {
			case <-over:
				return
			default:
				turns.Add(1)
				runtime.Gosched()
			}
		}
	}()
	w := &waiter{turns: func() int { return int(turns.Load()) }, missed: make(chan int, 1000), seen: -1}
	c.handler = w
	if err := c.take(bytes.Repeat(clientFrame(0x81, "join"), 100), true); err != nil {
		t.Error(err)
	}
	close(over)
	<-others
	if n := len(w.missed); n > 5 {
		t.Errorf("after %d of 100 requests nobody else had a turn", n)
	}
	g.Close()
}

// A sleeper has what it is told wait for so long.
type sleeper struct {
	echo
	wait time.Duration
}

func (s *sleeper) Message(bool, []byte) bool { return false }

func (s *sleeper) Wait() { time.Sleep(s.wait) }

// Nothing is read of a client while it waits: it has not been silent then, nor right after.
func TestWhoHasWaitedHasNotBeenSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		g := &Group{cfg: Config{QueueBytes: 1 << 20, StallTimeout: time.Hour, MessageWait: time.Hour}}
		c := g.newConn(theirs)
		c.handler = &sleeper{wait: time.Minute}
		go func() {
			time.Sleep(30 * time.Second)
			if s := c.Silence(time.Now()); s > 0 {
				t.Errorf("while it waits: silent for %v", s)
			}
		}()
		if err := c.take(clientFrame(0x81, "join"), true); err != nil {
			t.Error(err)
		}
		if s := c.Silence(time.Now()); s > 0 {
			t.Errorf("once it has waited: silent for %v", s)
		}
	})
}

// A large message is not kept until the client says something again.
func TestAMessageThatWasHandledIsLetGo(t *testing.T) {
	for name, start := range fronts {
		t.Run(name, func(t *testing.T) {
			c := byHandRead(t, start)
			c.handler = &dropped{}
			for in := clientFrame(0x81, strings.Repeat("x", 60<<10)); len(in) > 0; in = in[min(4096, len(in)):] {
				if err := c.take(slices.Clone(in[:min(4096, len(in))]), true); err != nil {
					t.Fatal(err)
				}
			}
			if kept := cap(c.frames.data); kept > 0 {
				t.Errorf("%d bytes are kept", kept)
			}
		})
	}
}

// dropped handles what it is told by forgetting it.
type dropped struct{ echo }

func (d *dropped) Message(bool, []byte) bool { return true }
