package node

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// BehindProxies gives requests that come through trusted proxies their client's address, as RemoteAddr with port 0, and the id in
// X-Request-Id. Nobody else is believed, as a client may write there what it likes: its requests get ids of the node's own. The id is
// answered too. Each request is logged for debugging.
func BehindProxies(trusted []netip.Prefix, h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, id, client := r.Context(), "", clientAddr(r, trusted)
		if isTrusted(r.RemoteAddr, trusted) {
			id = r.Header.Get(requestHeader)
		}
		if client != "" { // else somebody beside a proxy may have come by himself
			ctx = context.WithValue(ctx, proxied{}, true)
		}
		if !isRequestID(id) {
			id = fmt.Sprintf("%016x", rand.Uint64())
		}
		r = r.WithContext(context.WithValue(ctx, requestKey{}, id))
		w.Header().Set(requestHeader, id)
		if client != "" {
			r.RemoteAddr = net.JoinHostPort(client, "0")
		}
		// The query may hold a guest's session.
		log.DebugContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "request", id)
		h.ServeHTTP(w, r)
	})
}

// requestHeader names a request, for whoever has to find it in the logs.
const requestHeader = "X-Request-Id"

// requestKey is the key of a request's id.
type requestKey struct{}

// requestID is what a request is called in the log; "" without BehindProxies.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}

// isRequestID reports whether an id may be logged and answered as it is: proxies write a UUID, or some numbers.
func isRequestID(id string) bool {
	return id != "" && len(id) <= 64 && strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.:") == ""
}

// proxied is the key of what a context has if its request came through a trusted proxy.
type proxied struct{}

// throughProxy reports whether a trusted proxy, which may try another node, made the request.
func throughProxy(r *http.Request) bool { return r.Context().Value(proxied{}) != nil }

// isTrusted reports whether a connection from an address is a trusted proxy's.
func isTrusted(addr string, trusted []netip.Prefix) bool {
	peer, err := netip.ParseAddrPort(addr)
	return err == nil && Trusts(trusted, peer.Addr())
}

// Trusts reports whether an address is that of a trusted proxy. One of the link has a zone (RFC 4007): in a prefix there is none.
func Trusts(trusted []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
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
	at, client := peer.Addr(), ""
	for _, hop := range slices.Backward(hops) {
		if !Trusts(trusted, at) {
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
