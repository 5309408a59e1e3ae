package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"parley/node"
	"parley/node/keys"
	"parley/node/nodetest"
	"parley/node/wire"
)

var (
	wholeKey = strings.Repeat("w", 32)
	newsKey  = strings.Repeat("n", 32)
)

func withApps(cfg *node.Config) {
	ring, err := keys.Parse("backend " + wholeKey + "\nnews " + newsKey + " news-*:read,send")
	if err != nil {
		panic(err)
	}
	cfg.Apps = ring
}

// An api asks a node by what it says of itself: every request and answer has to be as /v1/openapi.json describes it.
type api struct {
	t    *testing.T
	n    *nodetest.Node
	seen map[string]bool // operation and status
}

func describedAPI(t *testing.T, n *nodetest.Node) *api { return &api{t, n, map[string]bool{}} }

func (a *api) ask(method, path, body string, header ...string) (int, http.Header, map[string]any) {
	a.t.Helper()
	resp, err := http.Get(a.n.HTTP("/v1/openapi.json"))
	if err != nil {
		a.t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := doc.Validate(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		a.t.Fatal(err)
	}
	req, _ := http.NewRequest(method, a.n.HTTP(path), strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	route, params, err := router.FindRoute(req)
	if err != nil {
		a.t.Fatalf("%s %s is not described: %v", method, path, err)
	}
	input := &openapi3filter.RequestValidationInput{
		Request: req, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	asDescribed := openapi3filter.ValidateRequest(a.t.Context(), input)
	sent, _ := http.NewRequest(method, a.n.HTTP(path), strings.NewReader(body))
	sent.Header = req.Header
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(sent)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode < 300 && asDescribed != nil {
		a.t.Errorf("%s %s is done, and is not as described: %v", method, path, asDescribed)
	}
	if err := openapi3filter.ValidateResponse(a.t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: res.StatusCode, Header: res.Header, Body: io.NopCloser(bytes.NewReader(b)), Options: input.Options,
	}); err != nil {
		a.t.Errorf("%s %s is answered otherwise than described: %v\n%s", method, path, err, b)
	}
	a.seen[fmt.Sprint(route.Operation.OperationID, " ", res.StatusCode)] = true
	out := map[string]any{}
	if err := json.Unmarshal(b, &out); err != nil {
		a.t.Errorf("%s %s: %v: %s", method, path, err, b)
	}
	return res.StatusCode, res.Header, out
}

func TestApplicationsAskAsIsDescribed(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2, withGrants, withApps)
	a := describedAPI(t, c.Nodes[0])
	whole, news := "Bearer "+wholeKey, "Bearer "+newsKey
	ada := nodetest.Dial(t, c.Nodes[1].URL("/"))
	hello(ada, "ada")
	ada.Join("news-a")
	ada.Join("lobby")

	status, _, said := a.ask("POST", "/v1/rooms/news-a/messages", `{"text":"as bob","from":{"id":"bob","name":"Bob"}}`, "Authorization", whole, "Idempotency-Key", "1")
	if status != 201 {
		t.Fatalf("%d %v", status, said)
	}
	if m := ada.Until("message"); m.From != (wire.Member{ID: "bob", Name: "Bob"}) || m.ID.String() != said["id"] {
		t.Errorf("it is from %s", nodetest.Show(m))
	}
	if _, _, again := a.ask("POST", "/v1/rooms/news-a/messages", `{"text":"as bob","from":{"id":"bob","name":"Bob"}}`, "Authorization", whole, "Idempotency-Key", "1"); again["id"] != said["id"] {
		t.Errorf("again it is %v", again)
	}
	a.ask("POST", "/v1/rooms/news-a/messages", `{"text":"itself"}`, "Authorization", news)
	if m := ada.Until("message"); m.From != (wire.Member{ID: "news", Name: "news"}) {
		t.Errorf("it is from %s", nodetest.Show(m))
	}
	if status, _, _ := a.ask("POST", "/v1/rooms/news-a/messages", `{"text":"other","from":{"id":"bob"}}`, "Authorization", whole, "Idempotency-Key", "1"); status != 409 {
		t.Errorf("another content with the same key: %d", status)
	}
	if status, _, body := a.ask("GET", "/v1/rooms/news-a/messages?limit=2", "", "Authorization", news); status != 200 || len(body["messages"].([]any)) != 2 {
		t.Errorf("history: %d %v", status, body)
	}
	if status, _, body := a.ask("GET", "/v1/rooms/news-a/members", "", "Authorization", news); status != 200 || body["count"] != 1.0 {
		t.Errorf("members: %d %v", status, body)
	}

	status, _, body := a.ask("POST", "/v1/broadcast", `{"rooms":["news-a","lobby",""],"text":"all","from":{"id":"system"}}`, "Authorization", whole, "Idempotency-Key", "2")
	results, _ := body["results"].([]any)
	if status != 200 || len(results) != 3 || results[0].(map[string]any)["id"] == nil || results[1].(map[string]any)["room"] != "lobby" || results[2].(map[string]any)["code"] != "bad_request" {
		t.Errorf("broadcast: %d %v", status, body)
	}
	heard := map[string]bool{}
	for range 2 {
		m := ada.Until("message")
		if heard[m.Room] = true; m.Text != "all" || m.From.ID != "system" {
			t.Errorf("heard %s", nodetest.Show(m))
		}
	}
	if !heard["lobby"] || !heard["news-a"] {
		t.Errorf("heard in %v", heard)
	}
	_, _, body = a.ask("POST", "/v1/broadcast", `{"rooms":["news-a","lobby"],"text":"all"}`, "Authorization", news)
	if results := body["results"].([]any); results[0].(map[string]any)["id"] == nil || results[1].(map[string]any)["code"] != "forbidden" {
		t.Errorf("a broadcast without the right to a room: %v", body)
	}

	if _, _, body := a.ask("GET", "/v1/rooms?limit=1", "", "Authorization", whole); fmt.Sprint(body["rooms"], body["more"]) != "[lobby] true" {
		t.Errorf("rooms: %v", body)
	}
	if _, _, body := a.ask("GET", "/v1/rooms?after=lobby", "", "Authorization", whole); fmt.Sprint(body["rooms"], body["more"]) != "[news-a] false" {
		t.Errorf("rooms: %v", body)
	}
	if _, _, body := a.ask("GET", "/v1/rooms", "", "Authorization", news); fmt.Sprint(body["rooms"]) != "[news-a]" {
		t.Errorf("rooms that the key may read: %v", body)
	}

	for _, path := range []string{"/v1/users/ada/disconnect", "/v1/users/ada/revoke", "/v1/revoke"} {
		for header, want := range map[string]int{"": 401, "Bearer wrong": 401, news: 403, "Bearer ada": 403} {
			var h []string
			if header != "" {
				h = []string{"Authorization", header}
			}
			if status, _, body := a.ask("POST", path, `{}`, h...); status != want {
				t.Errorf("%s with %.12q: %d %v", path, header, status, body)
			}
		}
	}
	for _, bad := range []string{`{"before":-1}`, `{"before":99999999999999}`, `[]`, `{"token":"x","before":1}`} {
		if status, _, body := a.ask("POST", "/v1/revoke", bad, "Authorization", whole); status != 400 {
			t.Errorf("%s: %d %v", bad, status, body)
		}
	}
	ada.Say(`{"op":"ping"}`) // none of which harmed her
	ada.Until("ok")
	if status, _, _ := a.ask("POST", "/v1/users/nobody/disconnect", "", "Authorization", whole); status != 202 {
		t.Errorf("who is not there: %d", status)
	}
	for _, op := range []string{"publish 201", "publish 409", "history 200", "members 200", "broadcast 200", "listRooms 200", "disconnect 202", "disconnect 401", "disconnect 403", "revoke 400"} {
		if !a.seen[op] {
			t.Errorf("%s was not seen", op)
		}
	}
}

// What an application asks wrongly is said, and not done.
func TestWhatAnApplicationAsksWronglyIsSaid(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, withApps).Nodes[0]
	rooms := func(n int) string { return `"` + strings.Join(strings.Fields(strings.Repeat("r ", n)), `","`) + `"` }
	long := strings.Repeat("x", 70_000)
	for _, tt := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"/v1/rooms/r/messages", `{"text":"x","from":{"id":""}}`, 400, "from needs an id"},
		{"/v1/rooms/r/messages", `{"text":"x","from":{"id":"a\u0007"}}`, 400, "from needs an id"},
		{"/v1/rooms/r/messages", `{"text":"x","from":{"id":"` + strings.Repeat("a", 129) + `"}}`, 400, "from needs an id"},
		{"/v1/rooms/r/messages", `{"text":"x","from":{"id":"a","name":"` + strings.Repeat("a", 65) + `"}}`, 400, "name"},
		{"/v1/rooms/r/messages", `{"text":"x","from":{"id":"a","info":7}}`, 400, "info"},
		{"/v1/rooms/r/messages", `{"text":"x","from":7}`, 400, "from has to be an object"},
		{"/v1/rooms/r/messages", `{"text":"x","from":{"id":7}}`, 400, "from has to be an object"},
		{"/v1/rooms/r/messages", `{"text":"x","from":null,"From":7}`, 201, ""},
		{"/v1/broadcast", `{"text":"x"}`, 400, "1 to 100 rooms"},
		{"/v1/broadcast", `{"text":"x","rooms":[]}`, 400, "1 to 100 rooms"},
		{"/v1/broadcast", `{"text":"x","rooms":[` + rooms(101) + `]}`, 400, "1 to 100 rooms"},
		{"/v1/broadcast", `{"text":"x","rooms":[` + rooms(100) + `]}`, 200, ""},
		{"/v1/broadcast", `{"rooms":["r"]}`, 400, "text"},
		{"/v1/broadcast", `{"rooms":"r","text":"x"}`, 400, "openapi.json"},
		{"/v1/broadcast", long, 413, "65536"},
		{"/v1/rooms?limit=-1", "", 400, "200"},
		{"/v1/rooms?limit=201", "", 400, "200"},
		{"/v1/rooms?limit=0", "", 200, ""},
		{"/v1/users/a%07/disconnect", `{}`, 400, "a user's id"},
		{"/v1/users/a%07/revoke", `{}`, 400, "a user's id"},
		{"/v1/users/ada/revoke", long, 413, "65536"},
		{"/v1/users/ada/revoke", `{"token":"x"}`, 400, "by its jti alone"},
		{"/v1/revoke", `{"token":"x","before":1}`, 400, "by its jti alone"},
		{"/v1/revoke", `{"before":0}`, 400, "not to come"},
		{"/v1/revoke", `{"token":""}`, 400, "nothing else"},
		{"/v1/revoke", `{"token":null}`, 400, "nothing else"},
		{"/v1/revoke", `{"jti":"x"}`, 400, "nothing else"},
		{"/v1/revoke", `null`, 400, "a JSON object"},
		{"/v1/users/ada/revoke", ` null `, 400, "a JSON object"},
		{"/v1/revoke", `{"user":"ada","before":1}`, 400, "nothing else"},
		{"/v1/users/ada/revoke", `{"since":1}`, 400, "nothing else"},
		{"/v1/users/backend/revoke", `{}`, 202, ""},
		{"/v1/broadcast", `{"text":"x","rooms":["r"]}`, 401, "revoked"}, // it is a user, too
	} {
		method := "POST"
		if tt.body == "" {
			method = "GET"
		}
		status, _, body := call(t, method, n.HTTP(tt.path), tt.body, "Authorization", "Bearer "+wholeKey)
		if detail, _ := body["detail"].(string); status != tt.status || !strings.Contains(detail, tt.says) {
			t.Errorf("%s %.60s: %d %v", tt.path, tt.body, status, body)
		}
	}
}

// What an application says as text is its own, though it may pass on words that look like a request to speak for somebody.
func TestTextIsOfTheApplicationThatSaysIt(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, withApps).Nodes[0]
	watcher := nodetest.Dial(t, n.URL("/"))
	watcher.Join("r")
	const words = `{"from":{"id":"boss","name":"The boss"}}`
	for _, kind := range []string{"text/plain", "text/plain; charset=utf-8"} {
		status, _, body := call(t, "POST", n.HTTP("/v1/rooms/r/messages"), words, "Authorization", "Bearer "+wholeKey, "Content-Type", kind)
		if status != 201 {
			t.Fatalf("%s: %d %v", kind, status, body)
		}
		if m := watcher.Until("message"); m.From.ID != "backend" || m.Text != words {
			t.Errorf("%s: heard %s", kind, nodetest.Show(m))
		}
	}
}

// While the bus is away an application is told so, whatever it asks: what it said, listed or revoked it has to ask again.
func TestAnApplicationIsToldThatTheBusIsAway(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, withApps, func(cfg *node.Config) { cfg.Bus = deadBus{cfg.Bus} }).Nodes[0]
	for path, body := range map[string]string{
		"/v1/rooms": "", "/v1/users/ada/disconnect": `{}`, "/v1/users/ada/revoke": `{}`, "/v1/rooms/r/messages": `{"text":"x"}`,
	} {
		method := "POST"
		if body == "" {
			method = "GET"
		}
		status, h, problem := call(t, method, n.HTTP(path), body, "Authorization", "Bearer "+wholeKey)
		if status != 503 || h.Get("Retry-After") == "" || problem["code"] != "unavailable" {
			t.Errorf("%s: %d %v", path, status, problem)
		}
	}
	_, _, body := call(t, "POST", n.HTTP("/v1/broadcast"), `{"text":"x","rooms":["a"]}`, "Authorization", "Bearer "+wholeKey)
	if results, _ := body["results"].([]any); len(results) != 1 || results[0].(map[string]any)["code"] != "unavailable" {
		t.Errorf("a broadcast: %v", body)
	}
}

// An API key is good in the header of an HTTP request, and nowhere else.
func TestAnAPIKeyIsGoodInItsPlaceOnly(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withApps, withTokens, func(cfg *node.Config) { cfg.Guests = false })
	n := c.Nodes[0]
	for name, tt := range map[string]struct {
		url       string
		protocols []string
		header    []string
	}{
		"the handshake's header": {"/", []string{"parley.v1"}, []string{"Authorization", "Bearer " + wholeKey}},
		"the query":              {"/?token=" + wholeKey, nil, nil},
	} {
		if _, resp, err := socketWith(t, n.URL(tt.url), tt.protocols, tt.header...); err == nil || resp.StatusCode != 401 {
			t.Errorf("%s: %v", name, err)
		}
	}
	ws, _, err := socketWith(t, n.URL("/"), []string{"parley.v1", "bearer." + wholeKey})
	if err != nil {
		t.Fatal(err)
	}
	if said, code := frames(t, ws); said[0].Code != wire.Unauthorized || code != wire.StatusNoToken {
		t.Errorf("a subprotocol: %v", said)
	}
	p := nodetest.Dial(t, n.URL("/"))
	p.Say(`{"op":"hello","token":%q}`, wholeKey)
	if e := p.WantError(wire.Unauthorized); strings.Contains(e.Message, wholeKey) {
		t.Error("the error tells the key")
	}
	for _, tt := range [][]string{
		{"/v1/rooms?token=" + wholeKey},
		{"/v1/rooms/lobby/events?token=" + wholeKey},
		{"/v1/rooms", "Parley-Session", wholeKey},
		{"/v1/rooms", "Authorization", "Basic " + wholeKey},
		{"/v1/rooms", "X-API-Key", wholeKey},
	} {
		status, _, body := call(t, "GET", n.HTTP(tt[0]), "", tt[1:]...)
		if status != 401 || strings.Contains(fmt.Sprint(body), wholeKey) {
			t.Errorf("%v: %d %v", tt, status, body)
		}
	}
	if status, _, _ := call(t, "GET", n.HTTP("/v1/rooms"), "", "Authorization", "Bearer "+wholeKey); status != 200 {
		t.Errorf("in its place: %d", status)
	}
	s := listen(t, n.HTTP("/v1/rooms/lobby/events"), "Authorization", "Bearer "+wholeKey)
	if _, w := s.until("welcome"); w.User.ID != "backend" {
		t.Errorf("a stream: %s", nodetest.Show(w))
	}
}

// Without keys nobody is an application.
func TestWithoutKeysThereAreNoApplications(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	for _, tt := range [][2]string{{"GET", "/v1/rooms"}, {"POST", "/v1/broadcast"}, {"POST", "/v1/users/ada/disconnect"}, {"POST", "/v1/users/ada/revoke"}, {"POST", "/v1/revoke"}} {
		for _, header := range [][]string{nil, {"Authorization", "Bearer "}, {"Authorization", "Bearer x"}} {
			if status, _, body := call(t, tt[0], c.Nodes[0].HTTP(tt[1]), "", header...); status != 401 {
				t.Errorf("%v %v: %d %v", tt, header, status, body)
			}
		}
	}
}

// The idempotency keys of users and of applications do not meet: nobody learns what another said, or makes it a conflict.
func TestNobodysIdempotencyKeysMeetAnothers(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withGrants, withApps)
	n := c.Nodes[0]
	say := func(text string, header ...string) any {
		status, _, body := call(t, "POST", n.HTTP("/v1/rooms/r/messages"), text, append(header, "Idempotency-Key", "guessed")...)
		if status != 201 {
			t.Errorf("%s: %d %v", text, status, body)
		}
		return body["id"]
	}
	ids := map[any]bool{
		say(`{"text":"a"}`, "Authorization", "Bearer ada"):                                 true,
		say(`{"text":"b"}`, "Authorization", "Bearer bob"):                                 true,
		say(`{"text":"c","from":{"id":"ada"}}`, "Authorization", "Bearer "+wholeKey):       true,
		say(`{"text":"d","from":{"id":"bob"}}`, "Authorization", "Bearer "+wholeKey):       true,
		say(`{"text":"e"}`, "Authorization", "Bearer "+wholeKey):                           true,
		say(`{"text":"f","from":{"id":"backend"}}`, "Authorization", "Bearer backend/*:*"): true, // which no user may say
	}
	if len(ids) != 6 {
		t.Errorf("six messages have %d ids", len(ids))
	}
	_, _, body := call(t, "GET", n.HTTP("/v1/rooms/r/messages"), "", "Authorization", "Bearer ada")
	for _, m := range body["messages"].([]any) {
		if m := m.(map[string]any); m["text"] == "f" && m["from"].(map[string]any)["name"] != "BACKEND" {
			t.Errorf("a user spoke as another: %v", m)
		}
	}
}

func TestARevocationHoldsOnEveryNodeWithinASecond(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3, withIssued, withApps)
	whole := "Bearer " + wholeKey
	post := func(path, body string) {
		t.Helper()
		if status, _, said := call(t, "POST", c.Nodes[0].HTTP(path), body, "Authorization", whole); status != 202 {
			t.Fatalf("%s: %d %v", path, status, said)
		}
	}
	dial := func(token string) (peers []*nodetest.Peer) {
		for _, n := range c.Nodes {
			p := nodetest.Dial(t, n.URL("/"))
			hello(p, token)
			p.Join("lobby")
			peers = append(peers, p)
		}
		return peers
	}
	gone := func(peers []*nodetest.Peer, code wire.Code, status int) {
		t.Helper()
		began := time.Now()
		for _, p := range peers {
			if f := p.UntilError(); f.Code != code {
				t.Errorf("got %s", nodetest.Show(f))
			}
			p.WantClose(status)
		}
		t.Logf("three nodes took %s", time.Since(began))
	}
	now := time.Now()
	old, bystander := fmt.Sprint("ada@", now.Add(-time.Hour).UnixMilli()), dial("bob@1")
	before := dial(old)

	post("/v1/users/ada/disconnect", "")
	gone(before, wire.Forbidden, wire.StatusKicked)
	again := dial(old) // who may come back

	post("/v1/users/ada/revoke", "")
	gone(again, wire.Unauthorized, wire.StatusNoToken)
	for _, n := range c.Nodes {
		if status, _, body := call(t, "GET", n.HTTP("/v1/rooms/lobby/messages"), "", "Authorization", "Bearer "+old); status != 401 || body["code"] != "unauthorized" {
			t.Errorf("a revoked token: %d %v", status, body)
		}
	}
	fresh := dial(fmt.Sprint("ada@", now.Add(time.Hour).UnixMilli()))

	post("/v1/revoke", `{"token":"jti of eve"}`)
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Say(`{"op":"hello","token":"eve@1"}`)
	p.WantError(wire.Unauthorized)
	for _, p := range append(bystander, fresh...) {
		p.Say(`{"op":"ping","req":"alive"}`)
		for f := p.Until("ok"); string(f.Req) != `"alive"`; f = p.Until("ok") {
		}
	}
	post("/v1/revoke", `{"before":2}`)
	gone(bystander, wire.Unauthorized, wire.StatusNoToken)
}

// A broadcast is in its rooms for no longer than it takes, whatever becomes of it there.
func TestTheRoomsOfABroadcastAreLetGo(t *testing.T) {
	t.Parallel()
	w := newWatch()
	c := nodetest.Start(t, 1, withApps, func(cfg *node.Config) { cfg.Observer, cfg.Linger = w, time.Millisecond })
	for _, text := range []string{"first", "a conflict"} {
		status, _, said := call(t, "POST", c.Nodes[0].HTTP("/v1/broadcast"), `{"rooms":["a","b","c","d","e","f","g","h","i","j"],"text":"`+text+`"}`,
			"Authorization", "Bearer "+wholeKey, "Idempotency-Key", "k")
		if status != 200 {
			t.Fatalf("%d %v", status, said)
		}
	}
	w.wait(t, "room opened", 10)
	w.wait(t, "room closed", w.count("room opened"))
}
