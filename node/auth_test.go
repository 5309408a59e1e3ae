package node_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// tokens is an Authenticator that knows whom each token stands for.
type tokens map[string]node.User

func (k tokens) Authenticate(_ context.Context, token string) (node.Grant, error) {
	if token == "away" {
		return node.Grant{}, fmt.Errorf("who is asked about tokens does not answer: %w", bus.ErrUnavailable)
	}
	u, ok := k[token]
	if !ok {
		return node.Grant{}, errors.New("this token is nobody's")
	}
	return node.Grant{User: u}, nil
}

var someTokens = tokens{
	"ada":    {ID: "ada", Name: "Ada"},
	"bob":    {ID: "bob", Name: "Bob"},
	"guest":  {ID: "guest-aaaaaaaaaaaaaaaa", Name: "Nobody"},
	"nearly": {ID: "guest", Name: "Nearly"}, // the prefix is "guest-"
}

func withTokens(cfg *node.Config) { cfg.Auth, cfg.Guests = someTokens, true }

// hello says hello with a token, and gives the answer.
func hello(p *nodetest.Peer, token string) wire.Frame {
	p.Say(`{"op":"hello","req":"hello","token":%q}`, token)
	return p.Until("welcome")
}

func TestATokenSaysWhoSpeaksOverEveryWayOfSpeaking(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 1, withTokens)
		nd := c.Nodes[0]
		ada := nodetest.Dial(t, nd.URL("/"))
		if !ada.Welcome.User.Guest {
			t.Errorf("before the hello: %s", nodetest.Show(ada.Welcome))
		}
		if w := hello(ada, "ada"); w.User != (wire.User{ID: "ada", Name: "Ada"}) || w.Session != "" || string(w.Req) != `"hello"` {
			t.Errorf("the welcome: %s", nodetest.Show(w))
		}
		if j, _ := ada.Join("lobby"); len(j.Members) != 1 || j.Members[0] != (wire.Member{ID: "ada", Name: "Ada"}) {
			t.Errorf("the members: %s", nodetest.Show(j))
		}
		ada.SendText("lobby", "over the socket")
		if m := ada.Until("message"); m.From != (wire.Member{ID: "ada", Name: "Ada"}) {
			t.Errorf("over the socket: %s", nodetest.Show(m))
		}
	})
	c := nodetest.Start(t, 1, withTokens)
	nd := c.Nodes[0]
	watcher := nodetest.Dial(t, nd.URL("/"))
	watcher.Join("lobby")
	messages, events := nd.HTTP("/v1/rooms/lobby/messages"), nd.HTTP("/v1/rooms/lobby/events")
	for name, tc := range map[string]struct {
		query  string
		header []string
	}{
		"header":                  {"", []string{"Authorization", "Bearer bob"}},
		"query":                   {"?token=bob", nil},
		"header before the query": {"?token=nobody", []string{"Authorization", "Bearer bob"}},
		"token before a session":  {"?session=guessable", []string{"Authorization", "Bearer bob"}},
	} {
		s := listen(t, events+tc.query, tc.header...)
		if _, w := s.until("welcome"); w.User != (wire.User{ID: "bob", Name: "Bob"}) || w.Session != "" {
			t.Errorf("%s: the stream's welcome: %s", name, nodetest.Show(w))
		}
		s.until("live")
		s.body.Close()
		status, h, body := call(t, "POST", messages+tc.query, `{"text":"hi"}`, tc.header...)
		if tc.header == nil { // the query is for those who can set no header
			if status != 401 {
				t.Errorf("%s: a post got %d %v", name, status, body)
			}
			continue
		}
		if status != 201 || h.Get("Parley-Session") != "" {
			t.Errorf("%s: a post got %d %v, and the session %q", name, status, body, h.Get("Parley-Session"))
		}
		if m := watcher.Until("message"); m.From != (wire.Member{ID: "bob", Name: "Bob"}) {
			t.Errorf("%s: a post is from %s", name, nodetest.Show(m))
		}
	}
}

func TestATokenThatIsNobodysOrAGuestsIsRefusedOverEveryWayOfSpeaking(t *testing.T) {
	c := nodetest.Start(t, 1, withTokens)
	nd := c.Nodes[0]
	watcher := nodetest.Dial(t, nd.URL("/"))
	watcher.Join("lobby")
	for token, says := range map[string]string{"stolen": "nobody's", "guest": "guest-"} {
		p := nodetest.Dial(t, nd.URL("/"))
		p.Say(`{"op":"hello","req":1,"token":%q}`, token)
		if e := p.WantError(wire.Unauthorized); !strings.Contains(e.Message, says) {
			t.Errorf("hello with the token %q: %v", token, e)
		}
		p.Say(`{"op":"hello","req":2}`) // goes on as the guest it was
		if w := p.Until("welcome"); w.User != p.Welcome.User || w.Session != p.Welcome.Session {
			t.Errorf("after the token %q: %s", token, nodetest.Show(w))
		}
		for _, tc := range []struct {
			method, path, body string
			header             []string
		}{
			{"POST", "/v1/rooms/lobby/messages", `{"text":"x"}`, []string{"Authorization", "Bearer " + token}},
			{"POST", "/v1/rooms/lobby/messages", `{"text":"x"}`, []string{"Authorization", "Bearer " + token, "Parley-Session", p.Welcome.Session}},
			{"GET", "/v1/rooms/lobby/events", "", []string{"Authorization", "Bearer " + token}},
			{"GET", "/v1/rooms/lobby/events?token=" + url.QueryEscape(token), "", nil},
		} {
			status, h, body := call(t, tc.method, nd.HTTP(tc.path), tc.body, tc.header...)
			detail, _ := body["detail"].(string)
			if status != 401 || body["code"] != "unauthorized" || !strings.Contains(detail, says) || h.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s %v: got %d %v", tc.method, tc.path, tc.header, status, body)
			}
		}
	}
	watcher.SendText("lobby", "last")
	if m := watcher.Until("message"); m.Text != "last" {
		t.Errorf("something was said with a refused token: %s", nodetest.Show(m))
	}
}

func TestTheUserIsSettledByTheFirstJoin(t *testing.T) {
	c := nodetest.Start(t, 1, withTokens)
	session := nodetest.Dial(t, c.Nodes[0].URL("/")).Welcome.Session
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	for _, tc := range []struct{ say, user string }{ // until then it may change
		{`{"op":"hello","token":"bob"}`, "bob"},
		{`{"op":"hello","session":"` + session + `"}`, "guest-"},
		{`{"op":"hello","token":"nearly"}`, "guest"},
		{`{"op":"hello","token":"ada"}`, "ada"},
		{`{"op":"hello","name":"Somebody else"}`, "ada"}, // a token's name is the token's
	} {
		p.Say("%s", tc.say)
		if w := p.Until("welcome"); !strings.HasPrefix(w.User.ID, tc.user) || w.User.Name == "Somebody else" {
			t.Errorf("%s: %s", tc.say, nodetest.Show(w))
		}
	}
	p.Join("lobby")
	for _, say := range []string{`{"op":"hello","token":"bob"}`, `{"op":"hello","session":"` + session + `"}`} {
		p.Say("%s", say)
		p.WantError(wire.Forbidden)
	}
	p.Say(`{"op":"hello","token":"guest"}`)
	p.WantError(wire.Unauthorized)
	if w := hello(p, "ada"); w.User.ID != "ada" { // the same again
		t.Errorf("got %s", nodetest.Show(w))
	}
	p.SendText("lobby", "hi")
	if m := p.Until("message"); m.From.ID != "ada" {
		t.Errorf("got %s", nodetest.Show(m))
	}

	g := nodetest.Dial(t, c.Nodes[0].URL("/")) // nor does a guest become somebody
	g.Join("lobby")
	g.Say(`{"op":"hello","token":"ada"}`)
	g.WantError(wire.Forbidden)
	g.SendText("lobby", "hi")
	if m := g.Until("message"); m.From.ID != g.Welcome.User.ID {
		t.Errorf("got %s", nodetest.Show(m))
	}
}

// A user with a token is one member however many connections it has, and its keys are its own.
func TestATokenMakesTheSameUserOnEveryNode(t *testing.T) {
	c := nodetest.Start(t, 2, withTokens)
	one, two := nodetest.Dial(t, c.Nodes[0].URL("/")), nodetest.Dial(t, c.Nodes[1].URL("/"))
	hello(one, "ada")
	hello(two, "ada")
	one.Join("lobby")
	first := one.SendText("lobby", "once", `"key":"k"`)
	if j, _ := two.Join("lobby"); j.Count != 1 {
		t.Errorf("she is there twice: %s", nodetest.Show(j))
	}
	if again := two.SendText("lobby", "once", `"key":"k"`); again != first {
		t.Errorf("her repeat got %v, the first %v", again, first)
	}
	bob := nodetest.Dial(t, c.Nodes[1].URL("/"))
	hello(bob, "bob")
	bob.Join("lobby")
	if his := bob.SendText("lobby", "once", `"key":"k"`); his == first {
		t.Error("his key is hers")
	}
}

// That nobody can tell now what a token gives is no refusal of it: it is good again later.
func TestATokenThatCannotBeToldNowIsToBeTriedAgain(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, withTokens).Nodes[0]
	p := nodetest.Dial(t, n.URL("/"))
	p.Say(`{"op":"hello","token":"away"}`)
	if e := p.WantError(wire.Unavailable); e.RetryAfter == 0 || !strings.Contains(e.Message, "does not answer") {
		t.Errorf("over a socket: %+v", e)
	}
	status, h, problem := call(t, "GET", n.HTTP("/v1/rooms/lobby/members"), "", "Authorization", "Bearer away")
	if status != 503 || h.Get("Retry-After") == "" || problem["code"] != "unavailable" {
		t.Errorf("over HTTP: %d %v", status, problem)
	}
}
