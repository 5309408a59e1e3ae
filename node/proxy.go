package node

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// BehindProxies gives requests that come through trusted proxies their client's address, as RemoteAddr with port 0. Nobody
// else is believed, as a client may write into X-Forwarded-For what it likes. Each request is logged for debugging.
func BehindProxies(trusted []netip.Prefix, h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isTrusted(r, trusted) {
			r = r.WithContext(context.WithValue(r.Context(), proxied{}, true))
		}
		if client := clientAddr(r, trusted); client != "" {
			r.RemoteAddr = net.JoinHostPort(client, "0")
		}
		// The query may hold a guest's session.
		log.DebugContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr)
		h.ServeHTTP(w, r)
	})
}

// proxied is the key of what a context has if its request came through a trusted proxy.
type proxied struct{}

// throughProxy reports whether a trusted proxy, which may try another node, made the request.
func throughProxy(r *http.Request) bool { return r.Context().Value(proxied{}) != nil }

// isTrusted reports whether a request comes from a trusted proxy.
func isTrusted(r *http.Request, trusted []netip.Prefix) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && contains(trusted, peer.Addr().Unmap())
}

func contains(trusted []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}

// clientAddr follows X-Forwarded-For from the right, where each proxy adds the address that it was asked by, for as long as the
// proxy that says so is trusted. It returns "" if no trusted proxy says anything.
func clientAddr(r *http.Request, trusted []netip.Prefix) string {
	if len(trusted) == 0 {
		return ""
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	at, client := peer.Addr().Unmap(), ""
	for _, hop := range slices.Backward(hops) {
		if !contains(trusted, at) {
			break
		}
		next, ok := parseHop(strings.TrimSpace(hop))
		if !ok {
			break
		}
		at, client = next, next.String()
	}
	return client
}

// parseHop reads an address, with a port or without.
func parseHop(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		a = ap.Addr()
	}
	return a.Unmap().WithZone(""), true
}
