package socket

import (
	"cmp"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// kernelBytes is what the kernel keeps of what a client has not taken: some 4 MB otherwise, of each client that reads nothing. It is
// enough for 2.5 MB/s at a round trip of 100 ms.
const kernelBytes = 256 << 10

// inherited sets on a listener what its connections begin with (tcp(7)).
func inherited(probes net.KeepAliveConfig) func(network, address string, raw syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) (err error) {
		failed := raw.Control(func(s uintptr) {
			set := func(level, option, value int) error { return unix.SetsockoptInt(int(s), level, option, value) }
			err = cmp.Or(
				set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
				set(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(probes.Idle/time.Second)),
				set(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(probes.Interval/time.Second)),
				set(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, probes.Count),
				set(unix.SOL_SOCKET, unix.SO_SNDBUF, kernelBytes),
				set(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			)
			// Clients speak first. A connection is accepted once it has something to read, for which nobody has to wait then; one that says
			// nothing, a second later.
			set(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1)
		})
		return cmp.Or(failed, err)
	}
}
