//go:build !linux

package bus

import "net"

func quiet(c net.Conn) net.Conn { return c }
