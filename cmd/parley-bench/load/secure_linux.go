package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A secureConn speaks TLS over a socket that the loop waits for. Its handshake has a goroutine of its own, with the socket in
// blocking mode; from then on nothing blocks.
type secureConn struct {
	tls *tls.Conn
	raw *rawConn

	shaking bool // hands: the socket is the goroutine's, which also closes it if the loop has given it up. Owned by the loop.
}

// secure shakes hands over a connected socket elsewhere, and goes on in the loop.
func (l *loop) secure(c *conn, a *address) {
	raw := &rawConn{fd: int(c.fd)}
	s := &secureConn{raw: raw, shaking: true, tls: tls.Client(raw, &tls.Config{
		ServerName: a.url.Hostname(), InsecureSkipVerify: a.insecure,
	})}
	c.secure = s
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, raw.fd, nil); err != nil {
		l.drop(c, fmt.Errorf("epoll: %w", err))
	}
	l.shaking.Go(func() {
		err := s.shakeHands()
		if !l.post(func() { l.secured(c, s, err) }) {
			unix.Close(raw.fd)
		}
	})
}

// secured goes on after the handshake.
func (l *loop) secured(c *conn, s *secureConn, err error) {
	s.shaking = false
	if c.secure != s { // given up meanwhile
		unix.Close(s.raw.fd)
		return
	}
	if err == nil {
		err = l.watch(c, unix.EPOLL_CTL_ADD, false)
	}
	a := l.targetOf(c)
	if err != nil {
		l.drop(c, fmt.Errorf("connect to %s: %w", a.host, err))
		return
	}
	l.handshake(c, a)
}

func (s *secureConn) shakeHands() error {
	fd := s.raw.fd
	if err := unix.SetNonblock(fd, false); err != nil {
		return err
	}
	limit := unix.NsecToTimeval(int64(10 * time.Second))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	if err := s.tls.Handshake(); err != nil {
		return err
	}
	s.raw.shaken = true
	return unix.SetNonblock(fd, true)
}

// receive is as read(2) on a socket that does not block: EAGAIN if there is nothing, 0 at the end.
func (s *secureConn) receive(b []byte) (int, error) {
	n, err := s.tls.Read(b)
	switch {
	case n > 0:
		return n, nil
	case errors.Is(err, errAgain):
		return 0, unix.EAGAIN
	case err == io.EOF:
		return 0, nil
	case err == nil:
		return 0, unix.EAGAIN
	}
	return 0, err
}

// takeUnsent returns what TLS has written and the socket has not been given yet.
func (s *secureConn) takeUnsent() []byte {
	b := s.raw.unsent
	s.raw.unsent = nil
	return b
}

// A rawConn is what TLS reads from and writes to.
type rawConn struct {
	fd     int
	shaken bool   // hands: from then on writes are collected
	unsent []byte // written since the last takeUnsent
}

// errAgain says that there is nothing to read. TLS takes a temporary error for one that may pass, and reads on later.
var errAgain error = againError{}

type againError struct{}

func (againError) Error() string   { return "nothing to read" }
func (againError) Timeout() bool   { return true }
func (againError) Temporary() bool { return true }

func (c *rawConn) Read(b []byte) (int, error) {
	n, err := unix.Read(c.fd, b)
	for err == unix.EINTR {
		n, err = unix.Read(c.fd, b)
	}
	switch {
	case err == unix.EAGAIN && !c.shaken:
		return 0, os.ErrDeadlineExceeded
	case err == unix.EAGAIN:
		return 0, errAgain
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (c *rawConn) Write(b []byte) (int, error) {
	if c.shaken {
		c.unsent = append(c.unsent, b...)
		return len(b), nil
	}
	for sent := 0; sent < len(b); {
		n, err := unix.Write(c.fd, b[sent:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return sent, os.NewSyscallError("write", err)
		}
		sent += n
	}
	return len(b), nil
}

// The loop closes the socket; no address and no deadline is ever asked for.

func (c *rawConn) Close() error                     { return nil }
func (c *rawConn) LocalAddr() net.Addr              { return nil }
func (c *rawConn) RemoteAddr() net.Addr             { return nil }
func (c *rawConn) SetDeadline(time.Time) error      { return nil }
func (c *rawConn) SetReadDeadline(time.Time) error  { return nil }
func (c *rawConn) SetWriteDeadline(time.Time) error { return nil }
