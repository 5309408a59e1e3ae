package node

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// A Server's clients are WebSockets and event streams. Whoever opens a connection and says nothing, or keeps it for a next request, is a
// stranger: a descriptor and a few KB each.

// Strangers is the ConnState of the http.Server before the handler. It lets an address have as many connections over HTTP as it may have
// of WebSockets (Limits.AddressConnections), and closes what is opened beyond that. Those of trusted proxies are many people's, and are
// not counted.
func (s *Server) Strangers(trusted []netip.Prefix) func(net.Conn, http.ConnState) {
	most := s.cfg.Limits.AddressConnections
	if most <= 0 {
		return nil
	}
	var mu sync.Mutex
	open := make(map[netip.Prefix]int) // guarded by mu
	return func(nc net.Conn, state http.ConnState) {
		addr := peerOf(nc)
		key, ok := keyOf(addr)
		if !ok || isTrusted(addr, trusted) {
			return
		}
		mu.Lock()
		switch state {
		case http.StateNew:
			open[key]++
		case http.StateHijacked, http.StateClosed:
			if open[key]--; open[key] == 0 {
				delete(open, key)
			}
		}
		over := state == http.StateNew && open[key] > most
		mu.Unlock()
		if over {
			s.cfg.Observer.Limited(limitAddressConnections)
			nc.Close() // the http.Server notices
		}
	}
}

// peerOf is who made a connection, beneath TLS and the PROXY protocol, for whose header nobody waits here; "" if he has gone already.
func peerOf(nc net.Conn) string {
	for {
		switch c := nc.(type) {
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		case interface{ Raw() net.Conn }:
			nc = c.Raw()
		default:
			if addr := nc.RemoteAddr(); addr != nil {
				return addr.String()
			}
			return ""
		}
	}
}
