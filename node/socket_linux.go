package node

import (
	"net"
	"syscall"
	"unsafe"
)

// socketOf returns the descriptor of a plain socket, or -1. It stays good until nc is closed, not after.
func socketOf(nc net.Conn) int {
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
// It answers 0 and no error where the socket is full, or fd is -1.
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
