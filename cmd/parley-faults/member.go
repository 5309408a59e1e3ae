package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"parley/bus/id"
	"parley/cmd/parley-faults/judge"
)

// A voice is a client that a member speaks with: it comes back by itself, and repeats what was not acknowledged.
type voice interface {
	user() string
	say(text string, done func(id.ID, error)) // keeps the order; done is called once
	read(bool)                                // whether it reads what comes
	close()                                   // leaves for good
}

// A member is a client in one room of a trial, and writes down what it is told.
type member struct {
	trial  *trial
	number int    // static
	room   string // static
	route  *route // static
	voice         // static once it has entered

	urge chan struct{} // static; capacity 1: talk is to say much, now
	quit chan struct{} // static; closed when it is to say nothing more
	said int           // owned by talk
	hush sync.Once

	// Guarded by trial.mu.
	entered bool
	gone    bool
	up      bool
	open    int  // what it said and has no answer
	last    bool // the last words were heard
	told    []judge.Event
	list    map[string]bool
}

func (m *member) name() string { return fmt.Sprintf("client %d (%s)", m.number, m.kind()) }

// kind says which client it speaks with.
func (m *member) kind() string {
	if m.number/len(m.trial.stations)%2 == 0 {
		return "Go"
	}
	return "plain"
}

// lastWords is the number of what is said in a room when nothing follows.
const lastWords = 1 << 30

// enter connects it, and makes it a member of its room.
func (m *member) enter(ctx context.Context) (err error) {
	var v voice
	if m.kind() == "Go" {
		v, err = enterGo(ctx, m)
	} else {
		v, err = enterPlain(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.name(), err)
	}
	t := m.trial
	t.mu.Lock()
	defer t.mu.Unlock()
	m.voice, m.entered = v, true
	t.changed.Broadcast()
	return nil
}

// talk says something now and then, some of it in a burst.
func (m *member) talk() {
	for {
		n := 1 + rand.N(3)
		select {
		case <-time.After(rand.N(2 * m.trial.pause)):
		case <-m.urge:
			n = 5
		case <-m.quit:
			return
		}
		for range n {
			m.speak(judge.Words{Sender: m.number, N: m.said})
			m.said++
		}
	}
}

func (m *member) speak(w judge.Words) {
	began := time.Now()
	m.trial.asked(m, w)
	text := fmt.Sprintf("%d/%d %s", w.Sender, w.N, strings.Repeat("x", m.trial.bulk()))
	m.say(text, func(i id.ID, err error) { m.trial.answered(m, w, i, err, time.Since(began)) })
}

// tell writes down what the member is told.
func (m *member) tell(e judge.Event) {
	t := m.trial
	t.mu.Lock()
	defer t.mu.Unlock()
	e.At = time.Now()
	m.told = append(m.told, e)
	if e.Kind == judge.Message && e.N == lastWords {
		m.last = true
		t.changed.Broadcast()
	}
}

// tellMembers says who is there: all of them, or one who came or went.
func (m *member) tellMembers(all []string, came, went string) {
	t := m.trial
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case came != "":
		m.list[came] = true
	case went != "":
		delete(m.list, went)
	default:
		m.list = make(map[string]bool)
		for _, u := range all {
			m.list[u] = true
		}
	}
}

var addresses = regexp.MustCompile(`(\d+\.){3}\d+:\d+`)

// tellUp says whether it is connected.
func (m *member) tellUp(up bool, why error) {
	t := m.trial
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.up && !up && !m.gone && !t.over && !errors.Is(why, errJoinRefused) { // a refusal is an answer: it asks again elsewhere
		t.cut++
		t.cuts[addresses.ReplaceAllString(why.Error(), "…")]++
	}
	m.up = up
	t.changed.Broadcast()
}

// parseWords gives words that nobody said for what it does not understand.
func parseWords(text string) judge.Words {
	text, _, _ = strings.Cut(text, " ")
	sender, n, _ := strings.Cut(text, "/")
	i, err1 := strconv.Atoi(sender)
	j, err2 := strconv.Atoi(n)
	if err1 != nil || err2 != nil {
		return judge.Words{Sender: -1, N: -1}
	}
	return judge.Words{Sender: i, N: j}
}

// wordsIn finds the words in a message as the log has it.
func wordsIn(entry string) judge.Words {
	_, text, _ := strings.Cut(entry, `"text":"`)
	return parseWords(text)
}

// A route takes a client to a node: home first, and to the next one whenever it has to connect again.
type route struct {
	stations []*station // static; home first

	mu     sync.Mutex
	next   int       // guarded by mu; to be tried
	conn   net.Conn  // guarded by mu; the newest
	since  time.Time // guarded by mu; when it was made
	made   int       // guarded by mu; how many there were
	closed bool      // guarded by mu; it leads nowhere
}

var (
	errRouteClosed = errors.New("the route is closed")
	errNodeDown    = errors.New("the node is down")
)

// readBuffer is what the kernel keeps for a client that reads nothing: by itself it would keep megabytes.
const readBuffer = 64 << 10

func (r *route) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	r.mu.Lock()
	to, closed := r.stations[r.next], r.closed
	r.next = (r.next + 1) % len(r.stations)
	r.mu.Unlock()
	if closed {
		return nil, errRouteClosed
	}
	addr := to.addr.Load()
	if addr == nil {
		return nil, errNodeDown
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", *addr)
	if err != nil {
		return nil, err
	}
	conn.(*net.TCPConn).SetReadBuffer(readBuffer)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		conn.Close()
		return nil, errRouteClosed
	}
	r.conn, r.since = conn, time.Now()
	r.made++
	return conn, nil
}

// connected is when the newest connection was made: what is asked over it, is asked later.
func (r *route) connected() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.since
}

// dials counts the connections.
func (r *route) dials() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.made
}

// cut breaks the connection. The client goes elsewhere next, or home.
func (r *route) cut(home bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if home {
		r.next = 0
	}
	if r.conn != nil {
		r.conn.Close()
	}
}

// close breaks the connection and lets none be made until open.
func (r *route) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cut(false)
}

func (r *route) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = false
}
