package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"parley/bus/id"
	"parley/cmd/parley-faults/judge"
)

// A plainVoice speaks parley.v1 as node/wire's README describes it, and shares no code with the client for Go.
type plainVoice struct {
	m       *member
	joined  chan struct{} // closed once it is in the room
	closing chan struct{}
	ended   chan struct{}
	reading sync.Mutex // held while it does not read

	writing sync.Mutex // held while a frame is written

	mu      sync.Mutex
	conn    *websocket.Conn // guarded by mu; nil while there is none
	in      bool            // guarded by mu; the room lets it in over conn
	since   string          // guarded by mu; "" before it was in the room
	session string          // guarded by mu
	id      string          // guarded by mu; its user's
	key     string          // guarded by mu; keys begin with it
	count   int             // guarded by mu; of keys
	hungUp  error           // guarded by mu; why it ended conn itself
	lines   []*line         // guarded by mu; what is not acknowledged, in order
	open    int             // guarded by mu; how many of them were sent over conn and have no answer
	held    bool            // guarded by mu; something was refused: wait until nothing is open, and begin at the first
}

// A line is what is said.
type line struct {
	key, text string
	open      bool
	done      func(id.ID, error)
}

// A said is what a node says.
type said struct {
	Op, Req, Room, Event, Message, Session, Text string
	Code                                         any // a word, or a number
	ID, Last, After                              string
	User                                         struct{ ID string }
	Members                                      []struct{ ID string }
	Recovered                                    *bool
	RetryAfter                                   int `json:"retry_after"`
	Ping                                         int
}

var errLeft = errors.New("the client was closed")

func enterPlain(ctx context.Context, m *member) (voice, error) {
	v := &plainVoice{
		m: m, key: rand.Text(),
		joined: make(chan struct{}), closing: make(chan struct{}), ended: make(chan struct{}),
	}
	go v.run()
	select {
	case <-v.joined:
		return v, nil
	case <-ctx.Done():
		v.close()
		return nil, ctx.Err()
	}
}

// awaitReading waits while it is to read nothing.
func (v *plainVoice) awaitReading() {
	v.reading.Lock()
	defer v.reading.Unlock()
}

func (v *plainVoice) user() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.id
}

func (v *plainVoice) read(on bool) {
	if on {
		v.reading.Unlock()
	} else {
		v.reading.Lock()
	}
}

func (v *plainVoice) close() {
	v.mu.Lock()
	close(v.closing)
	if v.conn != nil {
		v.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
		v.conn.Close()
	}
	v.mu.Unlock()
	<-v.ended
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, l := range v.lines {
		l.done(id.ID{}, errLeft)
	}
	v.lines = nil
}

func (v *plainVoice) closed() bool {
	select {
	case <-v.closing:
		return true
	default:
		return false
	}
}

// run connects again and again.
func (v *plainVoice) run() {
	defer close(v.ended)
	for !v.closed() {
		v.m.tellUp(false, v.connect())
		select {
		case <-time.After(100*time.Millisecond + mathrand.N(500*time.Millisecond)):
		case <-v.closing:
		}
	}
}

// connect speaks over one connection until it breaks, and says why it did.
func (v *plainVoice) connect() error {
	d := websocket.Dialer{NetDialContext: v.m.route.dial, HandshakeTimeout: 10 * time.Second, Subprotocols: []string{"parley.v1"}}
	conn, _, err := d.Dial("ws://parley/ws", nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	alive := func() { conn.SetReadDeadline(time.Now().Add(60 * time.Second)) }
	alive()
	answerPing := conn.PingHandler()
	conn.SetPingHandler(func(data string) error {
		alive()
		return answerPing(data)
	})
	var f said
	if err := conn.ReadJSON(&f); err != nil || f.Op != "welcome" {
		return fmt.Errorf("no welcome: %w", err)
	}
	v.mu.Lock()
	v.conn, v.in, v.open, v.held, v.hungUp = conn, false, 0, false, nil
	for _, l := range v.lines {
		l.open = false
	}
	session, since := v.session, v.since
	if v.closed() {
		conn.Close()
	}
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.conn, v.in = nil, false
	}()
	v.m.tellUp(true, nil)
	if session != "" {
		v.write(conn, map[string]any{"op": "hello", "session": session})
	} else {
		v.welcome(f)
	}
	join := map[string]any{"op": "join", "req": "join", "room": v.m.room}
	if since != "" {
		join["since"] = since
	} else {
		join["limit"] = 0
	}
	v.write(conn, join)
	for {
		v.awaitReading()
		var f said
		if err := conn.ReadJSON(&f); err != nil {
			return v.whyEnded(err)
		}
		alive()
		v.take(conn, &f, since)
	}
}

func (v *plainVoice) write(conn *websocket.Conn, frame any) {
	v.writing.Lock()
	defer v.writing.Unlock()
	v.writeLocked(conn, frame)
}

// writeLocked reports whether the frame was written. If it was not, what the node said last is read before the connection ends:
// it may be why.
func (v *plainVoice) writeLocked(conn *websocket.Conn, frame any) bool {
	conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if conn.WriteJSON(frame) == nil {
		return true
	}
	conn.SetReadDeadline(time.Now().Add(time.Second))
	return false
}

var (
	errHungUp      = errors.New("the client hung up")
	errJoinRefused = fmt.Errorf("%w: its join was refused", errHungUp)
	errRoomLost    = fmt.Errorf("%w: its room was lost", errHungUp)
)

// hangUp ends a connection whose node refuses what it must not do without. It comes back over another one.
func (v *plainVoice) hangUp(conn *websocket.Conn, why error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hangUpLocked(conn, why)
}

func (v *plainVoice) hangUpLocked(conn *websocket.Conn, why error) {
	v.hungUp = why
	conn.Close()
}

func (v *plainVoice) whyEnded(err error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.hungUp != nil {
		return v.hungUp
	}
	return err
}

func (v *plainVoice) welcome(f said) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.session, v.id = f.Session, f.User.ID
}

func (v *plainVoice) take(conn *websocket.Conn, f *said, since string) {
	switch {
	case f.Op == "welcome":
		v.welcome(*f)
	case f.Req == "join" && f.Op == "ok":
		v.enter(conn, f, since)
	case f.Req == "join": // later, over another connection
		v.m.trial.refusal(fmt.Sprint("join: ", f.Code))
		v.hangUp(conn, fmt.Errorf("%w: %v", errJoinRefused, f.Code))
	case strings.HasPrefix(f.Req, "k"):
		v.answer(conn, f)
	case f.Op == "message":
		v.went(f.ID)
		v.m.tell(judge.Event{Kind: judge.Message, ID: parseID(f.ID), Words: parseWords(f.Text)})
	case f.Op == "gap":
		v.went(cmp.Or(f.Last, f.After)) // an older node does not say the last
		v.m.tell(judge.Event{Kind: judge.Gap, ID: parseID(f.After)})
	case f.Op == "live":
		v.m.tell(judge.Event{Kind: judge.Live})
	case f.Op == "presence":
		switch f.Event {
		case "join":
			v.m.tellMembers(nil, f.User.ID, "")
		case "leave":
			v.m.tellMembers(nil, "", f.User.ID)
		case "sync":
			v.m.tellMembers(f.users(), "", "")
		}
	}
}

func (f *said) users() []string {
	var ids []string
	for _, m := range f.Members {
		ids = append(ids, m.ID)
	}
	return ids
}

// went notes where to go on.
func (v *plainVoice) went(to string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.since = to
}

// enter takes the answer to a join.
func (v *plainVoice) enter(conn *websocket.Conn, f *said, since string) {
	e := judge.Event{Kind: judge.Joined, ID: parseID(f.Last), Recovered: f.Recovered, Asked: v.m.route.connected()}
	if since != "" {
		i := parseID(since)
		e.Since = &i
	}
	v.m.tell(e)
	v.m.tellMembers(f.users(), "", "")
	v.mu.Lock()
	first := v.since == ""
	if first {
		v.since = f.Last
	}
	v.in = true
	v.mu.Unlock()
	if first {
		close(v.joined)
	}
	v.pump(conn)
}

func (v *plainVoice) say(text string, done func(id.ID, error)) {
	v.mu.Lock()
	if v.closed() {
		v.mu.Unlock()
		done(id.ID{}, errLeft)
		return
	}
	v.count++
	v.lines = append(v.lines, &line{key: fmt.Sprint(v.key, v.count), text: text, done: done})
	conn := v.conn
	v.mu.Unlock()
	if conn != nil {
		v.pump(conn)
	}
}

// pump sends what was not sent over this connection, in order.
func (v *plainVoice) pump(conn *websocket.Conn) {
	v.writing.Lock()
	defer v.writing.Unlock()
	v.mu.Lock()
	var frames []map[string]any
	if v.conn == conn && v.in && !v.held {
		for _, l := range v.lines {
			if !l.open {
				l.open = true
				v.open++
				frames = append(frames, map[string]any{"op": "send", "req": "k" + l.key, "room": v.m.room, "text": l.text, "key": l.key})
			}
		}
	}
	v.mu.Unlock()
	for _, f := range frames {
		if !v.writeLocked(conn, f) {
			return
		}
	}
}

// answer takes the answer to what was said.
func (v *plainVoice) answer(conn *websocket.Conn, f *said) {
	v.mu.Lock()
	defer v.mu.Unlock()
	key := f.Req[1:]
	for i, l := range v.lines {
		if l.key != key || !l.open {
			continue
		}
		l.open = false
		v.open--
		switch {
		case f.Op == "ok":
			v.lines = append(v.lines[:i:i], v.lines[i+1:]...)
			l.done(parseID(f.ID), nil)
		case f.Code == "unavailable" || f.Code == "rate_limited":
			v.held = true
			v.m.trial.refusal(fmt.Sprint(f.Code))
		case f.Code == "not_joined":
			v.hangUpLocked(conn, errRoomLost)
		default:
			v.lines = append(v.lines[:i:i], v.lines[i+1:]...)
			l.done(id.ID{}, fmt.Errorf("%v: %s", f.Code, f.Message))
		}
		break
	}
	if v.held && v.open == 0 {
		wait := time.Duration(f.RetryAfter)*time.Millisecond + 200*time.Millisecond + mathrand.N(400*time.Millisecond)
		time.AfterFunc(wait, func() {
			v.mu.Lock()
			again := v.conn == conn && v.open == 0
			if again {
				v.held = false
			}
			v.mu.Unlock()
			if again {
				v.pump(conn)
			}
		})
	}
}

func parseID(s string) (i id.ID) {
	fmt.Sscanf(s, "%d-%d", &i.Ms, &i.Seq)
	return i
}
