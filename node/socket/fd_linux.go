package socket

import (
	"io"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketOf returns the descriptor of a plain socket, or -1. It stays good until nc is closed, not after.
func socketOf(nc net.Conn) int {
	if p, ok := nc.(*plainConn); ok {
		return p.fd
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return -1
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1
	}
	fd := -1
	if raw.Control(func(s uintptr) { fd = int(s) }) != nil {
		return -1
	}
	return fd
}

// writeNow writes what a non-blocking socket takes at once, without telling the scheduler: there is nothing to wait for.
// It returns 0 and no error if the socket is full, or fd is -1.
func writeNow(fd int, b []byte) (int, error) {
	if fd < 0 || len(b) == 0 {
		return 0, nil
	}
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, errno
		}
	}
}

// readSocket reads what has come, without waiting: errNothing if nothing has, io.EOF at the end.
func (c *Conn) readSocket(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return 0, errNothing
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			c.lastRead.Store(time.Now().UnixNano())
			return int(n), nil
		}
	}
}

// peekNow reads what has come, and leaves it there.
func peekNow(fd int, b []byte) int { return receive(fd, b, unix.MSG_PEEK) }

// receiveNow reads what was peeked at.
func receiveNow(fd int, b []byte) bool { return receive(fd, b, 0) == len(b) }

// receive is recv(2) into some bytes, without the wait. It returns 0 if there is nothing, at the end, and after an error.
func receive(fd int, b []byte, flags uintptr) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		flags|unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// shutdownNow ends both directions of a socket, and wakes the goroutine or poller that waits for it. The descriptor stays open.
// It returns false if fd is -1.
func shutdownNow(fd int) bool {
	if fd < 0 {
		return false
	}
	syscall.Shutdown(fd, syscall.SHUT_RDWR)
	return true
}

// giveUpAfter has the kernel end a connection whose peer acknowledges nothing for so long (tcp(7), TCP_USER_TIMEOUT): by itself it
// sends again for a quarter of an hour.
func giveUpAfter(fd int, d time.Duration) {
	if fd >= 0 {
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	}
}

// progressOf asks the kernel how far the peer is. It reports false if the kernel does not tell.
func progressOf(fd int) (progress, bool) {
	if fd < 0 {
		return progress{}, false
	}
	var info unix.TCPInfo
	if !tellTCP(fd, &info) {
		return progress{}, false
	}
	return progress{info.Bytes_acked, info.Snd_wnd, info.Notsent_bytes > 0}, true
}

// isOver reports that a connection has ended in both directions, and not by a shutdown.
func isOver(fd int) bool {
	if fd < 0 {
		return false
	}
	var info unix.TCPInfo
	return tellTCP(fd, &info) && info.State == unix.BPF_TCP_CLOSE
}

// tellTCP is unix.GetsockoptTCPInfo without an allocation: it is asked about each connection at each ping.
func tellTCP(fd int, info *unix.TCPInfo) bool {
	size := uint32(unix.SizeofTCPInfo)
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(info)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0
}
