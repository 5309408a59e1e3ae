package main

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/pires/go-proxyproto"

	"parley/node"
)

// proxiedListener takes from trusted proxies connections that begin with a header of the PROXY protocol, which names the client. One
// that begins otherwise is cut off. Nobody else is believed: to whoever does not come from a trusted address the header is no HTTP.
func proxiedListener(l net.Listener, trusted []netip.Prefix) net.Listener {
	return proxied{&proxyproto.Listener{
		Listener: l,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			peer, err := netip.ParseAddrPort(o.Upstream.String())
			if err != nil {
				return proxyproto.REJECT, fmt.Errorf("%w: %w", proxyproto.ErrInvalidUpstream, err)
			}
			if node.Trusts(trusted, peer.Addr()) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.SKIP, nil
		},
	}}
}

type proxied struct{ net.Listener }

// Accept implements net.Listener.
func (l proxied) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if c, ok := nc.(*proxyproto.Conn); ok && err == nil {
		return &proxiedConn{c}, nil
	}
	return nc, err
}

// A proxiedConn is a connection whose header is read first. What is read from the descriptor afterwards is what the client says: nothing of
// it is left in the library's buffer once the HTTP server has read a request, or TLS a handshake.
type proxiedConn struct{ *proxyproto.Conn }

// SyscallConn implements syscall.Conn, without which each connection would take a goroutine.
func (c *proxiedConn) SyscallConn() (syscall.RawConn, error) {
	if t, ok := c.TCPConn(); ok {
		return t.SyscallConn()
	}
	return nil, fmt.Errorf("%T has no descriptor", c.Raw())
}

// CloseWrite is for the HTTP server, which ends an answer so before it closes.
func (c *proxiedConn) CloseWrite() error {
	if t, ok := c.TCPConn(); ok {
		return t.CloseWrite()
	}
	return nil
}
