package node_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"parley/node"
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

// A welcome says since when the name is so: a client that comes back says that again, and nobody is named in times to come. Of a token's
// name the token's time counts, where that is known.
func TestANameHasTheTimeWhenItWasChosen(t *testing.T) {
	t.Parallel()
	dated := nodetest.Start(t, 1, withIssued, func(cfg *node.Config) { cfg.Guests = true }).Nodes[0]
	undated := nodetest.Start(t, 1, withTokens).Nodes[0]
	const now = -1
	for _, tt := range []struct {
		n    *nodetest.Node
		who  string
		name string // which the user has then, "" for one that nobody chose
		at   int64
	}{
		{undated, `"name":"Ada"`, "Ada", now},
		{undated, `"name":"Ada","named":5000`, "Ada", 5000},
		{undated, `"name":"Ada","named":99999999999999`, "Ada", now},
		{undated, `"named":5000`, "", 1},
		{undated, `"token":"ada"`, "Ada", now},
		{undated, `"token":"ada","named":5000`, "Ada", 5000},
		{dated, `"token":"ada@7000"`, "", now},
		{dated, `"token":"ada@7000","named":5000`, "", 7000},
	} {
		p := nodetest.Dial(t, tt.n.URL("/"))
		before := time.Now().UnixMilli()
		p.Say(`{"op":"hello",%s}`, tt.who)
		w := p.Until("welcome")
		at := w.Named
		if tt.at == now && before <= at && at <= time.Now().UnixMilli() {
			at = now
		}
		if at != tt.at || tt.name != "" && w.User.Name != tt.name {
			t.Errorf("hello with %s: %s, named %d", tt.who, nodetest.Show(w), w.Named)
		}
	}

	// Who says nothing of the name keeps it, and the time.
	p := nodetest.Dial(t, undated.URL("/"))
	p.Say(`{"op":"hello","name":"Ada","named":5000}`)
	p.Until("welcome")
	for _, who := range []string{``, `,"session":"` + p.Welcome.Session + `"`, `,"named":6000`} {
		p.Say(`{"op":"hello"%s}`, who)
		if w := p.Until("welcome"); w.User.Name != "Ada" || w.Named != 5000 {
			t.Errorf("then hello with %q: %s, named %d", who, nodetest.Show(w), w.Named)
		}
	}
	p.Say(`{"op":"hello","session":%q}`, nodetest.Dial(t, undated.URL("/")).Welcome.Session)
	if w := p.Until("welcome"); w.User.Name == "Ada" || w.Named != 1 {
		t.Errorf("another guest: %s, named %d", nodetest.Show(w), w.Named)
	}
}
