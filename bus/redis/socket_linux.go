package redis

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A quietSocket is a connection whose reads and writes the Go scheduler is not told of. They never block, so there is nothing
// to tell; and being told costs more than the call: after each pause it wakes the scheduler's monitor, a thread that finds
// nothing to do. With 500 rooms of ten at 2,500 messages a second, half of a node's switches between threads were these.
//
// The monitor is also what has the scheduler take turns. So who reads and never finds nothing has to yield by himself.
//
// One Read and one Write may be called at a time, and all else concurrently.
type quietSocket struct {
	net.Conn
	raw     syscall.RawConn
	in, out transfer
}

// A transfer is a Read or Write, made once so that calls allocate nothing.
type transfer struct {
	call uintptr
	rest []byte
	n    int
	err  error
	try  func(fd uintptr) bool
}

// quiet makes reads and writes of a plain socket quiet. Others stay as they are.
func quiet(c net.Conn) net.Conn {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return c
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return c
	}
	s := &quietSocket{Conn: c, raw: raw}
	s.in = transfer{call: syscall.SYS_READ, try: s.in.read}
	s.out = transfer{call: syscall.SYS_WRITE, try: s.out.write}
	return s
}

func (s *quietSocket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return s.in.make(b, s.raw.Read)
}

func (s *quietSocket) Write(b []byte) (int, error) { return s.out.make(b, s.raw.Write) }

// make transfers b, waiting for the socket as often as need be.
func (t *transfer) make(b []byte, wait func(func(uintptr) bool) error) (int, error) {
	t.rest, t.n, t.err = b, 0, nil
	err := wait(t.try)
	t.rest = nil
	if err == nil {
		err = t.err
	}
	return t.n, err
}

// read reports false if there is nothing to read yet.
func (t *transfer) read(fd uintptr) bool {
	n, again := t.once(fd)
	if n == 0 && !again && t.err == nil {
		t.err = io.EOF
	}
	return !again
}

// write reports false if not everything could be written yet.
func (t *transfer) write(fd uintptr) bool {
	for len(t.rest) > 0 && t.err == nil {
		if _, again := t.once(fd); again {
			return false
		}
	}
	return true
}

func (t *transfer) once(fd uintptr) (n int, again bool) {
	for {
		n, _, errno := syscall.RawSyscall(t.call, fd, uintptr(unsafe.Pointer(&t.rest[0])), uintptr(len(t.rest)))
		switch errno {
		case 0:
			t.rest = t.rest[n:]
			t.n += int(n)
			return int(n), false
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, true
		default:
			t.err = os.NewSyscallError("socket", errno)
			return 0, false
		}
	}
}

// SyscallConn serves go-redis, which looks at an idle connection before it uses it: the look is a quiet one, too.
func (s *quietSocket) SyscallConn() (syscall.RawConn, error) { return look{s.raw}, nil }

// A look is a RawConn whose Read looks whether the connection is as an idle one should be. It does not call what it is given.
type look struct{ syscall.RawConn }

var errUnexpected = errors.New("the server said something without being asked")

func (l look) Read(func(uintptr) bool) error {
	var found error
	err := l.RawConn.Read(func(fd uintptr) bool {
		var b [1]byte
		// Package syscall has no such number for 386, whose kernels have one since 4.3.
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1,
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == syscall.EAGAIN || errno == syscall.EINTR:
		case errno != 0:
			found = errno
		case n == 0:
			found = io.EOF
		default:
			found = errUnexpected
		}
		return true
	})
	return errors.Join(err, found)
}
