package node_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"parley/bus"
	"parley/bus/id"
	"parley/bus/memory"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

func texts(frames []wire.Frame) []string {
	var out []string
	for _, f := range frames {
		if f.Op == "message" {
			out = append(out, f.Text)
		} else {
			out = append(out, f.Op)
		}
	}
	return out
}

func numbers(from, to int) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func TestWelcomeComesFirstAndHelloMakesTheSameGuestOnAnyNode(t *testing.T) {
	c := nodetest.Start(t, 2, func(cfg *node.Config) { cfg.PingInterval = 0 })
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	w := a.Welcome
	if !w.User.Guest || !strings.HasPrefix(w.User.ID, "guest-") || w.Session == "" || w.Ping != 25 || w.Limits.Text != 4096 {
		t.Errorf("welcome: %s", nodetest.Show(w))
	}
	b := nodetest.Dial(t, c.Nodes[1].URL("/"))
	b.Say(`{"op":"hello","req":1,"session":%q,"name":"Ann"}`, w.Session)
	h := b.Want("welcome")
	if h.User.ID != w.User.ID || h.User.Name != "Ann" || string(h.Req) != "1" || h.Session != w.Session {
		t.Errorf("hello: %s", nodetest.Show(h))
	}
	b.Join("lobby")
	b.Say(`{"op":"hello","session":%q}`, nodetest.Dial(t, c.Nodes[0].URL("/")).Welcome.Session)
	b.WantError(wire.Forbidden)
	b.Say(`{"op":"hello","session":%q,"name":"Ann"}`, w.Session)
	b.Until("welcome") // presence may come before it
	a.Say(`{"op":"hello","session":"easy to guess"}`)
	a.WantError(wire.BadRequest)
	a.Say(`{"op":"hello","token":"x"}`)
	a.WantError(wire.Unauthorized)
}

func TestBadRequestsAreAnsweredAndTheConnectionGoesOn(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 1)
		p := nodetest.Dial(t, c.Nodes[0].URL("/"))
		p.Join("lobby")
		for _, tc := range []struct {
			say  string
			code wire.Code
		}{
			{`hello`, wire.BadRequest},
			{`[]`, wire.BadRequest},
			{`{"op":"dance","req":7}`, wire.Unsupported},
			{`{"op":7,"req":7}`, wire.BadRequest},
			{`{"req":7}`, wire.BadRequest},
			{`{"op":"join","req":7}`, wire.BadRequest},
			{`{"op":"join","req":7,"room":""}`, wire.BadRequest},
			{`{"op":"join","req":7,"room":"` + strings.Repeat("r", 129) + `"}`, wire.BadRequest},
			{`{"op":"join","req":7,"room":"a\u0007"}`, wire.BadRequest},
			{`{"op":"join","req":7,"room":"r","since":"yesterday"}`, wire.BadRequest},
			{`{"op":"history","req":7,"room":"r","before":"1"}`, wire.BadRequest},
			{`{"op":"send","req":7,"room":"lobby"}`, wire.BadRequest},
			{`{"op":"send","req":7,"room":"lobby","text":7}`, wire.BadRequest},
			{`{"op":"send","req":7,"room":"elsewhere","text":"x"}`, wire.NotJoined},
			{`{"op":"signal","req":7,"room":"elsewhere","kind":"typing"}`, wire.NotJoined},
			{`{"op":"send","req":7,"room":"lobby","text":"` + strings.Repeat("a", 4097) + `"}`, wire.TooLarge},
			{`{"op":"send","req":7,"room":"lobby","text":"x","data":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, wire.BadRequest},
		} {
			p.Say("%s", tc.say)
			for {
				f := p.Next()
				if f.Op == "presence" {
					continue
				}
				if f.Op != "error" || f.Code != tc.code {
					t.Errorf("%.60s: got %s, want %s", tc.say, nodetest.Show(f), tc.code)
				}
				if strings.Contains(tc.say, `"req":7`) != (string(f.Req) == "7") {
					t.Errorf("%.60s: the answer is not tied to the request: %s", tc.say, nodetest.Show(f))
				}
				if f.Message == "" {
					t.Errorf("%.60s: the error does not say what is wrong", tc.say)
				}
				break
			}
		}
		p.Say(`{"op":"ping","req":"still here","unknown":true}`)
		if f := p.Until("ok"); string(f.Req) != `"still here"` {
			t.Errorf("got %s", nodetest.Show(f))
		}
	})
}

func TestFramesThatAreNoTextCloseJSONToo(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 1)
		for _, tc := range []struct {
			kind websocket.MessageType
			body string
			code int
		}{
			{websocket.MessageText, "{\"op\":\"\xff\"}", wire.StatusNotUTF8},
			{websocket.MessageBinary, `{"op":"ping"}`, wire.StatusUnsupported},
			{websocket.MessageText, strings.Repeat(" ", 64<<10+1), wire.StatusTooBig},
		} {
			p := nodetest.Dial(t, c.Nodes[0].URL("/"))
			p.Write(tc.kind, []byte(tc.body))
			p.WantClose(tc.code)
		}
	})
}

func TestSendIsAnsweredBeforeTheMessageItCaused(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 2)
		a := nodetest.Dial(t, c.Nodes[0].URL("/"))
		b := nodetest.Dial(t, c.Nodes[1].URL("/"))
		a.Join("lobby")
		b.Join("lobby")
		last := id.ID{}
		for i := range 100 {
			a.Say(`{"op":"send","req":%d,"room":"lobby","text":"t%d","data":{"n":[%d]},"key":"k%d"}`, i, i, i, i)
			ok := a.Until("ok")
			m := a.Until("message")
			if string(ok.Req) != fmt.Sprint(i) || ok.ID != m.ID || m.Key != fmt.Sprintf("k%d", i) || !last.Less(m.ID) {
				t.Fatalf("%d: %s then %s", i, nodetest.Show(ok), nodetest.Show(m))
			}
			last = m.ID
			o := b.Until("message")
			if o.ID != m.ID || o.From != m.From || string(o.Data) != fmt.Sprintf(`{"n":[%d]}`, i) {
				t.Fatalf("the other got %s", nodetest.Show(o))
			}
		}
	})
}

func TestRepeatingASendOverAnotherNodeYieldsOneMessage(t *testing.T) {
	c := nodetest.Start(t, 2)
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	a.Join("lobby")
	first := a.SendText("lobby", "once", `"key":"k"`)
	b := nodetest.Dial(t, c.Nodes[1].URL("/"))
	b.Say(`{"op":"hello","session":%q}`, a.Welcome.Session)
	b.Want("welcome")
	b.Join("lobby")
	if again := b.SendText("lobby", "once", `"key":"k"`); again != first {
		t.Errorf("the repeat got %v, the first %v", again, first)
	}
	b.Say(`{"op":"send","room":"lobby","text":"another","key":"k"}`)
	if f := b.Until("error"); f.Code != wire.Conflict {
		t.Errorf("another text with the same key got %s", nodetest.Show(f))
	}
}

func TestJoinGivesTheNewestAndResumeExactlyWhatWasMissed(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2)
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	j, backlog := a.Join("lobby")
	if j.Last != (id.ID{}) || len(backlog) != 0 || j.Recovered != nil {
		t.Errorf("an empty room: %s", nodetest.Show(j))
	}
	ids := said(t, c, "lobby", numbers(1, 300)...)
	for n, want := range map[int][]string{0: nil, 1: numbers(300, 300), 60: numbers(241, 300), 200: numbers(101, 300)} {
		b := nodetest.Dial(t, c.Nodes[1].URL("/"))
		j, backlog := b.Join("lobby", fmt.Sprintf(`"limit":%d`, n))
		if got := texts(backlog); !slices.Equal(got, want) || j.Last != ids[299] {
			t.Errorf("limit %d: got %v", n, got)
		}
	}
	if _, backlog := nodetest.Dial(t, c.Nodes[1].URL("/")).Join("lobby"); !slices.Equal(texts(backlog), numbers(251, 300)) {
		t.Errorf("by default: got %v", texts(backlog))
	}
	for since, want := range map[string][]string{
		ids[299].String(): nil, ids[298].String(): numbers(300, 300), ids[10].String(): numbers(12, 300), "0-0": numbers(1, 300),
	} {
		for _, nd := range c.Nodes {
			b := nodetest.Dial(t, nd.URL("/"))
			j, backlog := b.Join("lobby", fmt.Sprintf(`"since":%q`, since))
			if got := texts(backlog); j.Recovered == nil || !*j.Recovered || !slices.Equal(got, want) {
				t.Errorf("since %s: got %v, %s", since, got, nodetest.Show(j))
			}
		}
	}
}

func TestResumingPastTheLogIsToldAsAGap(t *testing.T) {
	t.Parallel()
	mem := memory.New(bus.Retention{Size: 20})
	c := nodetest.StartOn(t, 2, mem.Open)
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	a.Join("lobby")
	var ids []id.ID
	for i := 1; i <= 400; i++ {
		ids = append(ids, a.SendText("lobby", fmt.Sprint(i)))
	}
	b := nodetest.Dial(t, c.Nodes[1].URL("/"))
	j, backlog := b.Join("lobby", fmt.Sprintf(`"since":%q`, ids[4]))
	if j.Recovered == nil || *j.Recovered {
		t.Errorf("join: %s", nodetest.Show(j))
	}
	got := texts(backlog)
	if len(got) < 21 || got[0] != "gap" || backlog[0].After != ids[4] || got[len(got)-1] != "400" || !slices.Equal(got[1:], numbers(402-len(got), 400)) {
		t.Errorf("backlog: %v", got)
	}
}

func TestHistoryPagesBackToTheBeginning(t *testing.T) {
	c := nodetest.Start(t, 1)
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("lobby")
	for i := 1; i <= 95; i++ {
		p.SendText("lobby", fmt.Sprint(i))
	}
	var all []string
	before := ""
	for {
		p.Say(`{"op":"history","room":"lobby","limit":20%s}`, before)
		h := p.Until("ok")
		var page []string
		for _, m := range h.Messages {
			page = append(page, m.Text)
		}
		all = append(page, all...)
		if !h.More {
			break
		}
		before = fmt.Sprintf(`,"before":%q`, h.Messages[0].ID)
	}
	if !slices.Equal(all, numbers(1, 95)) {
		t.Errorf("got %v", all)
	}
	p.Say(`{"op":"history","room":"lobby","before":"0-0"}`)
	if h := p.Until("ok"); len(h.Messages) > 0 || h.More {
		t.Errorf("before the beginning: %s", nodetest.Show(h))
	}
}

func TestSignalsReachTheRoomAndAreNotKept(t *testing.T) {
	c := nodetest.Start(t, 2)
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	b := nodetest.Dial(t, c.Nodes[1].URL("/"))
	a.Join("lobby")
	b.Join("lobby")
	a.Say(`{"op":"signal","req":1,"room":"lobby","kind":"typing","data":{"on":true}}`)
	s := b.Until("signal")
	if s.Kind != "typing" || s.User.ID != a.Welcome.User.ID || string(s.Data) != `{"on":true}` || s.Room != "lobby" {
		t.Errorf("got %s", nodetest.Show(s))
	}
	if ok := a.Until("ok"); string(ok.Req) != "1" || !ok.ID.IsZero() {
		t.Errorf("it is answered %s", nodetest.Show(ok))
	}
	if _, backlog := nodetest.Dial(t, c.Nodes[0].URL("/")).Join("lobby"); len(backlog) != 0 {
		t.Errorf("kept: %v", texts(backlog))
	}
}

func TestPresenceTellsJoinsAndLeavesOncePerUser(t *testing.T) {
	c := nodetest.Start(t, 2, func(cfg *node.Config) { cfg.Grace = 1 })
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	a.Join("lobby")
	b := nodetest.Dial(t, c.Nodes[1].URL("/"))
	if j, _ := b.Join("lobby"); j.Count != 2 || len(j.Members) != 2 {
		t.Errorf("join: %s", nodetest.Show(j))
	}
	want := func(event, user string, count int) {
		t.Helper()
		for {
			if f := a.Until("presence"); f.User.ID == user {
				if f.Event != event || f.Count != count {
					t.Errorf("got %s, want %s of %d", nodetest.Show(f), event, count)
				}
				return
			}
		}
	}
	want("join", b.Welcome.User.ID, 2)

	b2 := nodetest.Dial(t, c.Nodes[0].URL("/")) // the same user, once more
	b2.Say(`{"op":"hello","session":%q}`, b.Welcome.Session)
	b2.Want("welcome")
	b2.Join("lobby")
	b.Cut() // is no leave: the user is still there
	b2.Say(`{"op":"members","req":1,"room":"lobby"}`)
	if m := b2.Until("ok"); m.Count != 2 {
		t.Errorf("members: %s", nodetest.Show(m))
	}
	b2.Say(`{"op":"leave","room":"lobby"}`)
	b2.Until("ok")
	want("leave", b.Welcome.User.ID, 1)
}

func TestLargeRoomsAreToldOnlyTheCount(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.PresenceLimit = 3; cfg.Grace = 1 })
	var peers []*nodetest.Peer
	for range 6 {
		p := nodetest.Dial(t, c.Nodes[0].URL("/"))
		p.Join("lobby")
		peers = append(peers, p)
	}
	a := peers[0]
	for {
		f := a.Until("presence")
		if f.Event == "count" && f.Count == 6 {
			break
		}
		if f.Event == "join" && f.Count > 3 {
			t.Errorf("a single join was told: %s", nodetest.Show(f))
		}
	}
	for _, p := range peers[3:] {
		p.Say(`{"op":"leave","room":"lobby"}`)
		p.Until("ok")
	}
	for { // small again: the list is told
		f := a.Until("presence")
		if f.Event == "sync" && f.Count == 3 {
			if len(f.Members) != 3 {
				t.Errorf("got %s", nodetest.Show(f))
			}
			break
		}
	}
}
