package load

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"
)

// A relay is a small chat server that speaks both codecs and disturbs deliveries as a test wants.
type relay struct {
	// fault says what becomes of the n-th delivery; nil for no faults.
	fault func(n int) fault
	// refuse says whether the n-th send is answered with an error.
	refuse func(n int) bool
	// before is called with each message that comes in.
	before func(n int)

	pongs atomic.Int64

	mu         sync.Mutex
	rooms      map[string]map[*relayConn]bool // guarded by mu, as all that follows
	deliveries int
	sends      int
}

type fault string

const (
	none     fault = ""
	drop     fault = "drop"
	twice    fault = "twice"
	swap     fault = "swap"
	truncate fault = "truncate"
	hangUp   fault = "hang up"
)

type relayConn struct {
	ws   *websocket.Conn
	json bool
	held []byte // to be delivered after the next one
}

// serve starts the relay and returns its URL.
func (r *relay) serve(t *testing.T) string { return r.start(t, (*httptest.Server).Start) }

func (r *relay) start(t *testing.T, start func(*httptest.Server)) string {
	r.rooms = map[string]map[*relayConn]bool{}
	s := httptest.NewUnstartedServer(r)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	start(s)
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

func (r *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	upgrader := websocket.Upgrader{Subprotocols: []string{V1}, CheckOrigin: func(*http.Request) bool { return true }}
	ws, err := upgrader.Upgrade(w, req, nil)
	if err != nil {
		return
	}
	c := &relayConn{ws: ws, json: ws.Subprotocol() == V1}
	room := req.URL.Query().Get("room")
	if c.json {
		c.write(`{"op":"welcome","session":"x"}`)
		c.ws.WriteMessage(websocket.PingMessage, []byte("there?"))
		c.ws.SetPongHandler(func(text string) error { r.pongs.Add(1); return nil })
	} else {
		r.enter(room, c)
	}
	go func() {
		defer ws.Close()
		for {
			_, text, err := ws.ReadMessage()
			if err != nil {
				r.leave(c)
				return
			}
			if c.json {
				r.request(c, text)
			} else {
				r.say(room, c, text)
			}
		}
	}()
}

func (c *relayConn) write(text string) { c.ws.WriteMessage(websocket.TextMessage, []byte(text)) }

func (r *relay) enter(room string, c *relayConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rooms[room] == nil {
		r.rooms[room] = map[*relayConn]bool{}
	}
	r.rooms[room][c] = true
}

func (r *relay) leave(c *relayConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, members := range r.rooms {
		delete(members, c)
	}
}

func (r *relay) request(c *relayConn, text []byte) {
	var q struct {
		Op, Room, Text string
		Req            json.RawMessage
	}
	if json.Unmarshal(text, &q) != nil {
		return
	}
	if q.Op == "join" {
		r.enter(q.Room, c)
		r.mu.Lock()
		defer r.mu.Unlock()
		c.write(fmt.Sprintf(`{"op":"ok","req":%s,"room":%q,"members":[]}`, q.Req, q.Room))
		return
	}
	r.mu.Lock()
	r.sends++
	refused := r.refuse != nil && r.refuse(r.sends)
	if refused {
		c.write(fmt.Sprintf(`{"op":"error","req":%s,"code":"unavailable","message":"not now"}`, q.Req))
	} else {
		c.write(fmt.Sprintf(`{"op":"ok","req":%s,"id":"1-%d"}`, q.Req, r.sends))
	}
	r.mu.Unlock()
	if !refused {
		r.say(q.Room, c, fmt.Appendf(nil, `{"op":"message","room":%q,"id":"1-1","text":%q,"at":1}`, q.Room, q.Text))
	}
}

// say delivers to everyone in the room, but for the sender if it speaks plain text.
func (r *relay) say(room string, by *relayConn, text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.before != nil {
		r.before(r.deliveries)
	}
	for c := range r.rooms[room] {
		if c == by && !c.json {
			continue
		}
		r.deliveries++
		f := none
		if r.fault != nil {
			f = r.fault(r.deliveries)
		}
		switch f {
		case drop:
			continue
		case twice:
			c.write(string(text))
			c.write(string(text))
		case swap:
			if c.held == nil {
				c.held = text
				continue
			}
			c.write(string(text))
		case truncate:
			c.write(strings.Replace(string(text), "-.", "", 1))
		case hangUp:
			c.ws.Close()
		default:
			c.write(string(text))
		}
		if c.held != nil {
			c.write(string(c.held))
			c.held = nil
		}
	}
}
