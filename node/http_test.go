package node_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// call makes a request and gives the answer's status, header and JSON.
func call(t *testing.T, method, url, body string, header ...string) (int, http.Header, map[string]any) {
	t.Helper()
	req, _ := http.NewRequest(method, url, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	out := map[string]any{}
	json.Unmarshal(b, &out)
	return resp.StatusCode, resp.Header, out
}

// A stream is an event stream as a client reads it.
type stream struct {
	t     *testing.T
	body  io.Closer
	lines *bufio.Reader
}

type event struct{ id, name, data string }

func listen(t *testing.T, url string, header ...string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	req, _ := http.NewRequestWithContext(ctx, "GET", url, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s %s", url, resp.Status, b)
	}
	return &stream{t, resp.Body, bufio.NewReader(resp.Body)}
}

func (s *stream) next() (e event) {
	s.t.Helper()
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			s.t.Fatalf("reading the stream: %v", err)
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "" && e.data != "":
			return e
		case name == "id":
			e.id = value
		case name == "event":
			e.name = value
		case name == "data":
			e.data = value
		}
	}
}

// until gives the next event of a name, "" for a message.
func (s *stream) until(name string) (event, wire.Frame) {
	s.t.Helper()
	for {
		if e := s.next(); e.name == name {
			f, err := wire.ParseFrame([]byte(e.data))
			if err != nil {
				s.t.Fatal(err)
			}
			return e, f
		}
	}
}

func TestEventStreamsGiveWhatIsSaidAndResume(t *testing.T) {
	c := nodetest.Start(t, 2)
	url := c.Nodes[0].HTTP("/v1/rooms/tea%20%2F%20%C3%A9/events?name=Ann")
	s := listen(t, url)
	_, w := s.until("welcome")
	if w.User.Name != "Ann" || w.Session == "" {
		t.Errorf("welcome: %+v", w)
	}
	if _, j := s.until("ok"); j.Room != "tea / é" || j.Count != 1 {
		t.Errorf("ok: %+v", j)
	}
	s.until("live")
	p := nodetest.Dial(t, c.Nodes[1].URL("/"))
	p.Join("tea / é")
	s.until("presence")
	sent := p.SendText("tea / é", "line\nbreak", `"key":"k"`)
	e, m := s.until("")
	if e.id != sent.String() || m.Text != "line\nbreak" || m.ID != sent {
		t.Errorf("got %+v", e)
	}
	p.Say(`{"op":"signal","room":"tea / é","kind":"typing"}`)
	s.until("signal")
	s.body.Close()
	for i := range 3 {
		p.SendText("tea / é", fmt.Sprint("missed ", i))
	}
	back := listen(t, url, "Last-Event-ID", e.id, "Parley-Session", w.Session)
	_, w2 := back.until("welcome")
	if w2.User.ID != w.User.ID {
		t.Error("the session does not make the same guest")
	}
	if _, j := back.until("ok"); j.Recovered == nil || !*j.Recovered {
		t.Errorf("ok: %+v", j)
	}
	for i := range 3 {
		if _, m := back.until(""); m.Text != fmt.Sprint("missed ", i) {
			t.Errorf("got %q", m.Text)
		}
	}
}

func TestMessagesArePostedOnceWithAKey(t *testing.T) {
	c := nodetest.Start(t, 2)
	p := nodetest.Dial(t, c.Nodes[1].URL("/"))
	p.Join("lobby")
	url := c.Nodes[0].HTTP("/v1/rooms/lobby/messages?name=Curl")
	status, h, first := call(t, "POST", url, `{"text":"who am I?"}`)
	session := h.Get("Parley-Session")
	if status != 201 || session == "" {
		t.Fatalf("%d %v", status, first)
	}
	p.Until("message")
	status, _, first = call(t, "POST", url, `{"text":"hi","data":{"a":1}}`, "Idempotency-Key", "k1", "Parley-Session", session)
	if status != 201 {
		t.Fatalf("%d %v", status, first)
	}
	if m := p.Until("message"); m.Text != "hi" || m.From.Name != "Curl" || m.ID.String() != first["id"] || m.Key != "k1" {
		t.Errorf("got %s", nodetest.Show(m))
	}
	status, _, again := call(t, "POST", url, `{"text":"hi","data":{"a":1}}`, "Idempotency-Key", "k1", "Parley-Session", session)
	if status != 201 || again["id"] != first["id"] {
		t.Errorf("the repeat: %d %v", status, again)
	}
	status, _, other := call(t, "POST", url, `{"text":"ho"}`, "Idempotency-Key", "k1", "Parley-Session", session)
	if status != 409 || other["code"] != "conflict" {
		t.Errorf("another text: %d %v", status, other)
	}
	if status, _, _ := call(t, "POST", url, "just text\n", "Content-Type", "text/plain"); status != 201 {
		t.Errorf("text/plain: %d", status)
	}
	if m := p.Until("message"); m.Text != "just text" {
		t.Errorf("got %s", nodetest.Show(m))
	}
	for range 5 {
		call(t, "POST", url, `{"text":"more"}`)
	}
	status, _, page := call(t, "GET", c.Nodes[1].HTTP("/v1/rooms/lobby/messages?limit=3"), "")
	if list, _ := page["messages"].([]any); status != 200 || len(list) != 3 || page["more"] != true {
		t.Errorf("history: %d %v", status, page)
	}
	status, _, page = call(t, "GET", c.Nodes[1].HTTP("/v1/rooms/lobby/messages?before="+first["id"].(string)), "")
	if list, _ := page["messages"].([]any); status != 200 || len(list) != 1 || page["more"] != false {
		t.Errorf("history before the second: %d %v", status, page)
	}
	status, _, members := call(t, "GET", c.Nodes[0].HTTP("/v1/rooms/lobby/members"), "")
	if status != 200 || members["count"] != 1.0 {
		t.Errorf("members: %d %v", status, members)
	}
}

func TestHTTPErrorsAreProblemDetails(t *testing.T) {
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Origins = []string{"good.example"} })
	for _, tc := range []struct {
		method, path, body string
		header             []string
		status             int
		code, says         string
	}{
		{"POST", "/v1/rooms/lobby/messages", `nonsense`, nil, 400, "bad_request", "JSON object"},
		{"POST", "/v1/rooms/lobby/messages", `{}`, nil, 400, "bad_request", "text"},
		{"POST", "/v1/rooms/lobby/messages", `{"text":7}`, nil, 400, "bad_request", "text"},
		{"POST", "/v1/rooms/lobby/messages", `{"text":"` + strings.Repeat("a", 5000) + `"}`, nil, 413, "too_large", "4096"},
		{"POST", "/v1/rooms/lobby/messages", `{"text":"` + strings.Repeat("a", 70000) + `"}`, nil, 413, "too_large", "65536"},
		{"POST", "/v1/rooms/lobby/messages", "a\xff", []string{"Content-Type", "text/plain"}, 400, "bad_request", "UTF-8"},
		{"POST", "/v1/rooms/lobby/messages", `<x/>`, []string{"Content-Type", "text/xml"}, 415, "unsupported", "text/xml"},
		{"POST", "/v1/rooms/lobby/messages", `{"text":"x"}`, []string{"Parley-Session", "guessable"}, 400, "bad_request", "session"},
		{"POST", "/v1/rooms/lobby/messages?session=" + newSession(), `{"text":"x"}`, []string{"Idempotency-Key", strings.Repeat("k", 65)}, 400, "bad_request", "64"},
		{"POST", "/v1/rooms/lobby/messages", `{"text":"x"}`, []string{"Idempotency-Key", "1"}, 400, "bad_request", "Parley-Session"},
		{"POST", "/v1/rooms/lobby/messages", `{"Text":"x","DATA":1}`, nil, 400, "bad_request", "text"},
		{"POST", "/v1/rooms/lobby/messages", `{"text":"x"}`, []string{"Authorization", "Bearer x"}, 401, "unauthorized", "token"},
		{"POST", "/v1/rooms/lobby/messages", `{"text":"x"}`, []string{"Origin", "https://bad.example"}, 403, "forbidden", "bad.example"},
		{"POST", "/v1/rooms/lobby/messages", "{\"text\":\"a\xff\"}", nil, 400, "bad_request", "UTF-8"},
		{"GET", "/v1/rooms/lobby/messages?before=x", "", nil, 400, "bad_request", "before"},
		{"GET", "/v1/rooms/lobby/messages?limit=-1", "", nil, 400, "bad_request", "200"},
		{"GET", "/v1/rooms/lobby/messages?limit=x", "", nil, 400, "bad_request", "200"},
		{"GET", "/v1/rooms/lobby/messages?limit=201", "", nil, 400, "bad_request", "200"},
		{"GET", "/v1/rooms/lobby/messages?name=a%00", "", nil, 400, "bad_request", "control"},
		{"GET", "/v1/events?room=lobby&limit=201", "", nil, 400, "bad_request", "200"},
		{"GET", "/v1/events?room=lobby&since=lobby", "", nil, 400, "bad_request", "lobby=0-0"},
		{"GET", "/v1/events?room=lobby&since=lobby%3Dx", "", nil, 400, "bad_request", "cursor"},
		{"GET", "/v1/events?room=lobby&since=%25zz%3D0-0", "", nil, 400, "bad_request", "cursor"},
		{"GET", "/v1/events?room=lobby", "", []string{"Last-Event-ID", "lobby=x"}, 400, "bad_request", "cursor"},
		{"GET", "/v1/events?room=a%00", "", nil, 400, "bad_request", "control"},
		{"GET", "/v1/events?room=lobby&name=a%00", "", nil, 400, "bad_request", "control"},
		{"POST", "/v1/events/x", strings.Repeat("a", 70000), nil, 413, "too_large", "65536"},
		{"POST", "/v1/events/x", `{"op":"shout"}`, nil, 415, "unsupported", "shout"},
		{"GET", "/v1/rooms/lobby/messages?limit=1000", "", nil, 400, "bad_request", "200"},
		{"GET", "/v1/rooms/lobby/events?since=x", "", nil, 400, "bad_request", "since"},
		{"GET", "/v1/rooms/lobby/events?name=a%00", "", nil, 400, "bad_request", "control"},
		{"GET", "/v1/rooms/a%00/members", "", nil, 400, "bad_request", "control"},
		{"DELETE", "/v1/rooms/lobby/messages", "", nil, 405, "unsupported", "DELETE"},
		{"GET", "/v1/nowhere", "", nil, 404, "not_found", "/v1/rooms"},
	} {
		status, h, body := call(t, tc.method, c.Nodes[0].HTTP(tc.path), tc.body, tc.header...)
		detail, _ := body["detail"].(string)
		if status != tc.status || body["code"] != tc.code || !strings.Contains(detail, tc.says) || h.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s %.40s: got %d %v", tc.method, tc.path, tc.body, status, body)
		}
	}
	status, h, _ := call(t, "OPTIONS", c.Nodes[0].HTTP("/v1/rooms/lobby/messages"), "", "Origin", "https://good.example")
	if status != 204 || h.Get("Access-Control-Allow-Origin") != "https://good.example" || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "Idempotency-Key") {
		t.Errorf("preflight: %d %v", status, h)
	}
}

// A message as large as a request may be is larger than an answer should be, with what stands beside it; it is in the history all the same.
func TestTheLargestMessageIsInTheHistory(t *testing.T) {
	c := nodetest.Start(t, 1)
	messages := c.Nodes[0].HTTP("/v1/rooms/lobby/messages")
	call(t, "POST", messages, `{"text":"before"}`)
	body := `{"data":"` + strings.Repeat("x", wire.MaxFrame-len(`{"data":""}`)) + `"}`
	if status, _, problem := call(t, "POST", messages, body); status != 201 {
		t.Fatalf("%d %v", status, problem)
	}
	_, _, page := call(t, "GET", messages, "")
	list, _ := page["messages"].([]any)
	if len(list) != 1 || len(list[0].(map[string]any)["data"].(string)) < wire.MaxFrame-100 || page["more"] != true {
		t.Errorf("%d messages, more %v", len(list), page["more"])
	}
}

// What a node cannot read, as it is of a newer version, is left out wherever it would be told.
func TestWhatANodeCannotReadIsLeftOut(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := joined(t, n)
	plain := nodetest.DialPlain(t, n.URL("/"))
	s := listen(t, n.HTTP("/v1/rooms/lobby/events"))
	s.until("live")
	for p.Until("presence").Count < 3 {
	}
	said := make(chan error)
	for _, body := range []string{"", "x", "{", `{"from":7}`, strings.Repeat("\x00", 20), strings.Repeat("\xff", 20)} {
		n.Bus.Publish("lobby", bus.Draft{Body: []byte(body)}, func(_ bus.ID, err error) { go func() { said <- err }() })
		if err := <-said; err != nil {
			t.Fatal(err)
		}
	}
	if status, _, problem := call(t, "POST", n.HTTP("/v1/rooms/lobby/messages"), `{"text":"good"}`); status != 201 {
		t.Fatalf("%d %v", status, problem)
	}
	if m := p.Until("message"); m.Text != "good" {
		t.Errorf("in JSON comes %s", nodetest.Show(m))
	}
	if text := plain.Read(); text != "good" {
		t.Errorf("in plain text comes %q", text)
	}
	if _, m := s.until(""); m.Text != "good" {
		t.Errorf("over a stream comes %s", nodetest.Show(m))
	}
	if _, backlog := nodetest.Dial(t, n.URL("/")).Join("lobby"); !slices.Equal(texts(backlog), []string{"good"}) {
		t.Errorf("a newcomer gets %v", texts(backlog))
	}
	_, _, page := call(t, "GET", n.HTTP("/v1/rooms/lobby/messages"), "")
	if list, _ := page["messages"].([]any); len(list) != 1 {
		t.Errorf("the history is %v", page)
	}
}

func TestNoneOfTheHistoryMayBeAskedFor(t *testing.T) {
	c := nodetest.Start(t, 1)
	call(t, "POST", c.Nodes[0].HTTP("/v1/rooms/lobby/messages"), `{"text":"x"}`)
	_, _, page := call(t, "GET", c.Nodes[0].HTTP("/v1/rooms/lobby/messages?limit=0"), "")
	if messages, _ := page["messages"].([]any); messages == nil || len(messages) > 0 || page["more"] != true {
		t.Errorf("got %v", page)
	}
}

func TestAFrozenEventStreamCatchesUp(t *testing.T) {
	t.Parallel()
	w := newWatch()
	c := nodetest.StartNarrow(t, 1, func(cfg *node.Config) { cfg.Observer = w; cfg.QueueBytes = 32 << 10 })
	s := listen(t, c.Nodes[0].HTTP("/v1/rooms/lobby/events"))
	s.until("live")
	n := 0
	pad := strings.Repeat("x", 4000)
	w.overflow(t, func() { // of the stream: nobody else is there, who might fall behind too
		status, _, said := call(t, "POST", c.Nodes[0].HTTP("/v1/rooms/lobby/messages"), fmt.Sprint(n, " ", pad), "Content-Type", "text/plain")
		if status != 201 {
			t.Fatalf("%d %v", status, said)
		}
		n++
	})
	for i := range n {
		if _, m := s.until(""); !strings.HasPrefix(m.Text, fmt.Sprint(i, " ")) {
			t.Fatalf("got %.20q, want %d", m.Text, i)
		}
	}
	w.wait(t, "caught up", w.count("overflowed"))
}

// newSession is 128 random bits as a guest may choose them.
func newSession() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// The README's own command, said twice.
func TestAKeyCountsForAGuestWhoChoseItsSession(t *testing.T) {
	c := nodetest.Start(t, 2)
	session := newSession()
	ids := map[any]bool{}
	for i := range 4 {
		status, _, said := call(t, "POST", c.Nodes[i%2].HTTP("/v1/rooms/lobby/messages"), `{"text":"hi"}`, "Idempotency-Key", "1", "Parley-Session", session)
		if status != 201 {
			t.Fatalf("%d %v", status, said)
		}
		ids[said["id"]] = true
	}
	if len(ids) != 1 {
		t.Errorf("one message became %d", len(ids))
	}
}

// Two keys are told as two: clients take what has the key of another message for its repeat.
func TestAKeyIsUTF8(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, withApps).Nodes[0]
	for path, body := range map[string]string{"/v1/rooms/r/messages": `{"text":"x"}`, "/v1/broadcast": `{"text":"x","rooms":["r"]}`} {
		status, _, said := call(t, "POST", n.HTTP(path), body, "Authorization", "Bearer "+wholeKey, "Idempotency-Key", "caf\xe9")
		if status != 400 || said["code"] != "bad_request" {
			t.Errorf("%s: %d %v", path, status, said)
		}
	}
	status, _, said := call(t, "GET", n.HTTP("/v1/rooms/r/messages"), "", "Authorization", "Bearer "+wholeKey)
	if list, _ := said["messages"].([]any); status != 200 || len(list) > 0 {
		t.Errorf("what was said is %v", said)
	}
}

func TestATokenThatIsNotUnderstoodIsNoGuest(t *testing.T) {
	c := nodetest.Start(t, 1, withTokens)
	paths := []string{"/messages", "/members", "/events"}
	for _, tt := range []struct {
		name   string
		header []string // of Authorization
		query  string
		status int
	}{
		{"a bearer", []string{"Bearer ada"}, "", 200},
		{"in small letters", []string{"bearer ada"}, "", 200},
		{"in capitals, with space", []string{"BEARER   ada "}, "", 200},
		{"another token", []string{"Bearer bad"}, "", 401},
		{"no token", []string{"Bearer"}, "", 401},
		{"empty", []string{""}, "", 401},
		{"a token without a scheme", []string{"ada"}, "", 401},
		{"another scheme", []string{"Basic YW5uOmdvb2Q="}, "", 401},
		{"two tokens", []string{"Bearer ada, Bearer bob"}, "", 401},
		{"two headers", []string{"Bearer ada", "Bearer bob"}, "", 401},
		{"a query", nil, "?token=ada", 200}, // of an EventSource, which can set no headers: others get 401
		{"another in the query", nil, "?token=bad", 401},
		{"an empty query", nil, "?token=", 401},
		{"a session beside it", []string{"Basic x"}, "?session=" + newSession(), 401},
		{"nobody", nil, "", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range paths {
				req, _ := http.NewRequest("GET", c.Nodes[0].HTTP("/v1/rooms/lobby"+path+tt.query), nil)
				req.Header["Authorization"] = tt.header
				resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				status := tt.status
				if tt.query != "" && path != "/events" {
					status = 401
				}
				challenged := resp.Header.Get("WWW-Authenticate") == "Bearer"
				if resp.StatusCode != status || challenged != (status == 401) {
					t.Errorf("%s: %s, %v", path, resp.Status, resp.Header)
				}
			}
		})
	}
}

func TestOneLineBreakEndsAPlainTextBody(t *testing.T) {
	c := nodetest.Start(t, 1)
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("lobby")
	for body, text := range map[string]string{
		"a": "a", "b\n": "b", "c\r\n": "c", "d\r\n\r\n": "d\r\n", "e\n\n": "e\n", "f\r": "f\r", "g\r\r\n": "g\r",
	} {
		call(t, "POST", c.Nodes[0].HTTP("/v1/rooms/lobby/messages"), body, "Content-Type", "text/plain; charset=utf-8")
		if m := p.Until("message"); m.Text != text {
			t.Errorf("%q became %q", body, m.Text)
		}
	}
	if status, _, _ := call(t, "POST", c.Nodes[0].HTTP("/v1/rooms/lobby/messages"), "\r\n", "Content-Type", "text/plain"); status != 400 {
		t.Errorf("nothing but a line break: %d", status)
	}
}
