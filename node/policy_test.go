package node_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/rights"
	"parley/node/wire"
)

// grants is an Authenticator whose tokens say what they give: "USER", "USER/ROOMS" with rights as people write them, or
// "USER/ROOMS/LIFE".
type grants struct{}

func (grants) Authenticate(_ context.Context, token string) (node.Grant, error) {
	if token == "wrong" {
		return node.Grant{}, errors.New("this token is nobody's")
	}
	if token == "late" {
		return node.Grant{}, node.ErrExpired
	}
	user, rest, _ := strings.Cut(token, "/")
	g := node.Grant{User: node.User{ID: user, Name: strings.ToUpper(user)}}
	rooms, life, _ := strings.Cut(rest, "/")
	if life != "" {
		d, err := time.ParseDuration(life)
		if err != nil {
			return g, err
		}
		g.Expires = time.Now().Add(d)
	}
	if rooms != "" {
		said, err := rights.ParseText(rooms)
		if err != nil {
			return g, err
		}
		g.Rights, err = rights.New(said)
		return g, err
	}
	return g, nil
}

func withGrants(cfg *node.Config) { cfg.Auth = grants{} }

// asked counts what a node asks of its bus.
type asked struct {
	bus.Bus
	times *atomic.Int64
}

func (a asked) Publish(room string, d bus.Draft, done func(bus.ID, error)) {
	a.times.Add(1)
	a.Bus.Publish(room, d, done)
}

func (a asked) Signal(room string, body []byte, done func(error)) {
	a.times.Add(1)
	a.Bus.Signal(room, body, done)
}

func (a asked) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	a.times.Add(1)
	return a.Bus.Subscribe(ctx, room, sink)
}

func (a asked) Before(ctx context.Context, room string, before bus.ID, limit, bytes int) (bus.Page, error) {
	a.times.Add(1)
	return a.Bus.Before(ctx, room, before, limit, bytes)
}

func (a asked) After(ctx context.Context, room string, since bus.ID, limit, bytes int) (bus.Page, error) {
	a.times.Add(1)
	return a.Bus.After(ctx, room, since, limit, bytes)
}

func (a asked) Roster(ctx context.Context, room string) (bus.Roster, error) {
	a.times.Add(1)
	return a.Bus.Roster(ctx, room)
}

// drawing counts what nodes draw from the buckets that they share.
type drawing struct {
	bus.Bus
	draws *atomic.Int64
}

func (d drawing) Draw(ctx context.Context, bucket string, n int, rate float64, burst int) (int, error) {
	d.draws.Add(1)
	return d.Bus.Draw(ctx, bucket, n, rate, burst)
}

// socketWith opens a WebSocket with subprotocols and a header of its own.
func socketWith(t *testing.T, url string, protocols []string, header ...string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	ws, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, HTTPHeader: h, Subprotocols: protocols,
	})
	if err == nil {
		t.Cleanup(func() { ws.CloseNow() })
	}
	return ws, resp, err
}

// frames reads a WebSocket to its end: the frames, and with what it closed.
func frames(t *testing.T, ws *websocket.Conn) (ops []wire.Frame, code websocket.StatusCode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		_, b, err := ws.Read(ctx)
		if err != nil {
			return ops, websocket.CloseStatus(err)
		}
		f, err := wire.ParseFrame(b)
		if err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		ops = append(ops, f)
	}
}

// What may not be done is refused over every door with the same words, whether the room exists or not, before the bus is asked:
// so it takes as long, too.
func TestWhatOneMayNotDoIsRefusedOverEveryDoorAlike(t *testing.T) {
	t.Parallel()
	var times atomic.Int64
	c := nodetest.Start(t, 1, withGrants, func(cfg *node.Config) {
		cfg.Bus = asked{cfg.Bus, &times}
		cfg.Limits.AddressRooms = 4 // of which none is used up by what is refused
	})
	n := c.Nodes[0]
	insider := nodetest.Dial(t, n.URL("/"))
	hello(insider, "ada")
	insider.Join("secret")
	insider.SendText("secret", "psst")
	insider.Until("message")

	eve := nodetest.Dial(t, n.URL("/"))
	hello(eve, "eve/open:*;*:kick")
	eve.Join("open")
	before := times.Load()
	const token = "Bearer eve/open:*;*:kick"
	refusals := map[string]map[string]bool{} // what was asked → the answers, without the room's name
	note := func(what, room, answer string) {
		if refusals[what] == nil {
			refusals[what] = map[string]bool{}
		}
		refusals[what][strings.ReplaceAll(answer, room, "ROOM")] = true
	}
	for range 3 {
		for _, room := range []string{"secret", "absent"} {
			for _, say := range []string{
				`{"op":"join","room":%q}`, `{"op":"join","room":%q,"since":"0-0"}`, `{"op":"send","room":%q,"text":"x"}`,
				`{"op":"signal","room":%q,"kind":"k"}`, `{"op":"history","room":%q}`, `{"op":"members","room":%q}`,
			} {
				eve.Say(say, room)
				note(say, room, eve.WantError(wire.Forbidden).Error())
			}
			for _, req := range [][2]string{{"POST", "messages"}, {"GET", "messages"}, {"GET", "members"}, {"GET", "events"}} {
				status, _, body := call(t, req[0], n.HTTP("/v1/rooms/"+room+"/"+req[1]), `{"text":"x"}`, "Authorization", token)
				if status != 403 {
					t.Errorf("%v of %s: %d %v", req, room, status, body)
				}
				note(req[0]+" "+req[1], room, fmt.Sprint(status, body))
			}
			_, resp, err := socketWith(t, n.URL("/?room="+room), nil, "Authorization", token)
			if err == nil {
				t.Fatal("plain text is let in")
			}
			note("plain", room, resp.Status)
			_, resp, err = socketWith(t, n.URL("/?token=eve/open:*&room="+room), nil)
			if err == nil {
				t.Fatal("plain text is let in, by its query")
			}
			note("plain", room, resp.Status)
			if status, _, body := call(t, "GET", n.HTTP("/v1/rooms/"+room+"/events?token=eve/open:*"), ""); status != 403 {
				t.Errorf("EventSource: %d %v", status, body)
			}
		}
	}
	if now := times.Load(); now != before {
		t.Errorf("the bus was asked %d times for what is refused", now-before)
	}
	for what, answers := range refusals {
		if len(answers) != 1 {
			t.Errorf("%s is answered in several ways: %v", what, answers)
		}
	}

	// A stream of several rooms goes on without the one that is forbidden, and no request adds it.
	s := listen(t, n.HTTP("/v1/events?room=secret&room=open"), "Authorization", token)
	_, w := s.until("welcome")
	for {
		e := s.next()
		f, _ := wire.ParseFrame([]byte(e.data))
		if e.name == "left" && (f.Room != "secret" || f.Code != wire.Forbidden) {
			t.Errorf("left: %s", e.data)
		}
		if f.Room == "secret" && e.name != "left" {
			t.Errorf("told of the secret: %s", e.data)
		}
		if e.name == "live" {
			break
		}
	}
	call(t, "POST", n.HTTP("/v1/events/"+w.Stream), `{"op":"join","req":7,"room":"secret"}`)
	if _, f := s.until("error"); string(f.Req) != "7" || f.Code != wire.Forbidden {
		t.Errorf("got %s", nodetest.Show(f))
	}

	insider.SendText("secret", "last")
	if m := insider.Until("message"); m.Text != "last" {
		t.Errorf("the bystander heard %s", nodetest.Show(m))
	}
}

func TestAVerbAllowsItsOpAndNoOther(t *testing.T) {
	c := nodetest.Start(t, 1, withGrants)
	n := c.Nodes[0]
	ops := map[string]string{
		"join": `{"op":"join","room":"r"}`, "send": `{"op":"send","room":"r","text":"x"}`, "signal": `{"op":"signal","room":"r","kind":"k"}`,
		"history": `{"op":"history","room":"r"}`, "members": `{"op":"members","room":"r"}`,
	}
	routes := map[string][2]string{
		"send": {"POST", "/v1/rooms/r/messages"}, "history": {"GET", "/v1/rooms/r/messages"}, "members": {"GET", "/v1/rooms/r/members"},
	}
	for verb := range ops {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			token := "ada/r:" + verb
			for op, say := range ops {
				p := nodetest.Dial(t, n.URL("/"))
				hello(p, token)
				p.Say("%s", say)
				switch f := p.Next(); {
				case op != verb && (f.Op != "error" || f.Code != wire.Forbidden):
					t.Errorf("%s: %s", op, nodetest.Show(f))
				case op == verb && (op == "send" || op == "signal") && f.Code != wire.NotJoined:
					t.Errorf("%s: %s", op, nodetest.Show(f))
				case op == verb && op != "send" && op != "signal" && f.Op != "ok":
					t.Errorf("%s: %s", op, nodetest.Show(f))
				}
			}
			for op, route := range routes {
				status, _, body := call(t, route[0], n.HTTP(route[1]), `{"text":"x"}`, "Authorization", "Bearer "+token)
				if ok := status < 300; ok != (op == verb) || !ok && status != 403 {
					t.Errorf("%v: %d %v", route, status, body)
				}
			}
		})
	}
}

// A renewed token that takes a right away ends at once what it allowed; one that gives it gives it at once.
func TestARenewedTokenChangesRightsAtOnce(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withGrants)
	n := c.Nodes[0]
	bob := nodetest.Dial(t, n.URL("/"))
	hello(bob, "bob")
	bob.Join("team")
	bob.Join("lobby")
	ada := nodetest.Dial(t, n.URL("/"))
	hello(ada, "ada/*:join,send,members")
	ada.Join("team")
	ada.Join("lobby")

	hello(ada, "ada/lobby:join")
	if f := ada.Until("left"); f.Room != "team" || f.Code != wire.Forbidden || f.Message == "" {
		t.Errorf("got %s", nodetest.Show(f))
	}
	for {
		f := bob.Until("presence")
		if f.Room == "team" && f.Event == wire.EventLeave && f.User.ID == "ada" {
			break
		}
	}
	bob.SendText("team", "she is gone")
	bob.SendText("lobby", "here she is")
	if m := ada.Until("message"); m.Text != "here she is" {
		t.Errorf("she heard %s", nodetest.Show(m))
	}
	for _, say := range []string{`{"op":"send","room":"lobby","text":"x"}`, `{"op":"members","room":"lobby"}`, `{"op":"join","room":"team"}`} {
		ada.Say("%s", say)
		ada.WantError(wire.Forbidden)
	}
	hello(ada, "ada/*:join,send")
	ada.SendText("lobby", "again")
	ada.Until("message")
	ada.Join("team", `"limit":0`)

	ada.Say(`{"op":"hello","token":"bob"}`) // but nobody else may be made of her
	ada.WantError(wire.Forbidden)
	ada.Say(`{"op":"hello","token":"wrong"}`)
	ada.WantError(wire.Unauthorized)
	ada.Say(`{"op":"hello","token":"late"}`)
	ada.WantError(wire.Expired)
	ada.SendText("lobby", "still she")
}

// Each room that one may not be in any more is left, whichever others are.
func TestARenewedTokenEndsTheStayInEachRoomThatItLacks(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, withGrants).Nodes[0]
	ada := nodetest.Dial(t, n.URL("/"))
	hello(ada, "ada/*:join")
	for _, room := range []string{"a", "b", "c", "d", "e"} {
		ada.Join(room)
	}
	hello(ada, "ada/c:join")
	var left []string
	for range 4 {
		left = append(left, ada.Until("left").Room)
	}
	if slices.Sort(left); !slices.Equal(left, []string{"a", "b", "d", "e"}) {
		t.Errorf("left %v", left)
	}
	ada.Say(`{"op":"ping","req":1}`)
	ada.Want("ok")
}

func TestARightTakenFromAStreamOfSeveralRoomsEndsAtOnce(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2, withGrants)
	s := listen(t, c.Nodes[0].HTTP("/v1/events?room=team&room=lobby"), "Authorization", "Bearer ada")
	_, w := s.until("welcome")
	s.until("live")
	s.until("live")
	status, _, body := call(t, "POST", c.Nodes[1].HTTP("/v1/events/"+w.Stream), `{"op":"hello","req":1,"token":"ada/lobby:join/1h"}`)
	if status != 202 {
		t.Fatalf("%d %v", status, body)
	}
	if _, f := s.until("welcome"); f.Expires < 59*time.Minute || f.Expires > time.Hour {
		t.Errorf("it expires in %s", f.Expires)
	}
	if _, f := s.until("left"); f.Room != "team" {
		t.Errorf("left %s", nodetest.Show(f))
	}
	for _, room := range []string{"team", "lobby"} {
		call(t, "POST", c.Nodes[0].HTTP("/v1/rooms/"+room+"/messages"), `{"text":"x"}`, "Authorization", "Bearer bob")
	}
	e, m := s.until("")
	if m.Room != "lobby" || strings.Contains(e.id, "team") {
		t.Errorf("heard %s of %s, cursor %s", m.Text, m.Room, e.id)
	}
}

// A stream of several rooms begins without those that it may not join, and says so.
func TestAStreamOfSeveralRoomsBeginsWithThoseThatItMayJoin(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, withGrants).Nodes[0]
	s := listen(t, n.HTTP("/v1/events?room=team&room=lobby&token=ada%2Flobby:join,history"))
	if _, f := s.until("left"); f.Room != "team" || f.Code != wire.Forbidden {
		t.Errorf("it is told %s", nodetest.Show(f))
	}
	if e, f := s.until("live"); f.Room != "lobby" || e.id != "lobby=0-0" {
		t.Errorf("then, at %q, %s", e.id, nodetest.Show(f))
	}
}

func TestWithoutHistoryAJoinBeginsWithWhatIsSaidNext(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withGrants)
	n := c.Nodes[0]
	bob := nodetest.Dial(t, n.URL("/"))
	hello(bob, "bob")
	bob.Join("r")
	first := bob.SendText("r", "before")
	last := bob.SendText("r", "and again")
	bob.Until("message")
	for _, tt := range []struct {
		more      string
		recovered string
		backlog   int
	}{
		{"", "none", 0},
		{`"limit":50`, "none", 0},
		{`"since":"0-0"`, "false", 1},
		{`"since":"` + first.String() + `"`, "false", 1},
		{`"since":"` + last.String() + `"`, "true", 0},
	} {
		p := nodetest.Dial(t, n.URL("/"))
		hello(p, "ada/r:join")
		var more []string
		if tt.more != "" {
			more = append(more, tt.more)
		}
		j, backlog := p.Join("r", more...)
		recovered := "none"
		if j.Recovered != nil {
			recovered = fmt.Sprint(*j.Recovered)
		}
		if recovered != tt.recovered || len(backlog) != tt.backlog || len(backlog) == 1 && backlog[0].Op != "gap" || j.Last != last {
			t.Errorf("join %s: recovered %s, %v", tt.more, recovered, backlog)
		}
		p.Cut()
	}
	p := nodetest.Dial(t, n.URL("/"))
	hello(p, "ada/r:join")
	p.Join("r", `"since":"0-0"`)
	bob.SendText("r", "now")
	if m := p.Until("message"); m.Text != "now" {
		t.Errorf("she heard %s", nodetest.Show(m))
	}
	s := listen(t, n.HTTP("/v1/rooms/r/events?since=0-0&token=ada/r:join"))
	s.until("gap")
	s.until("live")
}

// What has expired ends with the error expired and 4401, over every way of listening; a renewal puts it off.
func TestWhatHasExpiredEndsAndARenewalPutsItOff(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withGrants)
	n := c.Nodes[0]
	renewed := nodetest.Dial(t, n.URL("/"))
	if w := hello(renewed, "ada/*:*/4s"); w.Expires <= 0 || w.Expires > 4*time.Second {
		t.Errorf("it expires in %s", w.Expires)
	}
	if w := hello(renewed, "ada"); w.Expires != 0 {
		t.Errorf("it expires in %s", w.Expires)
	}
	p := nodetest.Dial(t, n.URL("/"))
	began := time.Now()
	hello(p, "ada/*:*/4s")
	ws, _, err := socketWith(t, n.URL("/?token=ada/*:*/4s"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := listen(t, n.HTTP("/v1/events?token=ada/*:*/4s"))
	if f := p.UntilError(); f.Code != wire.Expired || time.Since(began) < 4*time.Second {
		t.Errorf("after %v: %s", time.Since(began), nodetest.Show(f))
	}
	if f := p.Want("bye"); f.Close != wire.StatusNoToken {
		t.Errorf("got %s", nodetest.Show(f))
	}
	p.WantClose(wire.StatusNoToken)
	renewed.Say(`{"op":"ping"}`)
	renewed.Want("ok")

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, _, err = ws.Read(ctx); websocket.CloseStatus(err) != wire.StatusNoToken {
		t.Errorf("plain text: %v", err)
	}
	if _, f := s.until("error"); f.Code != wire.Expired {
		t.Errorf("got %s", nodetest.Show(f))
	}
	if _, f := s.until("bye"); f.Close != wire.StatusNoToken {
		t.Errorf("got %s", nodetest.Show(f))
	}
	for _, token := range []string{"late", "ada/*:*/-1s"} {
		status, _, body := call(t, "GET", n.HTTP("/v1/rooms/r/messages"), "", "Authorization", "Bearer "+token)
		if status != 401 || body["code"] != "expired" {
			t.Errorf("%s: %d %v", token, status, body)
		}
	}
}

func TestWhereGuestsAreNotWelcomeNobodyBecomesOne(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withGrants, func(cfg *node.Config) { cfg.HelloWait = time.Minute })
	n := c.Nodes[0]
	p := nodetest.Dial(t, n.URL("/"))
	if w := p.Welcome; w.User.ID != "" || w.Session != "" || !w.User.Guest {
		t.Errorf("the welcome: %s", nodetest.Show(w))
	}
	for _, say := range []string{
		`{"op":"join","room":"r"}`, `{"op":"history","room":"r"}`, `{"op":"members","room":"r"}`, `{"op":"send","room":"r","text":"x"}`,
		`{"op":"hello"}`, `{"op":"hello","name":"Ada"}`, `{"op":"hello","session":"` + newSession() + `"}`, `{"op":"hello","token":"wrong"}`,
	} {
		p.Say("%s", say)
		p.WantError(wire.Unauthorized)
	}
	stays := nodetest.Dial(t, n.URL("/"))
	hello(stays, "ada")
	stays.Join("r")
	stays.Say(`{"op":"hello","name":"Somebody"}`) // which is nothing new
	if w := stays.Until("welcome"); w.User.ID != "ada" {
		t.Errorf("got %s", nodetest.Show(w))
	}
	for _, path := range []string{"/messages", "/members", "/events"} {
		for _, query := range []string{"", "?name=Ada", "?session=" + newSession()} {
			if status, _, body := call(t, "GET", n.HTTP("/v1/rooms/r"+path+query), ""); status != 401 || body["code"] != "unauthorized" {
				t.Errorf("%s%s: %d %v", path, query, status, body)
			}
		}
	}
	if status, _, _ := call(t, "POST", n.HTTP("/v1/rooms/r/messages"), `{"text":"x"}`, "Parley-Session", newSession(), "Idempotency-Key", "k"); status != 401 {
		t.Errorf("a post: %d", status)
	}
	if _, resp, err := socketWith(t, n.URL("/"), nil); err == nil || resp.StatusCode != 401 {
		t.Errorf("plain text: %v", err)
	}
}

func TestWhoDoesNotSayWhoItIsIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withGrants, func(cfg *node.Config) { cfg.HelloWait = time.Second })
	began := time.Now()
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	if f := p.UntilError(); f.Code != wire.Unauthorized || time.Since(began) < time.Second {
		t.Errorf("after %v: %s", time.Since(began), nodetest.Show(f))
	}
	p.WantClose(wire.StatusNoToken)
}

func TestGuestsHaveTheirRights(t *testing.T) {
	t.Parallel()
	lobby, _ := rights.New(map[string][]string{"lobby": {"join", "history"}})
	for name, auth := range map[string]node.Authenticator{"beside tokens": grants{}, "alone": nil} {
		t.Run(name, func(t *testing.T) {
			c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Auth, cfg.Guests, cfg.GuestRights = auth, true, lobby })
			p := nodetest.Dial(t, c.Nodes[0].URL("/"))
			p.Join("lobby")
			p.Say(`{"op":"hello","name":"Other"}`)
			p.Until("welcome")
			p.Say(`{"op":"join","room":"team"}`)
			p.WantError(wire.Forbidden)
			p.Say(`{"op":"send","room":"lobby","text":"x"}`)
			p.WantError(wire.Forbidden)
			p.Say(`{"op":"hello","session":"%s"}`, p.Welcome.Session)
			p.Until("welcome")
			p.Say(`{"op":"join","room":"team"}`)
			p.WantError(wire.Forbidden)
			if status, _, _ := call(t, "POST", c.Nodes[0].HTTP("/v1/rooms/lobby/messages"), `{"text":"x"}`); status != 403 {
				t.Errorf("a post: %d", status)
			}
		})
	}
}

// A token may come with the handshake. A page can set no header and learns nothing of a refused handshake, so what it offers as
// a subprotocol is refused over the open socket.
func TestATokenMayComeWithTheHandshake(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withGrants)
	n := c.Nodes[0]
	for name, tt := range map[string]struct {
		url       string
		protocols []string
		header    []string
	}{
		"a header":      {"/", []string{"parley.v1"}, []string{"Authorization", "Bearer ada"}},
		"a subprotocol": {"/ws", []string{"parley.v1", "bearer.ada"}, nil},
		"before it":     {"/ws", []string{"bearer.ada", "parley.v1"}, nil},
	} {
		ws, resp, err := socketWith(t, n.URL(tt.url), tt.protocols, tt.header...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := resp.Header.Values("Sec-WebSocket-Protocol"); len(got) != 1 || got[0] != "parley.v1" {
			t.Errorf("%s: the subprotocol is %v", name, got)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_, b, err := ws.Read(ctx)
		cancel()
		if f, _ := wire.ParseFrame(b); err != nil || f.Op != "welcome" || f.User != (wire.User{ID: "ada", Name: "ADA"}) {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
	for token, code := range map[string]wire.Code{"wrong": wire.Unauthorized, "late": wire.Expired} {
		ws, _, err := socketWith(t, n.URL("/"), []string{"parley.v1", "bearer." + token})
		if err != nil {
			t.Fatal(err)
		}
		said, closed := frames(t, ws)
		if len(said) != 2 || said[0].Op != "error" || said[0].Code != code || said[1].Op != "bye" || closed != wire.StatusNoToken {
			t.Errorf("%s: %v, closed with %d", token, said, closed)
		}
	}
	for name, tt := range map[string]struct {
		url       string
		protocols []string
		header    []string
		status    int
	}{
		"a wrong one in a header":     {"/", []string{"parley.v1"}, []string{"Authorization", "Bearer wrong"}, 401},
		"plain text":                  {"/", nil, []string{"Authorization", "Bearer wrong"}, 401},
		"plain text, by its query":    {"/?token=wrong", nil, nil, 401},
		"parley.v1, by its query":     {"/?token=ada", []string{"parley.v1"}, nil, 401},
		"two":                         {"/", []string{"parley.v1", "bearer.ada", "bearer.bob"}, nil, 401},
		"a header and a subprotocol":  {"/", []string{"parley.v1", "bearer.ada"}, []string{"Authorization", "Bearer ada"}, 401},
		"another scheme":              {"/", []string{"parley.v1"}, []string{"Authorization", "Basic x"}, 401},
		"nothing but a token offered": {"/", []string{"bearer.ada"}, nil, 400},
	} {
		_, resp, err := socketWith(t, n.URL(tt.url), tt.protocols, tt.header...)
		if err == nil || resp.StatusCode != tt.status {
			t.Errorf("%s: %v", name, err)
		}
	}
	ws, _, err := socketWith(t, n.URL("/?token=ada/lobby:join,send&room=lobby"), nil)
	if err != nil {
		t.Fatal(err)
	}
	watcher := nodetest.Dial(t, n.URL("/"))
	hello(watcher, "bob")
	watcher.Join("lobby")
	ws.Write(context.Background(), websocket.MessageText, []byte("hi"))
	if m := watcher.Until("message"); m.From != (wire.Member{ID: "ada", Name: "ADA"}) {
		t.Errorf("it is from %s", nodetest.Show(m))
	}
}

// issued is an Authenticator of tokens "USER@MS": who, and when it was issued. Its jti is "jti of USER".
type issued struct{}

func withIssued(cfg *node.Config) { cfg.Auth = issued{} }

func (issued) Authenticate(_ context.Context, token string) (node.Grant, error) {
	user, at, _ := strings.Cut(token, "@")
	ms, err := strconv.ParseInt(at, 10, 64)
	return node.Grant{User: node.User{ID: user}, Issued: time.UnixMilli(ms), Token: "jti of " + user}, err
}
