package socket

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"
)

// acceptors are the ways in which a listener gives connections away.
var acceptors = map[string]func(*plainListener) (net.Conn, error){
	"accepted": func(l *plainListener) (net.Conn, error) { return l.Accept() },
	"plain":    func(l *plainListener) (net.Conn, error) { return l.acceptPlain() },
	"ordinary": func(l *plainListener) (net.Conn, error) {
		p, err := l.acceptPlain()
		if err != nil {
			return nil, err
		}
		return p.ordinary()
	},
}

// dialled is a listener, and a client that has said something, so that it is accepted at once.
func dialled(t testing.TB, addr string) (*plainListener, net.Conn) {
	t.Helper()
	ln, err := Listen(t.Context(), addr, probes)
	if err != nil {
		t.Skipf("%s can't be listened on: %v", addr, err)
	}
	t.Cleanup(func() { ln.Close() })
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	io.WriteString(client, "x")
	return ln.(*plainListener), client
}

// connected is a client and its connection.
func connected(t testing.TB, addr string, accept func(*plainListener) (net.Conn, error)) (client, server net.Conn) {
	t.Helper()
	ln, client := dialled(t, addr)
	server, err := accept(ln)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestAPlainConnectionIsAsAnyOther(t *testing.T) {
	for name, swap := range map[string]bool{"it is held to": false, "its peer is": true} { // most is asked of the first of the two
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
				b, a = connected(t, "127.0.0.1:0", acceptors["plain"])
				if swap {
					a, b = b, a
				}
				return a, b, func() { a.Close(); b.Close() }, nil
			})
		})
	}
}

func TestAPlainConnectionFailsAsAnyOther(t *testing.T) {
	for name, accept := range acceptors {
		_, nc := connected(t, "127.0.0.1:0", accept)
		nc.SetReadDeadline(time.Now().Add(-time.Second))
		_, err := nc.Read(make([]byte, 1))
		if want := fmt.Sprintf("read tcp %s->%s: i/o timeout", nc.LocalAddr(), nc.RemoteAddr()); err == nil || err.Error() != want {
			t.Errorf("%s: a read that is late ends with %q, want %q", name, err, want)
		}
		if p, ok := nc.(*plainConn); ok {
			p.file.Close() // what a read hears that is under way when p is closed
		} else {
			nc.Close()
		}
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: a read of what is closed ends with %v", name, err)
		}
	}
}

// A descriptor that was closed may be somebody else's.
func TestAClosedPlainConnectionLeavesItsDescriptorAlone(t *testing.T) {
	for _, waited := range []bool{false, true} {
		ln, _ := dialled(t, "127.0.0.1:0")
		p, err := ln.acceptPlain()
		if err != nil {
			t.Fatal(err)
		}
		if waited {
			p.SetDeadline(time.Now().Add(time.Hour))
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		pair := sockets(t, p.fd)
		for what, do := range map[string]func() error{
			"a read":      func() error { _, err := p.Read(make([]byte, 1)); return err },
			"a write":     func() error { _, err := p.Write([]byte("x")); return err },
			"a deadline":  func() error { return p.SetDeadline(time.Now().Add(time.Hour)) },
			"a shutdown":  p.CloseWrite,
			"a close":     p.Close,
			"a hand-over": func() error { _, err := p.ordinary(); return err },
		} {
			if err := do(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("waited %v: %s of what is closed ends with %v", waited, what, err)
			}
		}
		if n, err := unix.Write(pair[0], []byte("hi")); n != 2 || err != nil {
			t.Errorf("waited %v: who has the descriptor now can't write: %v", waited, err)
		}
	}
}

func TestAConnectionIsAsItsListenerSays(t *testing.T) {
	for name, accept := range acceptors {
		_, nc := connected(t, "127.0.0.1:0", accept)
		for option, o := range map[string]struct{ level, option, want int }{
			"SO_KEEPALIVE":  {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			"TCP_KEEPIDLE":  {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(probes.Idle / time.Second)},
			"TCP_KEEPINTVL": {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(probes.Interval / time.Second)},
			"TCP_KEEPCNT":   {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, probes.Count},
			"TCP_NODELAY":   {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		} {
			if got, err := unix.GetsockoptInt(socketOf(nc), o.level, o.option); err != nil || got != o.want {
				t.Errorf("%s: %s is %d (%v), want %d", name, option, got, err, o.want)
			}
		}
	}
}

func TestAPlainConnectionKnowsItsAddresses(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		client, server := connected(t, addr, acceptors["plain"])
		if got, want := server.RemoteAddr().String(), client.LocalAddr().String(); got != want {
			t.Errorf("the peer of %s is %s, want %s", addr, got, want)
		}
		if got, want := server.LocalAddr().String(), client.RemoteAddr().String(); got != want {
			t.Errorf("listening on %s it is %s, want %s", addr, got, want)
		}
	}
	for want, sa := range map[string]unix.Sockaddr{
		"192.0.2.1:80":   &unix.SockaddrInet6{Port: 80, Addr: netip.MustParseAddr("::ffff:192.0.2.1").As16()},
		"[fe80::1%7]:80": &unix.SockaddrInet6{Port: 80, ZoneId: 7, Addr: netip.MustParseAddr("fe80::1").As16()},
	} {
		if got := addrPortOf(sa).String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestAPlainListenerEndsWhoWaitsAndGivesItsAddressBack(t *testing.T) {
	ln, err := Listen(t.Context(), "127.0.0.1:0", probes)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := ln.(*plainListener).acceptPlain()
		ended <- err
	}()
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != net.ErrClosed {
		t.Errorf("accepting ended with %v", err)
	}
	again, err := Listen(t.Context(), ln.Addr().String(), probes)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// An http.Server waits, and goes on, after an error that it knows to be of the moment.
func TestAListenerWithoutDescriptorsIsSoForTheMoment(t *testing.T) {
	ln, _ := dialled(t, "127.0.0.1:0")
	restore := descriptors(t, 3)
	_, err := ln.acceptPlain()
	restore()
	if passing, ok := err.(interface{ Temporary() bool }); !ok || !passing.Temporary() {
		t.Errorf("accepting ended with %v, which is not of the moment", err)
	}
	nc, err := ln.acceptPlain()
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

// descriptors has no descriptor from most on be given away, until restore.
func descriptors(t *testing.T, most int) (restore func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := was
	few.Cur = uint64(most)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	return func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &was) }
}

// Where there is one descriptor left, a connection can't be handed over: it is dropped, and the next one is accepted.
func TestAConnectionThatCannotBeHandedOverIsDropped(t *testing.T) {
	ln, client := dialled(t, "127.0.0.1:0")
	next, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	least, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(least)

	restore := descriptors(t, least+1)
	u := &Upgrades{Listener: ln, Log: log.New(io.Discard, "", 0)}
	accepted := make(chan net.Conn)
	go func() {
		nc, err := u.Accept()
		if err != nil {
			t.Errorf("accepting ended with %v", err)
		}
		accepted <- nc
	}()
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on: %v", err)
	}
	restore()
	io.WriteString(next, "x")
	if nc := <-accepted; nc == nil || nc.RemoteAddr().String() != next.LocalAddr().String() {
		t.Errorf("%v was accepted", nc)
	} else {
		nc.Close()
	}
}
