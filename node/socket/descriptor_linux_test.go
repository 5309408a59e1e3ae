package socket

import (
	"bytes"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"
)

// A slowWrite is a connection of which a write ends only when it is let go.
type slowWrite struct {
	*net.TCPConn
	writing, letGo chan struct{}
}

func (s *slowWrite) Write([]byte) (int, error) {
	close(s.writing)
	<-s.letGo
	return 0, net.ErrClosed
}

// An event stream ends once what waits has left. Where it is cut off meanwhile, its descriptor may be another connection's by the time
// that the writer notices: that one must not suffer.
func TestACutOffStreamHarmsNobodyWhoHasItsDescriptor(t *testing.T) {
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
	client.(*net.TCPConn).SetReadBuffer(4 << 10)
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	nc.(*net.TCPConn).SetWriteBuffer(4 << 10)
	g := NewGroup(Config{QueueBytes: 64 << 10, StallTimeout: 10 * time.Second, MessageWait: 30 * time.Second, Log: slog.New(slog.DiscardHandler)})
	defer g.Close()
	slow := &slowWrite{nc.(*net.TCPConn), make(chan struct{}), make(chan struct{})}
	c := g.Stream(slow, []byte("HTTP/1.1 200 OK\r\n\r\n"))
	c.Put(bytes.Repeat([]byte("data\n\n"), 1<<18)) // more than the kernel takes
	<-slow.writing
	c.Finish(nil, 1001)
	c.Abort(0) // it has not read on
	c.End(&echo{c: c, ended: make(chan int, 1)})

	pair := sockets(t, c.fd)
	close(slow.letGo)
	for draining := true; draining; {
		c.mu.Lock()
		draining = c.draining
		c.mu.Unlock()
	}
	if n, err := syscall.Write(pair[1], []byte("hi")); n != 2 || err != nil {
		t.Fatalf("who has the descriptor now was cut off: %v", err)
	}
}

// sockets makes two that are connected, of which the first has that descriptor.
func sockets(t *testing.T, fd int) [2]int {
	t.Helper()
	for range 100 { // the least that is free comes first
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			syscall.Close(pair[0])
			syscall.Close(pair[1])
		})
		switch fd {
		case pair[0]:
			return pair
		case pair[1]:
			return [2]int{pair[1], pair[0]}
		}
	}
	t.Fatalf("the descriptor %d was not used again", fd)
	return [2]int{}
}
