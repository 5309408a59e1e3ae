//go:build !linux

package socket

import (
	"net"
	"syscall"
)

// Elsewhere each connection is told.
func inherited(net.KeepAliveConfig) func(network, address string, raw syscall.RawConn) error {
	return nil
}
