package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// within starts a node with limits.
func within(t *testing.T, limits node.Limits) (*nodetest.Node, *watch) {
	w := newWatch()
	return nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Limits, cfg.Observer = limits, w }).Nodes[0], w
}

func TestAConnectionThatSaysTooMuchWaits(t *testing.T) {
	t.Parallel()
	const burst = 5
	n, w := within(t, node.Limits{Messages: 1, MessageBurst: burst})
	p := nodetest.Dial(t, n.URL("/"))
	began := time.Now()
	p.Join("lobby")
	ok := 0
	for refused := 0; refused < 4; {
		p.Say(`{"op":"send","room":"lobby","text":"x"}`)
		switch f := answer(p); {
		case f.Op == "ok":
			ok++
		case f.Code != wire.RateLimited || f.RetryAfter <= 0 || f.RetryAfter > 2*time.Second:
			t.Fatalf("got %s", nodetest.Show(f))
		default:
			refused++
		}
	}
	// The join took from it, and it fills up while the machine is slow.
	if most := burst + 1 + int(time.Since(began)/time.Second); ok < burst-1 || ok > most {
		t.Errorf("%d messages were taken, want at most %d", ok, most)
	}
	w.wait(t, "limited messages", 4)
	time.Sleep(time.Second + 100*time.Millisecond) // as it was told
	p.SendText("lobby", "again")
}

// What is dearer than all that a connection may say at once is done too, from time to time.
func TestWhatIsDearerThanTheBurstIsDoneAfterAWait(t *testing.T) {
	t.Parallel()
	n, _ := within(t, node.Limits{Messages: 50, MessageBurst: 1})
	p := nodetest.Dial(t, n.URL("/"))
	p.Join("lobby")
	for _, op := range []string{"history", "members"} {
		for tries := 0; ; tries++ {
			p.Say(`{"op":%q,"room":"lobby"}`, op)
			f := answer(p)
			if f.Op == "ok" {
				break
			}
			if f.Code != wire.RateLimited || tries == 3 {
				t.Fatalf("%s: got %s", op, nodetest.Show(f))
			}
			time.Sleep(f.RetryAfter) // as it was told
		}
	}
}

// What was sent before the refusal was heard does not overtake what is repeated.
func TestNothingOvertakesWhatWasRefused(t *testing.T) {
	t.Parallel()
	n, _ := within(t, node.Limits{Messages: 1000, MessageBurst: 3})
	p := nodetest.Dial(t, n.URL("/"))
	p.Join("lobby")
	refused := false
	began := time.Now()
	for i := range 40 { // over the burst, and then as fast as the bucket fills
		p.Say(`{"op":"send","req":%d,"room":"lobby","text":"x"}`, i)
		if i > 20 {
			time.Sleep(2 * time.Millisecond)
		}
	}
	for range 40 {
		switch f := answer(p); {
		case f.Op == "error":
			refused = true
		case refused && time.Since(began) < time.Second: // the least that it is told to wait
			t.Fatalf("after a refusal: %s", nodetest.Show(f))
		}
	}
	if !refused {
		t.Error("nothing was refused")
	}
}

func TestWhoIgnoresTheLimitIsClosed(t *testing.T) {
	t.Parallel()
	n, _ := within(t, node.Limits{Messages: 1, MessageBurst: 1})
	other := nodetest.Dial(t, n.URL("/"))
	other.Join("lobby")
	p := nodetest.Dial(t, n.URL("/"))
	p.Join("lobby")
	over, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for p.WS.Write(context.Background(), websocket.MessageText, []byte(`{"op":"ping"}`)) == nil {
			select {
			case <-over:
				return
			default:
			}
		}
	}()
	refused := 0
	for {
		f := p.Next()
		if f.Op == "bye" {
			if f.Close != wire.StatusPolicy || refused < 100 {
				t.Errorf("after %d refusals: %s", refused, nodetest.Show(f))
			}
			break
		}
		refused++
	}
	close(over)
	<-stopped
	time.Sleep(time.Second + 200*time.Millisecond) // by then it might speak, were it not for the close, which it does not answer
	p.WS.Write(context.Background(), websocket.MessageText, []byte(`{"op":"send","room":"lobby","text":"in spite of all"}`))
	p.WantClose(wire.StatusPolicy)
	other.SendText("lobby", "next")
	if m := other.Until("message"); m.Text != "next" {
		t.Errorf("whoever was closed is heard: %q", m.Text)
	}

	plain := nodetest.DialPlain(t, n.URL("/"))
	for range 3 {
		plain.Say("x")
	}
	plain.WantClose(wire.StatusPolicy)
}

func TestAConnectionJoinsSoManyRooms(t *testing.T) {
	t.Parallel()
	n, w := within(t, node.Limits{Rooms: 4})
	p := nodetest.Dial(t, n.URL("/"))
	for i := range 4 {
		p.Join(fmt.Sprint(i))
	}
	again := func() wire.Frame {
		p.Say(`{"op":"join","room":"0"}`)
		return answer(p)
	}
	f := again()
	for try := 0; f.Op == "ok" && try < 1000; try++ { // a slow machine gives one a second
		f = again()
	}
	if f.Code != wire.RateLimited {
		t.Fatalf("got %s", nodetest.Show(f))
	}
	time.Sleep(1100 * time.Millisecond)
	p.Say(`{"op":"join","room":"one too many"}`)
	if f := answer(p); f.Code != wire.Forbidden {
		t.Fatalf("got %s", nodetest.Show(f))
	}
	p.Say(`{"op":"leave","room":"0"}`)
	p.Until("ok")
	time.Sleep(1100 * time.Millisecond)
	p.Join("another")
	w.wait(t, "limited joins", 1)
	w.wait(t, "limited rooms", 1)
}

func TestANodeTakesSoManyClients(t *testing.T) {
	t.Parallel()
	n, w := within(t, node.Limits{Connections: 2})
	first := nodetest.Dial(t, n.URL("/"))
	s := listen(t, n.HTTP("/v1/rooms/lobby/events"))
	s.until("live")
	status, h, problem := call(t, "GET", n.HTTP("/"), "", upgrade...)
	if status != 503 || h.Get("Retry-After") == "" || problem["code"] != "unavailable" {
		t.Errorf("one too many: %d %v %v", status, h, problem)
	}
	wantBye(t, "an EventSource", listen(t, n.HTTP("/v1/rooms/lobby/events")))
	first.Cut()
	w.wait(t, "closed 1006", 1)
	nodetest.Dial(t, n.URL("/"))
	w.wait(t, "limited connections", 2)
}

// Who is refused for the sake of its address takes no place from others.
func TestWhoIsRefusedTakesNoPlace(t *testing.T) {
	t.Parallel()
	n, w := within(t, node.Limits{Connections: 3, AddressConnections: 1})
	first := nodetest.Dial(t, n.URL("/"))
	for i := range 10 {
		if status, _, _ := call(t, "GET", n.HTTP("/"), "", upgrade...); status != 429 {
			t.Fatalf("try %d: %d", i, status)
		}
	}
	bad := append([]string{}, upgrade...)
	bad[5] = "12" // a version that is not spoken
	first.Cut()
	w.wait(t, "closed 1006", 1)
	for i := range 10 {
		if status, _, _ := call(t, "GET", n.HTTP("/"), "", bad...); status != 400 {
			t.Fatalf("a handshake that fails, %d: %d", i, status)
		}
	}
	nodetest.Dial(t, n.URL("/"))
}

// Who is told over the open socket that its token is not good takes a place for as long as that takes.
func TestWhoseTokenIsRefusedGivesItsPlaceBack(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, withGrants, func(cfg *node.Config) { cfg.Limits.AddressConnections = 1 }).Nodes[0]
	refused := 0
	for began := time.Now(); refused < 3 && time.Since(began) < time.Minute; {
		ws, resp, err := socketWith(t, n.URL("/"), []string{wire.Subprotocol, "bearer.wrong"})
		if err == nil {
			frames(t, ws)
			refused++
		} else if resp == nil || resp.StatusCode != http.StatusTooManyRequests { // the one before may be on its way out
			t.Fatal(err)
		}
	}
	if refused < 3 {
		t.Errorf("after %d whose token was refused, nobody of their address is let in", refused)
	}
}

// upgrade is the header of a WebSocket's handshake.
var upgrade = []string{
	"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==",
}

func TestAnAddressHasItsLimits(t *testing.T) {
	t.Parallel()
	n, w := within(t, node.Limits{AddressConnections: 2, AddressAttempts: 1, AddressRequests: 1, AddressRooms: 12})
	h := node.BehindProxies([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, n.Handler(), slog.New(slog.DiscardHandler))
	s := httptest.NewServer(h)
	defer s.Close()
	members := func(from string) int {
		status, _, _ := call(t, "GET", s.URL+"/v1/rooms/lobby/members", "", "X-Forwarded-For", from)
		return status
	}
	ask := func(from string, times int) (refused int) {
		for range times {
			if members(from) == http.StatusTooManyRequests {
				refused++
			}
		}
		return refused
	}
	status := 0
	for try := 0; status != 429 && try < 20; try++ { // a slow machine gives one a second
		if refused := ask("2001:db8:1:2::1", 13); refused < 1 {
			continue
		}
		status = members("2001:db8:1:2:ffff::2")
	}
	if status != 429 { // another of the same network
		t.Errorf("the same /64: %d", status)
	}
	for _, from := range []string{"2001:db8:1:3::1", "192.0.2.1", "192.0.2.2"} {
		if status := members(from); status != 200 {
			t.Errorf("%s: %d", from, status)
		}
	}
	w.wait(t, "limited address_requests", 2)

	enter := func(from string) int {
		resp, err := http.DefaultTransport.RoundTrip(header(t, s.URL+"/ws", append(upgrade, "X-Forwarded-For", from)...))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp.StatusCode
	}
	if a, b, c := enter("192.0.2.1"), enter("192.0.2.1"), enter("192.0.2.1"); a != 101 || b != 101 || c != 429 {
		t.Errorf("connecting is answered %d %d %d", a, b, c)
	}
	w.wait(t, "limited address_connections", 1)
	for try := 0; w.count("limited address_attempts") == 0 && try < 300; try++ {
		enter("192.0.2.1")
	}
	w.wait(t, "limited address_attempts", 1)
	if status := enter("192.0.2.9"); status != 101 {
		t.Errorf("another address: %d", status)
	}
}

func TestAnAddressBringsSoManyRoomsIntoBeing(t *testing.T) {
	t.Parallel()
	n, w := within(t, node.Limits{AddressRooms: 3})
	p := nodetest.Dial(t, n.URL("/"))
	for i := range 3 {
		p.Join(fmt.Sprint(i))
	}
	nodetest.Dial(t, n.URL("/")).Join("1") // which is there
	p.Say(`{"op":"join","room":"one more"}`)
	if f := answer(p); f.Code != wire.RateLimited || f.RetryAfter < time.Second {
		t.Errorf("got %s", nodetest.Show(f))
	}
	if status, _, _ := call(t, "POST", n.HTTP("/v1/rooms/another/messages"), `{"text":"x"}`); status != 429 {
		t.Errorf("over HTTP: %d", status)
	}
	w.wait(t, "limited address_rooms", 2)
}

func header(t *testing.T, url string, header ...string) *http.Request {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

// answer gives the next ok or error.
func answer(p *nodetest.Peer) wire.Frame {
	for {
		if f := p.Next(); f.Op == "ok" || f.Op == "error" {
			return f
		}
	}
}
