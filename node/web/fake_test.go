package web_test

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/node/web"
	"parley/node/wire"
)

var discardLog = log.New(io.Discard, "", 0)

// A request is what a client said.
type request struct {
	Op, Room, Text, Key, Since, Name, Token string
	Named                                   int64
	Req                                     json.RawMessage
}

// A fake is a node that answers what a test wants it to, which a true one does too seldom.
type fake struct {
	URL string

	mu    sync.Mutex
	said  []request // guarded by mu
	conns int       // guarded by mu; that were made
}

// newFake answers hello and join like a node, and everything else with answer. %REQ% in an answer is the request's number; a
// frame such as "close 1012 reason" ends the connection.
func newFake(t *testing.T, answer func(r request, nth int) []string) *fake {
	t.Helper()
	f := &fake{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			web.Handler().ServeHTTP(w, r)
			return
		}
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{wire.Subprotocol}, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer ws.CloseNow()
		f.mu.Lock()
		f.conns++
		f.mu.Unlock()
		say := func(frame string) { ws.Write(r.Context(), websocket.MessageText, []byte(frame)) }
		const welcome = `"op":"welcome","user":{"id":"guest-1","name":"","guest":true},"session":"s","ping":25,"limits":{"text":4096,"frame":65536}}`
		say("{" + welcome)
		for {
			_, b, err := ws.Read(r.Context())
			if err != nil {
				return
			}
			var q request
			json.Unmarshal(b, &q)
			nth := f.note(q)
			answers := []string{`{"op":"ok","req":%REQ%}`}
			switch q.Op {
			case "hello":
				answers = []string{`{"req":%REQ%,` + welcome}
			case "join":
				answers = []string{
					`{"op":"ok","req":%REQ%,"room":"design","last":"5-0","members":[],"count":0}`,
					`{"op":"live","room":"design"}`,
				}
			}
			if own := answer(q, nth); own != nil {
				answers = own
			}
			for _, frame := range answers {
				if rest, ok := strings.CutPrefix(frame, "close "); ok {
					code, reason, _ := strings.Cut(rest, " ")
					status, _ := strconv.Atoi(code)
					ws.Close(websocket.StatusCode(status), reason)
					return
				}
				say(strings.ReplaceAll(frame, "%REQ%", string(q.Req)))
			}
		}
	}))
	t.Cleanup(s.Close)
	f.URL = s.URL
	return f
}

// note counts the requests of an op.
func (f *fake) note(q request) (nth int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, earlier := range f.said {
		if earlier.Op == q.Op {
			nth++
		}
	}
	f.said = append(f.said, q)
	return nth
}

func (f *fake) sends() (texts, keys []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range f.said {
		if q.Op == "send" {
			texts, keys = append(texts, q.Text), append(keys, q.Key)
		}
	}
	return texts, keys
}

// tokens are those that were brought, in order.
func (f *fake) tokens() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range f.said {
		if q.Op == "hello" {
			all = append(all, q.Token)
		}
	}
	return all
}

// connections is how many WebSockets were opened.
func (f *fake) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns
}

// count is how many requests of an op were said.
func (f *fake) count(op string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range f.said {
		if q.Op == op {
			n++
		}
	}
	return n
}

// until waits until so many requests of an op were said.
func (f *fake) until(t *testing.T, op string, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); f.count(op) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests %q, want %d", f.count(op), op, n)
		}
	}
}
