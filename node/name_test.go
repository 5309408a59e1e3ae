package node_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"parley/node/nodetest"
	"parley/node/wire"
)

func TestTheNameInAnAddressIsCheckedHoweverOneSpeaks(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	for _, subprotocol := range []string{"", wire.Subprotocol} {
		for name, status := range map[string]int{
			"Ada":                               http.StatusSwitchingProtocols,
			strings.Repeat("x", wire.MaxName+1): http.StatusBadRequest,
			"\x1b[2J":                           http.StatusBadRequest,
			"\xff":                              http.StatusBadRequest,
			strings.Repeat("\x1b", 14<<10):      http.StatusBadRequest,
		} {
			req, _ := http.NewRequest("GET", c.Nodes[0].HTTP("/?name="+url.QueryEscape(name)), nil)
			req.Header = http.Header{
				"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
			}
			if subprotocol != "" {
				req.Header.Set("Sec-WebSocket-Protocol", subprotocol)
			}
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != status {
				t.Errorf("%.20q, speaking %q: answered %d, want %d", name, subprotocol, resp.StatusCode, status)
			}
		}
	}
}
