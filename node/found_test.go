package node_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/node"
	"parley/node/nodetest"
)

// A journal is a log that is read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

// find returns the first line with all parts, once there is one.
func (j *journal) find(t *testing.T, parts ...string) string {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		j.mu.Lock()
		text := j.text.String()
		j.mu.Unlock()
	lines:
		for line := range strings.Lines(text) {
			for _, part := range parts {
				if !strings.Contains(line, part) {
					continue lines
				}
			}
			return line
		}
		if time.Now().After(deadline) {
			t.Fatalf("no line has %q:\n%s", parts, text)
		}
	}
}

// value is what a line says of a name.
func value(line, name string) string {
	_, rest, _ := strings.Cut(line, " "+name+"=")
	v, _, _ := strings.Cut(rest, " ")
	return strings.TrimSpace(v)
}

// Who asks why something happened to a client finds its connection by the id that the client was answered, and what became of it.
func TestWhatHappensToClientsIsFoundInTheLog(t *testing.T) {
	t.Parallel()
	log, w := new(journal), newWatch()
	logged := func(cfg *node.Config) {
		cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c := nodetest.StartNarrow(t, 1, logged, func(cfg *node.Config) {
		cfg.Observer = w
		cfg.QueueBytes = 128 << 10
		cfg.Limits.AddressRequests = 1
		cfg.Origins = []string{"https://chat.example"}
	})
	front := httptest.NewServer(node.BehindProxies(nil, c.Nodes[0].Handler(), slog.New(slog.DiscardHandler)))
	defer front.Close()

	one, res, err := websocket.Dial(t.Context(), front.URL, &websocket.DialOptions{Subprotocols: []string{"parley.v1"}})
	if err != nil {
		t.Fatal(err)
	}
	came := log.find(t, "msg=connected", "request="+res.Header.Get("X-Request-Id")+" ", "codec=json", "user=guest-")
	one.Close(websocket.StatusNormalClosure, "")
	log.find(t, "msg=closed", "conn="+value(came, "conn")+" ", "from="+value(came, "from")+" ", "code=1000")

	_, res, err = websocket.Dial(t.Context(), front.URL, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://other.example"}}})
	if err == nil {
		t.Fatal("a page of another origin may connect")
	}
	log.find(t, "msg=refused", "request="+res.Header.Get("X-Request-Id")+" ", "from=127.0.0.1:", "code=forbidden")

	for res.StatusCode != http.StatusTooManyRequests {
		if res, err = http.Get(front.URL + "/v1/rooms/lobby/members"); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	log.find(t, "msg=flooded", "request="+res.Header.Get("X-Request-Id")+" ", "path=/v1/rooms/lobby/members", "code=rate_limited")

	slow := nodetest.Dial(t, c.Nodes[0].URL("/"))
	slow.Narrow()
	slow.Join("hall")
	user := slow.Welcome.User.ID
	came = log.find(t, "msg=connected", "user="+user+" ")
	sender := nodetest.Dial(t, c.Nodes[0].URL("/"))
	sender.Join("hall")
	for pad := strings.Repeat("x", 4000); w.count("overflowed") == 0; {
		sender.SendText("hall", pad)
	}
	log.find(t, "msg=slow", "conn="+value(came, "conn")+" ", "user="+user+" ", "room=hall")

	strict := nodetest.Start(t, 1, logged, func(cfg *node.Config) { cfg.Limits.Messages, cfg.Limits.MessageBurst = 1, 1 })
	flood := nodetest.Dial(t, strict.Nodes[0].URL("/"))
	came = log.find(t, "msg=connected", "user="+flood.Welcome.User.ID+" ")
	for range 3 {
		flood.Say(`{"op":"ping"}`)
	}
	flood.Say(`{"op":"members","room":"hall"}`)
	log.find(t, "msg=flooded", "conn="+value(came, "conn")+" ", "code=rate_limited")
}
