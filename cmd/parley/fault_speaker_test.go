package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"parley/node/client"
)

// A speaker is a member of one room of a trial, with a client of its own. It writes down what it hears.
type speaker struct {
	*client.Client
	trial  *trial       // static
	number int          // static
	name   string       // static; its room's
	room   *client.Room // static
	route  *route       // static

	urge  chan struct{} // static; capacity 1: talk is to say much, now
	said  int           // owned by talk
	heard []happening   // owned by hear, until the client is closed
	last  chan struct{} // closed by hear at the last words of the room

	node string // guarded by trial.mu; that it is connected to, "" without a connection
}

// lastWords is the number of what is said in a room when nothing follows.
const lastWords = 1 << 30

// enter connects a speaker and makes it a member of its room.
func (s *speaker) enter(ctx context.Context) (err error) {
	s.Client, err = client.Dial(ctx, "ws://parley", client.Options{
		Status:     s.note,
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: s.route.dial}},
		MaxBackoff: 2 * time.Second,
	})
	if err != nil {
		return err
	}
	s.room, err = s.Join(ctx, s.name, client.JoinOptions{Limit: new(int), Handle: s.hear})
	return err
}

// talk says something now and then, some of it in a burst.
func (s *speaker) talk(ctx context.Context) {
	for {
		n := 1 + rand.N(3)
		select {
		case <-time.After(rand.N(2 * s.trial.pause)):
		case <-s.urge:
			n = 5
		case <-ctx.Done():
			return
		}
		for range n {
			s.say(words{s.number, s.said})
			s.said++
		}
	}
}

func (s *speaker) say(w words) {
	began := time.Now()
	s.trial.asked()
	s.room.SendAsync(client.Draft{Text: fmt.Sprintf("%d/%d", w.sender, w.n)}, func(id client.ID, err error) {
		s.trial.answered(s, w, id, err, time.Since(began))
	})
}

func (s *speaker) hear(e client.Event) {
	switch e := e.(type) {
	case client.Message:
		w := parseWords(e.Text)
		s.heard = append(s.heard, happening{words: w, id: e.ID})
		if w.n == lastWords {
			select {
			case <-s.last:
			default:
				close(s.last)
			}
		}
	case client.Gap:
		s.heard = append(s.heard, happening{id: e.After, gap: true})
	}
}

// parseWords gives words that nobody said for what it does not understand.
func parseWords(text string) words {
	sender, n, _ := strings.Cut(text, "/")
	i, err1 := strconv.Atoi(sender)
	j, err2 := strconv.Atoi(n)
	if err1 != nil || err2 != nil {
		return words{-1, -1}
	}
	return words{i, j}
}

// A loss is a connection that a speaker lost.
type loss struct {
	speaker *speaker
	err     error
	back    time.Time // when the speaker is to try again
}

func (s *speaker) note(status client.Status) {
	t := s.trial
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.node != "" && !status.Up {
		t.losses = append(t.losses, loss{s, status.Err, time.Now().Add(status.Retry)})
	}
	s.node = status.Node
	t.changed.Broadcast()
}

// A route takes a speaker to a node: home first, and to the next one whenever it has to connect again.
type route struct {
	stations []*station // static; home first

	mu     sync.Mutex
	next   int      // guarded by mu; to be tried
	conn   net.Conn // guarded by mu; the newest
	closed bool     // guarded by mu; it leads nowhere
}

var (
	errRouteClosed = errors.New("the route is closed")
	errNodeDown    = errors.New("the node is down")
)

func (r *route) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	r.mu.Lock()
	to := r.stations[r.next]
	r.next = (r.next + 1) % len(r.stations)
	r.mu.Unlock()
	addr := to.addr.Load()
	if addr == nil {
		return nil, errNodeDown
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", *addr)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		conn.Close()
		return nil, errRouteClosed
	}
	r.conn = conn
	return conn, nil
}

// cut breaks the connection. The speaker goes home next.
func (r *route) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = 0
	if r.conn != nil {
		r.conn.Close()
	}
}

// close breaks the connection and lets none be made until open.
func (r *route) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cut()
}

func (r *route) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = false
}
