package node_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// settled connects a plain peer to a room and returns once it is a member: it has heard somebody else.
func settled(t *testing.T, url, room string, others ...*nodetest.Peer) *nodetest.Peer {
	t.Helper()
	p := nodetest.DialPlain(t, url)
	helper := nodetest.Dial(t, url)
	for n := 0; ; n++ { // its join may still be under way
		j, _ := helper.Join(room)
		if j.Count == len(others)+2 {
			break
		}
		helper.Say(`{"op":"leave","room":%q}`, room)
		helper.Until("ok")
	}
	helper.Say(`{"op":"leave","room":%q}`, room)
	helper.Until("ok")
	return p
}

func TestPlainTextIsPassedOnToEveryoneElseOverAllNodes(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 2)
		a := settled(t, c.Nodes[0].URL("/"), "lobby")
		b := settled(t, c.Nodes[1].URL("/"), "lobby", a)
		d := settled(t, c.Nodes[1].URL("/ws"), "lobby", a, b)
		a.Say("hello")
		for _, p := range []*nodetest.Peer{b, d} {
			if got := p.Read(); got != "hello" {
				t.Errorf("got %q, want hello", got)
			}
		}
		b.Say("hello yourself")
		if got := a.Read(); got != "hello yourself" { // its own hello did not come back
			t.Errorf("got %q, want hello yourself", got)
		}
	})
}

func TestPlainTextRoomsAreApart(t *testing.T) {
	c := nodetest.Start(t, 1)
	url := c.Nodes[0].URL
	lobby := settled(t, url("/"), "lobby")
	a := settled(t, url("/?room=tea&name=Ann"), "tea")
	b := settled(t, url("/?room=tea"), "tea", a)
	lobby.Say("to the lobby")
	b.Say("to the tea room")
	if got := a.Read(); got != "to the tea room" {
		t.Errorf("got %q", got)
	}
}

func TestPlainTextAndJSONMeet(t *testing.T) {
	c := nodetest.Start(t, 2)
	p := settled(t, c.Nodes[0].URL("/?name=Ann"), "lobby")
	j := nodetest.Dial(t, c.Nodes[1].URL("/"))
	j.Join("lobby", `"limit":0`)
	p.Say(`quotes " and \ and <é>`)
	m := j.Until("message")
	if m.Text != `quotes " and \ and <é>` || m.From.Name != "Ann" || m.Room != "lobby" || m.At == 0 {
		t.Errorf("got %s", nodetest.Show(m))
	}
	j.SendText("lobby", "two\nlines\x00\u2028")
	if got := p.Read(); got != "two\nlines\x00\u2028" {
		t.Errorf("got %q", got)
	}
}

func TestWhatPlainTextCannotSayClosesItAndNobodyElse(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 1, func(cfg *node.Config) { cfg.Grace = 1 })
		url := c.Nodes[0].URL("/")
		other := settled(t, url, "lobby")
		for _, tc := range []struct {
			name string
			kind websocket.MessageType
			body string
			code int
		}{
			{"text that is not UTF-8", websocket.MessageText, "a\xff", wire.StatusNotUTF8},
			{"a binary message", websocket.MessageBinary, "a", wire.StatusUnsupported},
			{"a text over the limit", websocket.MessageText, strings.Repeat("a", 4<<10+1), wire.StatusTooBig},
			{"a frame over the limit", websocket.MessageText, strings.Repeat("a", 64<<10+1), wire.StatusTooBig},
		} {
			t.Run(tc.name, func(t *testing.T) {
				p := settled(t, url, "lobby", other)
				p.Write(tc.kind, []byte(tc.body))
				p.WantClose(tc.code)
				for j := nodetest.Dial(t, url); ; { // the user's grace goes by
					joined, _ := j.Join("lobby")
					j.Say(`{"op":"leave","room":"lobby"}`)
					j.Until("ok")
					if joined.Count == 2 {
						break
					}
				}
			})
		}
		last := settled(t, url, "lobby", other)
		last.Say(strings.Repeat("a", 4<<10))
		if got := other.Read(); len(got) != 4<<10 {
			t.Errorf("got %d bytes, want what is just within the limit", len(got))
		}
	})
}

// get answers a request with its status and body.
func get(t *testing.T, url string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, _ := http.NewRequest("GET", url, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, "", resp.Header
	}
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), resp.Header
}

func TestUpgradesThatAreRefusedSayWhy(t *testing.T) {
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Origins = []string{"*.example.org", "https://chat.example.com"} })
	base := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	for _, tc := range []struct {
		name   string
		path   string
		header []string
		status int
		says   string
	}{
		{"another origin", "/", []string{"Origin", "https://evil.example.net"}, 403, `"https://evil.example.net"`},
		{"a file's origin", "/", []string{"Origin", "null"}, 403, `"null"`},
		{"another scheme", "/", []string{"Origin", "http://chat.example.com"}, 403, `"http://chat.example.com"`},
		{"an unknown subprotocol", "/", []string{"Sec-WebSocket-Protocol", "soap, xmpp"}, 400, `"parley.v1"`},
		{"another version", "/", []string{"Sec-WebSocket-Version", "8"}, 400, "version"},
		{"an empty room", "/?room=", nil, 400, "room"},
		{"a long room", "/?room=" + strings.Repeat("r", 129), nil, 400, "128"},
		{"a room with control characters", "/?room=a%00b", nil, 400, "control"},
		{"a name with control characters", "/?name=a%1bb", nil, 400, "control"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, body, header := get(t, c.Nodes[0].HTTP(tc.path), append(append([]string{}, base...), tc.header...)...)
			var problem struct{ Detail string }
			err := json.Unmarshal([]byte(body), &problem)
			if status != tc.status || err != nil || !strings.Contains(problem.Detail, tc.says) || header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %d %q, want %d and %s", status, body, tc.status, tc.says)
			}
			if tc.name == "another version" && header.Get("Sec-WebSocket-Version") != "13" {
				t.Errorf("the version that is spoken is not told: %v", header)
			}
		})
	}
	for _, origin := range []string{"https://a.example.org", "HTTPS://CHAT.EXAMPLE.COM"} {
		if status, body, _ := get(t, c.Nodes[0].HTTP("/"), append(append([]string{}, base...), "Origin", origin)...); status != 101 {
			t.Errorf("origin %s: got %d %q", origin, status, body)
		}
	}
}

func TestAnyOriginMayConnectUnlessNarrowed(t *testing.T) {
	c := nodetest.Start(t, 1)
	for _, origin := range []string{"null", "file://", "https://anything.example.net"} {
		status, body, _ := get(t, c.Nodes[0].HTTP("/"), "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
			"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Origin", origin)
		if status != 101 {
			t.Errorf("origin %s: got %d %q", origin, status, body)
		}
	}
}

func TestWhatIsSaidWithTheHandshakeIsHeard(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 1)
		other := settled(t, c.Nodes[0].URL("/"), "lobby")
		var nc net.Conn
		nc, err := net.Dial("tcp", c.Nodes[0].Addr)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(c.Nodes[0].URL("/"), "wss") {
			nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
		}
		defer nc.Close()
		// A text frame with a mask of zeros, in one write with the request.
		fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x85\x00\x00\x00\x00early\x81\x84\x00\x00\x00\x00next")
		for _, want := range []string{"early", "next"} {
			if got := other.Read(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

func TestWhoIsOpenHearsWhatIsSaidFromThenOn(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 2)
		speaker := nodetest.Dial(t, c.Nodes[0].URL("/"))
		speaker.Join("lobby")
		for i := range 40 {
			listener := nodetest.DialPlain(t, c.Nodes[i%2].URL("/"))
			text := fmt.Sprint("said at once ", i)
			speaker.SendText("lobby", text)
			for listener.Read() != text { // the one before may still be on its way
			}
			listener.Cut()
		}
	})
}
