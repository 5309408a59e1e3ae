package node_test

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
)

// rowsOfRoutes reads the table of routes in the wire's document.
func rowsOfRoutes(t *testing.T) map[string][]string {
	text, err := os.ReadFile("wire/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "| route | methods | answers | errors |\n")
	if !ok {
		t.Fatal("wire/README.md has no table of routes")
	}
	rows := map[string][]string{}
	lines := bufio.NewScanner(strings.NewReader(rest))
	for lines.Scan(); lines.Scan() && strings.HasPrefix(lines.Text(), "| `"); {
		cells := strings.Split(lines.Text(), " | ")
		rows[strings.Split(cells[0], "`")[1]] = cells
	}
	return rows
}

// The document's table is what the node answers: requests over HTTP/1.1, none with a body that is no answer.
func TestRoutesAnswerAsTheTableSays(t *testing.T) {
	t.Parallel()
	rows := rowsOfRoutes(t)
	c := nodetest.Start(t, 1, withTokens, func(cfg *node.Config) { cfg.Origins = []string{"good.example"} })
	n := c.Nodes[0]
	paths := map[string]string{
		"/v1/events/{stream}": "/v1/events/00000000aaaaaaaaaaaaaaaaaaaaaa", "/v1/rooms/{room}/events": "/v1/rooms/a/events",
		"/v1/rooms/{room}/messages": "/v1/rooms/a/messages", "/v1/rooms/{room}/members": "/v1/rooms/a/members",
	}
	base := n.HTTP("")
	ask := func(method, path, body string, header ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode == 101 || resp.Header.Get("Content-Type") == "text/event-stream" && method == "GET" {
			return resp, ""
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Errorf("%s %s: %v", method, path, err)
		}
		if resp.StatusCode >= 400 && resp.StatusCode != 416 && method != "HEAD" {
			if kind := resp.Header.Get("Content-Type"); kind != "application/problem+json" || !strings.Contains(string(b), `"status":`+strconv.Itoa(resp.StatusCode)) {
				t.Errorf("%s %s: %s is %s: %s", method, path, resp.Status, kind, b)
			}
		}
		return resp, string(b)
	}
	seen := map[string][]string{}
	for route, cells := range rows {
		if route == "/ws" {
			continue
		}
		seen[route] = append(seen[route], "405")
		path := route
		if p, ok := paths[route]; ok {
			path = p
		}
		resp, _ := ask("OPTIONS", path, "")
		if allow := resp.Header.Get("Allow"); resp.StatusCode != 204 || allow != cells[1] {
			t.Errorf("OPTIONS %s: %s, %q is allowed, not %q", path, resp.Status, allow, cells[1])
		}
		resp, _ = ask("DELETE", path, "")
		if allow := resp.Header.Get("Allow"); resp.StatusCode != 405 || allow != cells[1] {
			t.Errorf("DELETE %s: %s, %q is allowed, not %q", path, resp.Status, allow, cells[1])
		}
		if !strings.Contains(cells[1], "GET") {
			continue
		}
		get, _ := ask("GET", path, "")
		head, body := ask("HEAD", path, "")
		for _, name := range []string{"Content-Type", "Content-Length", "ETag", "Cache-Control"} {
			if g, h := get.Header.Get(name), head.Header.Get(name); g != h {
				t.Errorf("HEAD %s has %s %q, and GET %q", path, name, h, g)
			}
		}
		if get.StatusCode != 200 || head.StatusCode != 200 || body != "" {
			t.Errorf("GET and HEAD %s: %s, %s with %q", path, get.Status, head.Status, body)
		}
		if tag := get.Header.Get("ETag"); tag != "" {
			for _, asked := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
				resp, body := ask("GET", path, "", "If-None-Match", asked)
				if resp.StatusCode != 304 || body != "" || resp.Header.Get("ETag") != tag {
					t.Errorf("%s with If-None-Match %s: %s", path, asked, resp.Status)
				}
			}
			if resp, _ := ask("GET", path, "", "If-None-Match", `"x"`); resp.StatusCode != 200 {
				t.Errorf("%s with another tag: %s", path, resp.Status)
			}
		}
	}

	session := []string{"Parley-Session", newSession(), "Idempotency-Key", "k"}
	bad := append([]string{"Origin", "http://bad.example"}, upgrade...)
	for _, tt := range []struct {
		status              int
		route, method, path string
		body                string
		header              []string
	}{
		{400, "/", "GET", "/?room=", "", upgrade},
		{401, "/", "GET", "/", "", append([]string{"Authorization", "x"}, upgrade...)},
		{401, "/ws", "GET", "/ws", "", append([]string{"Authorization", "x"}, upgrade...)},
		{403, "/", "GET", "/", "", bad},
		{403, "/ws", "GET", "/ws", "", bad},
		{426, "/ws", "GET", "/ws", "", nil},
		{400, "/ws", "GET", "/ws?name=%00", "", upgrade},
		{405, "/ws", "POST", "/ws", "", upgrade},
		{206, "/parley.js", "GET", "/parley.js", "", []string{"Range", "bytes=0-9"}},
		{206, "/parley.js", "GET", "/parley.js", "", []string{"Range", "bytes=0-9", "Accept-Encoding", "gzip"}},
		{416, "/parley.js", "GET", "/parley.js", "", []string{"Range", "bytes=9999999-"}},
		{404, "/parley.js", "GET", "/nothing.js", "", nil},
		{400, "/v1/events", "GET", "/v1/events?room=a&since=x", "", nil},
		{400, "/v1/events", "GET", "/v1/events?room=", "", nil},
		{401, "/v1/events", "GET", "/v1/events", "", []string{"Authorization", "Basic x"}},
		{403, "/v1/events", "GET", "/v1/events", "", []string{"Origin", "http://bad.example"}},
		{413, "/v1/events", "GET", "/v1/events?since=" + strings.Repeat("a", 5000), "", nil},
		{400, "/v1/events/{stream}", "POST", "", `{"op":"ping"}`, nil},
		{404, "/v1/events/{stream}", "POST", "/v1/events/x", `{"op":"leave","room":"a"}`, nil},
		{403, "/v1/events/{stream}", "POST", "", `{"op":"leave","room":"a"}`, bad[:2]},
		{413, "/v1/events/{stream}", "POST", "", strings.Repeat("a", 70_000), nil},
		{400, "/v1/rooms/{room}/events", "GET", "/v1/rooms/a/events?limit=x", "", nil},
		{403, "/v1/rooms/{room}/events", "GET", "", "", bad[:2]},
		{401, "/v1/rooms/{room}/events", "GET", "/v1/rooms/a/events?token=x", "", nil},
		{201, "/v1/rooms/{room}/messages", "POST", "", `{"text":"x"}`, session},
		{409, "/v1/rooms/{room}/messages", "POST", "", `{"text":"y"}`, session},
		{400, "/v1/rooms/{room}/messages", "POST", "", `{"text":"x"}`, []string{"Idempotency-Key", "k"}},
		{413, "/v1/rooms/{room}/messages", "POST", "", `{"text":"` + strings.Repeat("a", 5000) + `"}`, nil},
		{415, "/v1/rooms/{room}/messages", "POST", "", `<x/>`, []string{"Content-Type", "text/xml"}},
		{401, "/v1/rooms/{room}/messages", "GET", "", "", []string{"Authorization", "x"}},
		{403, "/v1/rooms/{room}/messages", "GET", "", "", bad[:2]},
		{401, "/v1/rooms/{room}/members", "GET", "", "", []string{"Authorization", "x"}},
		{400, "/v1/rooms/{room}/members", "GET", "/v1/rooms/%00/members", "", nil},
		{403, "/v1/rooms/{room}/members", "GET", "", "", bad[:2]},
		{404, "", "GET", "/v1/nothing", "", nil},
		{404, "", "POST", "/nothing", "", nil},
	} {
		path := tt.path
		if path == "" {
			path = paths[tt.route]
		}
		if resp, body := ask(tt.method, path, tt.body, tt.header...); resp.StatusCode != tt.status {
			t.Errorf("%s %.60s %v: %s, want %d: %s", tt.method, path, tt.header, resp.Status, tt.status, body)
		}
		if tt.route != "" {
			seen[tt.route] = append(seen[tt.route], strconv.Itoa(tt.status))
		}
	}

	// What comes of limits, a drain and a bus that is away says when to come again.
	limited := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Limits = node.Limits{AddressRequests: 1, AddressAttempts: 1} })
	draining := nodetest.Start(t, 1).Nodes[0]
	proxy := httptest.NewServer(node.BehindProxies([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, draining.Handler(), slog.New(slog.DiscardHandler)))
	t.Cleanup(proxy.Close)
	drains(t, draining)
	away := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus = deadBus{cfg.Bus} })
	const elsewhere = "/v1/events/fffffffeaaaaaaaaaaaaaaaaaaaaaa"
	proxied := []string{"X-Forwarded-For", "203.0.113.7"}
	for _, tt := range []struct {
		base                string
		status              int
		route, method, path string
		body                string
		header              []string
	}{
		{proxy.URL, 503, "/v1/events", "GET", "", "", proxied},
		{proxy.URL, 503, "/v1/rooms/{room}/events", "GET", "", "", proxied},
		{draining.HTTP(""), 503, "/", "GET", "/", "", upgrade},
		{draining.HTTP(""), 503, "/ws", "GET", "/ws", "", upgrade},
		{draining.HTTP(""), 503, "/readyz", "GET", "/readyz", "", nil},
		{limited.Nodes[0].HTTP(""), 429, "/", "GET", "/", "", upgrade},
		{limited.Nodes[0].HTTP(""), 429, "/ws", "GET", "/ws", "", upgrade},
		{limited.Nodes[0].HTTP(""), 429, "/v1/events/{stream}", "POST", "", `{"op":"leave","room":"a"}`, nil},
		{limited.Nodes[0].HTTP(""), 429, "/v1/rooms/{room}/messages", "GET", "", "", nil},
		{limited.Nodes[0].HTTP(""), 429, "/v1/rooms/{room}/messages", "POST", "", `{"text":"x"}`, nil},
		{limited.Nodes[0].HTTP(""), 429, "/v1/rooms/{room}/members", "GET", "", "", nil},
		{away.Nodes[0].HTTP(""), 503, "/v1/events/{stream}", "POST", elsewhere, `{"op":"leave","room":"a"}`, nil},
		{away.Nodes[0].HTTP(""), 503, "/v1/rooms/{room}/messages", "GET", "", "", nil},
		{away.Nodes[0].HTTP(""), 503, "/v1/rooms/{room}/messages", "POST", "", `{"text":"x"}`, nil},
		{away.Nodes[0].HTTP(""), 503, "/v1/rooms/{room}/members", "GET", "", "", nil},
	} {
		base = tt.base
		path := tt.path
		if path == "" {
			path = cmp.Or(paths[tt.route], tt.route)
		}
		resp, body := ask(tt.method, path, tt.body, tt.header...)
		for try := 0; tt.status == 429 && resp.StatusCode != 429 && try < 200; try++ { // a slow machine gives one a second
			resp, body = ask(tt.method, path, tt.body, tt.header...)
		}
		if wait, _ := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != tt.status || wait < 1 && tt.route != "/readyz" {
			t.Errorf("%s %s: %s, Retry-After: %q, want %d: %s", tt.method, path, resp.Status, resp.Header.Get("Retry-After"), tt.status, body)
		}
		seen[tt.route] = append(seen[tt.route], strconv.Itoa(tt.status))
	}

	for route, cells := range rows {
		for _, status := range seen[route] {
			if !strings.Contains(cells[2]+cells[3], status) {
				t.Errorf("the table does not say that %s answers %s", route, status)
			}
		}
		for _, status := range regexp.MustCompile(`\d+`).FindAllString(cells[3], -1) {
			if !slices.Contains(seen[route], status) {
				t.Errorf("the table says that %s answers %s: no request here has seen it", route, status)
			}
		}
	}
}

// deadBus is one that says at once that it is away.
type deadBus struct{ bus.Bus }

func (deadBus) Subscribe(context.Context, string, bus.Sink) (bus.Subscription, error) {
	return nil, bus.ErrUnavailable
}

func (deadBus) Before(context.Context, string, bus.ID, int, int) (bus.Page, error) {
	return bus.Page{}, bus.ErrUnavailable
}

func (deadBus) Roster(context.Context, string) (bus.Roster, error) {
	return bus.Roster{}, bus.ErrUnavailable
}

func (deadBus) Rooms(context.Context) ([]string, error) { return nil, bus.ErrUnavailable }

func (deadBus) Post(context.Context, string, time.Time) error { return bus.ErrUnavailable }

func (deadBus) Signal(_ string, _ []byte, done func(error)) { done(bus.ErrUnavailable) }
