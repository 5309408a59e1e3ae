package node

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestClientAddressComesFromTrustedProxiesOnly(t *testing.T) {
	const direct = "192.0.2.9:4711"
	for _, tt := range []struct {
		name    string
		trusted string
		peer    string
		headers []string
		want    string
	}{
		{"no proxy is trusted", "", direct, []string{"203.0.113.7"}, direct},
		{"the peer is no proxy", "10.0.0.0/8", direct, []string{"203.0.113.7"}, direct},
		{"a proxy that says nothing", "10.0.0.0/8", "10.1.2.3:80", nil, "10.1.2.3:80"},
		{"one proxy", "10.0.0.0/8", "10.1.2.3:80", []string{"203.0.113.7"}, "203.0.113.7:0"},
		{"a client that lies", "10.0.0.0/8", "10.1.2.3:80", []string{"1.1.1.1, 203.0.113.7"}, "203.0.113.7:0"},
		{"a client that lies in a header of its own", "10.0.0.0/8", "10.1.2.3:80", []string{"1.1.1.1", "203.0.113.7"}, "203.0.113.7:0"},
		{"two proxies", "10.0.0.0/8", "10.1.2.3:80", []string{"1.1.1.1,203.0.113.7,10.9.9.9"}, "203.0.113.7:0"},
		{"proxies only", "10.0.0.0/8", "10.1.2.3:80", []string{"10.7.7.7,10.9.9.9"}, "10.7.7.7:0"},
		{"what is no address", "10.0.0.0/8", "10.1.2.3:80", []string{"203.0.113.7, unknown, 10.9.9.9"}, "10.9.9.9:0"},
		{"nothing but noise", "10.0.0.0/8", "10.1.2.3:80", []string{", ,"}, "10.1.2.3:80"},
		{"with a port", "10.0.0.0/8", "10.1.2.3:80", []string{"203.0.113.7:5000"}, "203.0.113.7:0"},
		{"IPv6", "fd00::/8", "[fd00::1]:80", []string{"[2001:db8::7]:5000"}, "[2001:db8::7]:0"},
		{"of the link", "fe80::/10", "[fe80::1%eth0]:80", []string{"2001:db8::7"}, "[2001:db8::7]:0"},
		{"IPv4 in IPv6", "10.0.0.0/8", "[::ffff:10.1.2.3]:80", []string{"::ffff:203.0.113.7"}, "203.0.113.7:0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var trusted []netip.Prefix
			if tt.trusted != "" {
				trusted = append(trusted, netip.MustParsePrefix(tt.trusted))
			}
			r := httptest.NewRequest("GET", "/v1/rooms/lobby/members?session=secret", nil)
			r.RemoteAddr = tt.peer
			r.Header["X-Forwarded-For"] = tt.headers
			var got string
			h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RemoteAddr })
			var log bytes.Buffer
			debug := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			BehindProxies(trusted, h, debug).ServeHTTP(httptest.NewRecorder(), r)
			if got != tt.want {
				t.Errorf("from %s, want %s", got, tt.want)
			}
			if !strings.Contains(log.String(), tt.want) || strings.Contains(log.String(), "secret") {
				t.Errorf("logged: %s", &log)
			}
		})
	}
}
