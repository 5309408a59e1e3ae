package redis

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// quietPair gives a quiet socket and its other end.
func quietPair(t testing.TB) (quietly, other net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if other, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	quietly = quiet(c)
	t.Cleanup(func() { quietly.Close(); other.Close() })
	if _, ok := quietly.(*quietSocket); !ok {
		t.Fatalf("a TCP connection became a %T", quietly)
	}
	return quietly, other
}

// More than the socket holds: both directions have to wait for it.
func TestAQuietSocketPassesEverythingOn(t *testing.T) {
	q, other := quietPair(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go func() {
		io.Copy(other, other) // and back
		other.(*net.TCPConn).CloseWrite()
	}()
	written := make(chan error, 1)
	go func() {
		n, err := q.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		q.(*quietSocket).Conn.(*net.TCPConn).CloseWrite()
		written <- err
	}()
	got, err := io.ReadAll(q)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(sent), err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

func TestAQuietSocketKeepsDeadlines(t *testing.T) {
	q, _ := quietPair(t)
	q.SetDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := q.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %d, %v", n, err)
	}
	if _, err := q.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
}

func TestClosingAQuietSocketEndsARead(t *testing.T) {
	q, _ := quietPair(t)
	ended := make(chan error)
	go func() {
		_, err := q.Read(make([]byte, 1))
		ended <- err
	}()
	q.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// go-redis looks at a connection before it uses it again.
func TestALookAtAQuietSocketSeesWhetherItIsIdle(t *testing.T) {
	q, other := quietPair(t)
	look := func() error {
		raw, err := q.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		return raw.Read(nil)
	}
	until := func(want error) {
		t.Helper()
		for start := time.Now(); ; {
			err := look()
			if errors.Is(err, want) {
				return
			}
			if err != nil || time.Since(start) > 5*time.Second {
				t.Fatalf("got %v, want %v", err, want)
			}
		}
	}
	if err := look(); err != nil {
		t.Error(err)
	}
	other.Write([]byte("x"))
	until(errUnexpected)
	if _, err := q.Read(make([]byte, 1)); err != nil {
		t.Error("the look took what there was:", err)
	}
	other.Close()
	until(io.EOF)
}

func TestAQuietSocketAllocatesNothing(t *testing.T) {
	q, other := quietPair(t)
	go io.Copy(other, other)
	b := make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() {
		q.Write(b)
		io.ReadFull(q, b)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
