package node_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// infos is an Authenticator of tokens "USER/INFO@MS": who, what others see, and when it was issued.
type infos struct{}

func (infos) Authenticate(_ context.Context, token string) (node.Grant, error) {
	user, rest, _ := strings.Cut(token, "/")
	info, at, _ := strings.Cut(rest, "@")
	var ms int64
	fmt.Sscan(at, &ms)
	return node.Grant{User: node.User{ID: user, Name: strings.ToUpper(user), Info: wire.Info(info)}, Issued: time.UnixMilli(ms)}, nil
}

func withInfos(cfg *node.Config) { cfg.Auth = infos{} }

func TestOthersSeeTheInfoOfAToken(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2, withInfos)
	host := wire.Member{ID: "ada", Name: "ADA", Info: `{"role":"host"}`}
	ada := nodetest.Dial(t, c.Nodes[0].URL("/"))
	ada.Say(`{"op":"hello","token":%q,"req":1}`, `ada/{"role":"host"}@1`)
	if w := ada.Until("welcome"); w.User.Info != host.Info {
		t.Errorf("she is %s", nodetest.Show(w))
	}
	ada.Join("r")
	bob := nodetest.Dial(t, c.Nodes[1].URL("/"))
	hello(bob, "bob/@1")
	bob.Say(`{"op":"join","room":"r","req":"j"}`)
	joined := bob.Until("ok")
	if !has(joined.Members, host) || !has(joined.Members, wire.Member{ID: "bob", Name: "BOB"}) {
		t.Errorf("joined: %s", nodetest.Show(joined))
	}
	bob.Until("live")
	ada.SendText("r", "hi")
	if m := bob.Until("message"); m.From != host {
		t.Errorf("a message: %s", nodetest.Show(m))
	}
	cy := nodetest.Dial(t, c.Nodes[0].URL("/"))
	hello(cy, `cy/{"a":1}@1`)
	cy.Join("r")
	presence := func(user string) wire.Frame {
		for {
			if p := bob.Until("presence"); p.User.ID == user {
				return p
			}
		}
	}
	if p := presence("cy"); p.Event != wire.EventJoin || p.User.Info != `{"a":1}` {
		t.Errorf("a join: %s", nodetest.Show(p))
	}
	ada.Say(`{"op":"hello","token":%q}`, `ada/{"role":"guest"}@2`)
	if p := presence("ada"); p.Event != wire.EventUpdate || p.User.Name != "ADA" || p.User.Info != `{"role":"guest"}` {
		t.Errorf("a fresh token: %s", nodetest.Show(p))
	}
	ada.SendText("r", "again")
	if m := bob.Until("message"); m.From.Info != `{"role":"guest"}` {
		t.Errorf("then a message: %s", nodetest.Show(m))
	}
	for i, n := range c.Nodes {
		_, _, body := call(t, "GET", n.HTTP("/v1/rooms/r/members"), "", "Authorization", "Bearer bob/")
		if got := fmt.Sprint(body["members"]); !strings.Contains(got, "map[id:ada info:map[role:guest] name:ADA]") {
			t.Errorf("node %d lists %s", i, got)
		}
		_, _, body = call(t, "GET", n.HTTP("/v1/rooms/r/messages"), "", "Authorization", "Bearer bob/")
		if got := fmt.Sprint(body["messages"]); !strings.Contains(got, "map[id:ada info:map[role:host] name:ADA]") {
			t.Errorf("node %d has the messages %s", i, got)
		}
	}
}

func has(members []wire.Member, m wire.Member) bool {
	for _, o := range members {
		if o == m {
			return true
		}
	}
	return false
}

// Whoever comes back says when the name was chosen; what the token says of them is as new as the token.
func TestTheInfoOfTheLaterTokenCounts(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2, withInfos)
	now := time.Now().UnixMilli()
	come := func(n int, info string, issued int64) {
		t.Helper()
		p := nodetest.Dial(t, c.Nodes[n].URL("/"))
		p.Say(`{"op":"hello","token":%q,"name":"ADA","named":%d}`, fmt.Sprintf("ada/%s@%d", info, issued), now-5000)
		p.Join("r")
	}
	bob := nodetest.Dial(t, c.Nodes[0].URL("/"))
	hello(bob, "bob/@1")
	bob.Join("r")
	presence := func() wire.Frame {
		for {
			if p := bob.Until("presence"); p.User.ID == "ada" {
				return p
			}
		}
	}
	come(0, `{"n":2}`, now-2000)
	if p := presence(); p.User.Info != `{"n":2}` {
		t.Errorf("got %s", nodetest.Show(p))
	}
	come(1, `{"n":1}`, now-1000) // later, and before the other in the alphabet
	if p := presence(); p.Event != wire.EventUpdate || p.User.Info != `{"n":1}` {
		t.Errorf("a later token: %s", nodetest.Show(p))
	}
	come(0, `{"n":9}`, now-9000)
	come(1, `{"n":0}`, now)
	if p := presence(); p.Event != wire.EventUpdate || p.User.Info != `{"n":0}` {
		t.Errorf("an earlier token changed it: %s", nodetest.Show(p))
	}
}

func TestAnApplicationSpeaksWithAnInfo(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, withApps).Nodes[0]
	p := nodetest.Dial(t, n.URL("/"))
	p.Join("r")
	say := func(info string) int {
		status, _, _ := call(t, "POST", n.HTTP("/v1/rooms/r/messages"), `{"text":"x","from":{"id":"bot","info":`+info+`}}`, "Authorization", "Bearer "+wholeKey)
		return status
	}
	for _, bad := range []string{`5`, `[]`, `"x"`, `{"a":"` + strings.Repeat("x", wire.MaxInfo) + `"}`} {
		if status := say(bad); status != 400 {
			t.Errorf("%.20s is answered %d", bad, status)
		}
	}
	if status := say(`{ "kind": "bot" }`); status != 201 {
		t.Errorf("it is answered %d", status)
	}
	if m := p.Until("message"); m.From != (wire.Member{ID: "bot", Info: `{"kind":"bot"}`}) {
		t.Errorf("it is from %s", nodetest.Show(m))
	}
}
