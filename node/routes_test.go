package node_test

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

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
	rows := rowsOfRoutes(t)
	c := nodetest.Start(t, 1, withTokens, func(cfg *node.Config) { cfg.Origins = []string{"good.example"} })
	n := c.Nodes[0]
	paths := map[string]string{
		"/v1/events/{stream}": "/v1/events/00000000aaaaaaaaaaaaaaaaaaaaaa", "/v1/rooms/{room}/events": "/v1/rooms/a/events",
		"/v1/rooms/{room}/messages": "/v1/rooms/a/messages", "/v1/rooms/{room}/members": "/v1/rooms/a/members",
	}
	ask := func(method, path, body string, header ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(method, n.HTTP(path), strings.NewReader(body))
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
		if resp.Header.Get("Content-Type") == "text/event-stream" && method == "GET" {
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
	for route, cells := range rows {
		if route == "/ws" {
			continue
		}
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
	seen := map[string][]string{}
	for _, tt := range []struct {
		status              int
		route, method, path string
		body                string
		header              []string
	}{
		{400, "/", "GET", "/?room=", "", upgrade},
		{403, "/", "GET", "/", "", append([]string{"Origin", "http://bad.example"}, upgrade...)},
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
		{413, "/v1/events/{stream}", "POST", "", strings.Repeat("a", 70_000), nil},
		{400, "/v1/rooms/{room}/events", "GET", "/v1/rooms/a/events?limit=x", "", nil},
		{401, "/v1/rooms/{room}/events", "GET", "/v1/rooms/a/events?token=x", "", nil},
		{201, "/v1/rooms/{room}/messages", "POST", "", `{"text":"x"}`, session},
		{409, "/v1/rooms/{room}/messages", "POST", "", `{"text":"y"}`, session},
		{400, "/v1/rooms/{room}/messages", "POST", "", `{"text":"x"}`, []string{"Idempotency-Key", "k"}},
		{413, "/v1/rooms/{room}/messages", "POST", "", `{"text":"` + strings.Repeat("a", 5000) + `"}`, nil},
		{415, "/v1/rooms/{room}/messages", "POST", "", `<x/>`, []string{"Content-Type", "text/xml"}},
		{401, "/v1/rooms/{room}/members", "GET", "", "", []string{"Authorization", "x"}},
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
	for route, statuses := range seen {
		cells := strings.Join(rows[route][2:], " ")
		for _, status := range slices.Compact(statuses) {
			if !strings.Contains(cells, status) {
				t.Errorf("the table does not say that %s answers %s", route, status)
			}
		}
	}
}
