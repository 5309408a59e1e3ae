package node_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// heard reads messages up to one that says so, and gives their texts.
func (s *stream) heard(last string) (texts []string) {
	s.t.Helper()
	for {
		if _, m := s.until(""); true {
			if texts = append(texts, m.Text); m.Text == last {
				return texts
			}
		}
	}
}

// A stream that is cut at any moment from its first answer on has a cursor to come back with, before anybody says anything.
func TestAStreamHasACursorFromTheFirstMoment(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2)
	p := nodetest.Dial(t, c.Nodes[1].URL("/"))
	for i, tt := range []struct {
		query   string
		said    int // before
		cutAt   string
		backlog []string // of who comes back
	}{
		{"", 0, "ok", nil},
		{"", 0, "live", nil},
		{"?limit=0", 0, "ok", nil},
		{"?limit=0", 3, "ok", nil},
		{"?limit=0", 3, "live", nil},
		{"?limit=2", 3, "ok", []string{"1", "2"}},
		{"?limit=2", 3, "live", nil},
		{"", 3, "ok", []string{"0", "1", "2"}},
		{"", 70, "live", nil},
		{"?since=0-0", 2, "ok", []string{"0", "1"}},
		{"?since=0-0", 2, "live", nil},
	} {
		t.Run(fmt.Sprint(tt.query, " after ", tt.said, " cut at ", tt.cutAt), func(t *testing.T) {
			room := fmt.Sprint("room", i)
			p.Join(room)
			for i := range tt.said {
				p.SendText(room, fmt.Sprint(i))
			}
			url := "/v1/rooms/" + room + "/events" + tt.query
			s := listen(t, c.Nodes[0].HTTP(url))
			e, _ := s.until(tt.cutAt)
			s.body.Close()
			p.SendText(room, "in silence")
			back := listen(t, c.Nodes[1].HTTP(url), "Last-Event-ID", e.id)
			if _, ok := back.until("ok"); ok.Recovered == nil || !*ok.Recovered {
				t.Errorf("come back with %q: %s", e.id, nodetest.Show(ok))
			}
			if texts := back.heard("in silence"); !slices.Equal(texts, append(tt.backlog, "in silence")) {
				t.Errorf("come back with %q, it heard %q", e.id, texts)
			}
		})
	}
}

// drains starts to shut a node down, which a client that does not answer the close keeps from ending.
func drains(t *testing.T, n *nodetest.Node) {
	t.Helper()
	holdOut := nodetest.Dial(t, n.URL("/"))
	stopped := make(chan error, 1)
	go func() { stopped <- n.Stop(context.Background()) }()
	t.Cleanup(func() { holdOut.Cut(); <-stopped })
	for n.Ready() == nil {
		time.Sleep(time.Millisecond)
	}
}

// EventSource gives up for good on any status but 200.
func TestADrainingNodeTellsAnEventSourceToComeBack(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	n := c.Nodes[0]
	proxied := func(trusted string) string {
		h := node.BehindProxies([]netip.Prefix{netip.MustParsePrefix(trusted)}, n.Handler(), slog.New(slog.DiscardHandler))
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL + "/v1/rooms/lobby/events"
	}
	trusted, untrusted := proxied("127.0.0.0/8"), proxied("10.0.0.0/8")
	s := listen(t, n.HTTP("/v1/rooms/lobby/events"))
	s.until("live")
	drains(t, n)
	wantBye(t, "connected", s)

	for name, url := range map[string]string{
		"direct": n.HTTP("/v1/rooms/lobby/events"), "through a proxy that nobody trusts": untrusted, "from beside a trusted proxy": trusted,
	} {
		s := listen(t, url)
		wantBye(t, name, s)
	}
	status, h, problem := call(t, "GET", trusted, "", "X-Forwarded-For", "203.0.113.7")
	if status != 503 || h.Get("Retry-After") == "" || problem["code"] != "unavailable" {
		t.Errorf("through a trusted proxy: %d %v %v", status, h, problem)
	}
}

// wantBye reads a stream to its end, which is a bye with retry.
func wantBye(t *testing.T, name string, s *stream) {
	t.Helper()
	b, err := io.ReadAll(s.lines)
	events := strings.Split(strings.TrimSuffix(string(b), "\n\n"), "\n\n")
	retry, bye, _ := strings.Cut(events[len(events)-1], "\n")
	data, isBye := strings.CutPrefix(bye, "event: bye\ndata: ")
	ms, bad := strconv.Atoi(strings.TrimPrefix(retry, "retry: "))
	f, _ := wire.ParseFrame([]byte(data))
	if err != nil || !isBye || bad != nil || ms < 1 || ms > 5000 || f.Close != wire.StatusRestart {
		t.Errorf("%s: %v, ends with %q", name, err, events[len(events)-1])
	}
}
