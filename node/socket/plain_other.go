//go:build !linux

package socket

import "net"

// Elsewhere all connections are the runtime's, and there is no plainListener.
func plainListenerOf(ln net.Listener, _ net.KeepAliveConfig) net.Listener { return ln }

type plainListener struct{ net.Listener }

func (l *plainListener) acceptPlain() (*plainConn, error) { return nil, net.ErrClosed }

type plainConn struct {
	net.Conn
	fd int
}

func (p *plainConn) ordinary() (net.Conn, error) { return p.Conn, nil }
