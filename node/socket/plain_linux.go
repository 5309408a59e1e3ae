package socket

import (
	"cmp"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A plainListener can give its connections away as sockets that the Go runtime knows nothing of. Having it watch each, beside the poller,
// takes half of what accepting one costs, and 0.8 KB for as long as it lasts.
type plainListener struct {
	*net.TCPListener
	file   *os.File        // the socket again: it is here that a connection is waited for
	wait   syscall.RawConn // of file
	probes net.KeepAliveConfig
}

func plainListenerOf(ln net.Listener, probes net.KeepAliveConfig) net.Listener {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return ln
	}
	file, err := tcp.File()
	if err != nil {
		return ln
	}
	wait, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return ln
	}
	return &plainListener{tcp, file, wait, probes}
}

// Close implements net.Listener.
func (l *plainListener) Close() error {
	return cmp.Or(l.TCPListener.Close(), l.file.Close())
}

// acceptPlain accepts a connection. An http.Server goes on after what it fails with for the moment (syscall.Errno.Temporary).
func (l *plainListener) acceptPlain() (*plainConn, error) {
	var fd int
	var from unix.Sockaddr
	var failed error
	err := l.wait.Read(func(s uintptr) bool {
		for failed = unix.ECONNABORTED; failed == unix.ECONNABORTED; { // of a connection that has gone: as in package net
			fd, from, failed = unix.Accept4(int(s), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		}
		return failed != unix.EAGAIN
	})
	if err != nil {
		return nil, net.ErrClosed
	}
	if failed != nil {
		return nil, failed
	}
	return &plainConn{fd: fd, from: addrPortOf(from), listener: l}, nil
}

func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			addr = addr.WithZone(strconv.Itoa(int(sa.ZoneId)))
		}
		return netip.AddrPortFrom(addr, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// A plainConn is a connection of which the runtime gets to know when something has to wait for it. LocalAddr is what was listened on.
type plainConn struct {
	listener *plainListener // static
	from     netip.AddrPort // static
	fd       int            // static

	mu     sync.Mutex
	file   *os.File // guarded by mu; what waits. It owns fd then.
	closed bool     // guarded by mu
}

// waiting is what can wait.
func (p *plainConn) waiting() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	if p.file == nil {
		p.file = os.NewFile(uintptr(p.fd), "socket")
	}
	return p.file, nil
}

// Read implements net.Conn.
func (p *plainConn) Read(b []byte) (n int, err error) {
	f, err := p.waiting()
	if err == nil {
		n, err = f.Read(b)
	}
	return n, p.failure("read", err)
}

// Write implements net.Conn.
func (p *plainConn) Write(b []byte) (n int, err error) {
	f, err := p.waiting()
	if err == nil {
		n, err = f.Write(b)
	}
	return n, p.failure("write", err)
}

// failure is an error as package net tells it.
func (p *plainConn) failure(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if file := (*os.PathError)(nil); errors.As(err, &file) {
		err = file.Err
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "tcp", Source: p.LocalAddr(), Addr: p.RemoteAddr(), Err: err}
}

// Close implements net.Conn.
func (p *plainConn) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	p.closed = true
	if p.file != nil {
		return p.file.Close()
	}
	return unix.Close(p.fd)
}

// CloseWrite ends what is written, as that of net.TCPConn.
func (p *plainConn) CloseWrite() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	return unix.Shutdown(p.fd, unix.SHUT_WR)
}

// LocalAddr implements net.Conn.
func (p *plainConn) LocalAddr() net.Addr { return p.listener.Addr() }

// RemoteAddr implements net.Conn.
func (p *plainConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.from) }

// SetDeadline implements net.Conn.
func (p *plainConn) SetDeadline(t time.Time) error { return p.setDeadline((*os.File).SetDeadline, t) }

// SetReadDeadline implements net.Conn.
func (p *plainConn) SetReadDeadline(t time.Time) error {
	return p.setDeadline((*os.File).SetReadDeadline, t)
}

// SetWriteDeadline implements net.Conn.
func (p *plainConn) SetWriteDeadline(t time.Time) error {
	return p.setDeadline((*os.File).SetWriteDeadline, t)
}

func (p *plainConn) setDeadline(set func(*os.File, time.Time) error, t time.Time) error {
	p.mu.Lock()
	none := p.file == nil && t.IsZero()
	p.mu.Unlock()
	if none {
		return nil
	}
	f, err := p.waiting()
	if err == nil {
		err = set(f, t)
	}
	return p.failure("set", err)
}

// ordinary is the connection as Accept would have returned it; p is used up.
func (p *plainConn) ordinary() (net.Conn, error) {
	f, err := p.waiting()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	nc, err := net.FileConn(f) // of a descriptor of its own
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(p.listener.probes) // FileConn has set others
	}
	return nc, err
}
