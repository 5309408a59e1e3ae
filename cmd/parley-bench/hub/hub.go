// Package hub is the plain chat server that ours is measured beside: a goroutine that reads and one that writes for each
// connection, and one for each room, which hands every message to the writers through channels. It is what one gets by
// following the examples of github.com/gorilla/websocket, done well, and keeps no promise: no log, no presence, nothing is acknowledged.
// Hubs that share a Redis relay through its pub/sub, as the example of github.com/redis/go-redis does.
package hub

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	queue        = 256 // messages that wait for one client; who has more is dropped
	maxMessage   = 64 << 10
	pingInterval = 54 * time.Second
	pongTimeout  = 60 * time.Second
	writeTimeout = 10 * time.Second
)

// A Hub is an http.Handler. What a client says in plain text goes to everyone else in its ?room=.
type Hub struct {
	mu       sync.Mutex
	rooms    map[string]*room // guarded by mu
	upgrader websocket.Upgrader
	relay    *relay // static; nil for a Hub on its own
}

// Serve serves a Hub until ctx is done. With the URL of a Redis it shares its rooms with others.
func Serve(ctx context.Context, ln net.Listener, redisURL string) error {
	h := &Hub{rooms: make(map[string]*room), upgrader: websocket.Upgrader{
		ReadBufferSize: 1024, WriteBufferSize: 1024, CheckOrigin: func(*http.Request) bool { return true },
	}}
	if redisURL != "" {
		var err error
		if h.relay, err = newRelay(ctx, redisURL); err != nil {
			return err
		}
		defer h.relay.close()
		go h.relay.run(h)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ServeHTTP serves one connection, and returns when both of its goroutines run.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := h.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // it has answered
	}
	name := r.URL.Query().Get("room")
	c := &client{id: rand.Text(), ws: ws, room: h.room(name), send: make(chan []byte, queue)}
	c.say = func(text []byte) { c.room.said <- said{c.id, text} }
	if h.relay != nil {
		c.say = func(text []byte) { h.relay.publish(name, c.id, text) }
	}
	c.room.enter <- c
	go c.write()
	go c.read()
}

// room returns the room of that name. Rooms stay, for simplicity's sake.
func (h *Hub) room(name string) *room {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[name]
	if r == nil {
		r = &room{
			clients: make(map[*client]bool), enter: make(chan *client), leave: make(chan *client), said: make(chan said),
		}
		h.rooms[name] = r
		go r.run()
		if h.relay != nil {
			h.relay.subscribe(name)
		}
	}
	return r
}

// A room is a goroutine that owns the set of its clients.
type room struct {
	clients map[*client]bool // owned by run
	enter   chan *client
	leave   chan *client
	said    chan said
}

type said struct {
	by   string // the client's id
	text []byte
}

func (r *room) run() {
	for {
		select {
		case c := <-r.enter:
			r.clients[c] = true
		case c := <-r.leave:
			r.drop(c)
		case m := <-r.said:
			for c := range r.clients {
				if c.id == m.by {
					continue
				}
				select {
				case c.send <- m.text:
				default:
					r.drop(c)
				}
			}
		}
	}
}

func (r *room) drop(c *client) {
	if r.clients[c] {
		delete(r.clients, c)
		close(c.send)
	}
}

type client struct {
	id   string
	ws   *websocket.Conn
	room *room
	say  func(text []byte)
	send chan []byte // closed by the room
}

func (c *client) read() {
	defer func() {
		c.room.leave <- c
		c.ws.Close()
	}()
	c.ws.SetReadLimit(maxMessage)
	c.ws.SetReadDeadline(time.Now().Add(pongTimeout))
	c.ws.SetPongHandler(func(string) error { return c.ws.SetReadDeadline(time.Now().Add(pongTimeout)) })
	for {
		_, text, err := c.ws.ReadMessage()
		if err != nil {
			return
		}
		c.say(text)
	}
}

func (c *client) write() {
	ping := time.NewTicker(pingInterval)
	defer ping.Stop()
	defer c.ws.Close()
	for {
		select {
		case text, ok := <-c.send:
			c.ws.SetWriteDeadline(time.Now().Add(writeTimeout))
			if !ok {
				c.ws.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if c.ws.WriteMessage(websocket.TextMessage, text) != nil {
				return
			}
		case <-ping.C:
			c.ws.SetWriteDeadline(time.Now().Add(writeTimeout))
			if c.ws.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}
