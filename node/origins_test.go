package node_test

import (
	"strings"
	"testing"

	"parley/node"
	"parley/node/nodetest"
)

func TestOriginsMeanWhatIsWritten(t *testing.T) {
	for _, tt := range []struct {
		pattern, origin string
		allowed         bool
	}{
		{"example.com", "https://example.com", true},
		{"example.com", "http://example.com", true},
		{"example.com", "https://example.com:8443", false},
		{" Example.COM ", "https://example.com", true},
		{"https://example.com/", "https://example.com", true},
		{"https://example.com:443", "https://example.com", true},
		{"https://example.com:443", "http://example.com", false},
		{"http://example.com:80/", "http://example.com", true},
		{"example.com:443", "https://example.com", true},
		{"example.com:443", "http://example.com", false},
		{"example.com:8080", "http://example.com:8080", true},
		{"localhost:*", "http://localhost:3000", true},
		{"localhost:*", "http://localhost", true},
		{"*.example.com", "https://a.example.com", true},
		{"*.example.com", "https://example.com", false},
		{"*.example.com", "https://evil.com", false},
		{"https://*.example.com", "http://a.example.com", false},
		{"http://[::1]:8080", "http://[::1]:8080", true},
		{"[::1]:8080", "http://[::1]:8080", true},
		{"::1", "http://[::1]", true},
		{"[2001:DB8:0:0::1]", "https://[2001:db8::1]", true},
		{"[::ffff:192.0.2.1]", "https://[::ffff:c000:201]", true},
		{"[::1]", "http://1", false},
		{"bücher.example", "https://xn--bcher-kva.example", true},
		{"https://*.BÜCHER.example", "https://a.xn--bcher-kva.example", true},
		{"xn--bcher-kva.example", "https://xn--bcher-kva.example", true},
		{"null", "null", true},
		{"example.com", "null", false},
		{"*", "https://any.example:99", true},
		{"capacitor://localhost", "capacitor://localhost", true},
	} {
		normal, err := node.NormalizeOrigin(tt.pattern)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
		}
		if again, err := node.NormalizeOrigin(normal); again != normal || err != nil {
			t.Errorf("%s becomes %s, and that %s, %v", tt.pattern, normal, again, err)
		}
		n := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Origins = []string{tt.pattern} }).Nodes[0]
		status, _, _ := call(t, "GET", n.HTTP("/v1/rooms/lobby/members"), "", "Origin", tt.origin)
		if allowed := status == 200; allowed != tt.allowed || !allowed && status != 403 {
			t.Errorf("with %q the page of %s gets %d", tt.pattern, tt.origin, status)
		}
		n.Kill()
	}
}

func TestOriginsThatNobodyCanHaveAreRefused(t *testing.T) {
	for pattern, says := range map[string]string{
		"https://example.com/chat": "nothing else",
		"https://ann@example.com":  "nothing else",
		"https://":                 "no host",
		"":                         "no host",
		"exa mple.com":             "no host",
		"wss://example.com":        "https://example.com",
		"file:///home":             "null",
		"example.com:":             "port",
		"example.com:http":         "no port",
		"example.com:70000":        "no port",
		"[::1":                     "IPv6",
		"[::1]8080":                "port",
		"[a-z].example.com":        "IPv6",
		"://example.com":           "scheme",
	} {
		if normal, err := node.NormalizeOrigin(pattern); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q becomes %q, %v", pattern, normal, err)
		}
	}
}

// The page that a node serves may use it, whatever other pages may.
func TestTheOwnPageMayAlways(t *testing.T) {
	n := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Origins = []string{"elsewhere.example"} }).Nodes[0]
	for origin, want := range map[string]int{
		"http://" + n.Addr: 200, "https://" + n.Addr: 200, "http://127.0.0.1": 403, "http://elsewhere.example": 200, "null": 403,
	} {
		if status, _, _ := call(t, "GET", n.HTTP("/v1/rooms/lobby/members"), "", "Origin", origin); status != want {
			t.Errorf("%s: %d", origin, status)
		}
	}
}
