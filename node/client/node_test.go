package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/node/nodetest"
	"parley/node/wire"
)

// patience is how long tests over real sockets wait for what must come.
const patience = time.Minute

// startNodes runs nodes on one bus and gives their addresses.
func startNodes(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for _, nd := range nodetest.Start(t, n).Nodes {
		addrs = append(addrs, nd.Addr)
	}
	return addrs
}

// A cutter dials nodes at random, and breaks each connection after a random number of bytes: in the midst of a frame, between a
// request and its answer, before the first word.
type cutter struct {
	addrs []string
	bytes int         // about how many a connection lasts
	calm  atomic.Bool // no more is cut
	cuts  atomic.Int64
}

func (c *cutter) options() Options {
	return Options{
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: c.dial}},
		MinBackoff: time.Millisecond, MaxBackoff: 50 * time.Millisecond,
	}
}

func (c *cutter) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.addrs[rand.N(len(c.addrs))])
	if err != nil {
		return nil, err
	}
	cut := &cutConn{Conn: conn, c: c}
	cut.left.Store(int64(rand.N(2 * c.bytes)))
	return cut, nil
}

type cutConn struct {
	net.Conn
	c    *cutter
	left atomic.Int64 // bytes
}

// spend gives how many of n bytes may pass. The connection breaks if that is not all.
func (c *cutConn) spend(n int) int {
	left := c.left.Add(-int64(n))
	if left >= 0 || c.c.calm.Load() {
		return n
	}
	c.c.cuts.Add(1)
	c.Conn.Close()
	return max(0, n+int(left))
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if m := c.spend(n); m < n {
		return m, net.ErrClosed
	}
	return n, err
}

func (c *cutConn) Write(p []byte) (int, error) {
	if rand.N(2) == 0 { // cut behind what was written: it takes effect, but no answer comes
		n, err := c.Conn.Write(p)
		c.spend(len(p))
		return n, err
	}
	n := c.left.Load()
	if n < int64(len(p)) && !c.c.calm.Load() {
		c.Conn.Write(p[:max(0, n)])
	}
	if c.spend(len(p)) < len(p) {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// A hearer notes what it hears, and tells when it has heard all of it.
type hearer struct {
	mu    sync.Mutex
	ids   []ID     // guarded by mu
	texts []string // guarded by mu
	gaps  int      // guarded by mu
	want  int
	all   chan struct{} // closed once that many messages were heard
}

func newHearer(want int) *hearer { return &hearer{want: want, all: make(chan struct{})} }

func (h *hearer) handle(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch e := e.(type) {
	case Message:
		h.ids, h.texts = append(h.ids, e.ID), append(h.texts, e.Text)
		if len(h.texts) == h.want {
			close(h.all)
		}
	case Gap:
		h.gaps++
	}
}

func (h *hearer) wait(t *testing.T) {
	t.Helper()
	select {
	case <-h.all:
	case <-time.After(patience):
		h.mu.Lock()
		defer h.mu.Unlock()
		t.Fatalf("heard %d of %d messages", len(h.texts), h.want)
	}
}

func TestNothingIsLostRepeatedOrOutOfOrderHoweverConnectionsBreak(t *testing.T) {
	const clients, each = 4, 150
	cut := &cutter{addrs: startNodes(t, 2), bytes: 6000}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var hearers []*hearer
	var rooms []*Room
	type ack struct {
		id   ID
		text string
	}
	var mu sync.Mutex
	var acks []ack
	for n := range clients {
		o := cut.options()
		o.Name = fmt.Sprint("c", n)
		c, err := Dial(ctx, "ws://parley", o)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		h, none := newHearer(clients*each), 0
		hearers = append(hearers, h)
		r, err := c.Join(ctx, "lobby", JoinOptions{Handle: h.handle, Limit: &none})
		if err != nil {
			t.Fatal(err)
		}
		rooms = append(rooms, r)
	}
	// What is said after one has joined is what one must hear.
	var wg sync.WaitGroup
	for n, r := range rooms {
		wg.Go(func() {
			free := make(chan struct{}, 20)
			for i := range each {
				text := fmt.Sprintf("%d %d", n, i)
				free <- struct{}{}
				r.SendAsync(Draft{Text: text}, func(id ID, err error) {
					defer func() { <-free }()
					if err != nil {
						t.Errorf("%s: %v", text, err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					acks = append(acks, ack{id, text})
				})
			}
			for range cap(free) { // all are answered
				free <- struct{}{}
			}
		})
	}
	for _, h := range hearers {
		h.wait(t)
	}
	answered := make(chan struct{})
	go func() { wg.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(patience):
		t.Fatal("not all sends are answered")
	}
	cut.calm.Store(true)
	if cut.cuts.Load() < 20 {
		t.Errorf("only %d connections were cut", cut.cuts.Load())
	}
	t.Logf("%d connections were cut", cut.cuts.Load())
	mu.Lock()
	defer mu.Unlock()
	if len(acks) != clients*each {
		t.Errorf("%d sends were acknowledged, want %d", len(acks), clients*each)
	}
	for n, h := range hearers {
		h.mu.Lock()
		if h.gaps > 0 {
			t.Errorf("client %d was told of a gap", n)
		}
		if !slices.IsSortedFunc(h.ids, ID.Compare) {
			t.Errorf("client %d heard out of order", n)
		}
		if len(h.texts) != clients*each {
			t.Errorf("client %d heard %d messages, want %d", n, len(h.texts), clients*each)
		}
		if !slices.Equal(h.texts, hearers[0].texts) || !slices.Equal(h.ids, hearers[0].ids) {
			t.Errorf("clients 0 and %d heard different things", n)
		}
		h.mu.Unlock()
	}
	next := make([]int, clients)
	for i, text := range hearers[0].texts {
		var from, k int
		fmt.Sscan(text, &from, &k)
		if k != next[from] {
			t.Fatalf("message %d is %q, want number %d of that client", i, text, next[from])
		}
		next[from]++
	}
	for _, a := range acks {
		if i := slices.Index(hearers[0].texts, a.text); i < 0 || hearers[0].ids[i] != a.id {
			t.Errorf("%q was acknowledged as %v, but not said so", a.text, a.id)
		}
	}
}

func TestRoomsMembersHistoryAndSignalsOfARealNode(t *testing.T) {
	addrs := startNodes(t, 2)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dial := func(addr, name string) *Client {
		c, err := Dial(ctx, "ws://"+addr, Options{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	events := make(chan Event, 100)
	wait := func(what string, ok func(Event) bool) {
		t.Helper()
		for {
			select {
			case e := <-events:
				if ok(e) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("no %s came", what)
			}
		}
	}
	ada := dial(addrs[0], "Ada")
	a, err := ada.Join(ctx, "tea", JoinOptions{Handle: func(e Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	bob := dial(addrs[1], "Bob")
	b, err := bob.Join(ctx, "tea", JoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wait("join", func(e Event) bool {
		p, ok := e.(Presence)
		return ok && p.Event == wire.EventJoin && p.User.Name == "Bob" && p.Count == 2
	})
	if err := b.Signal(ctx, "typing", []byte(`{"on":true}`)); err != nil {
		t.Fatal(err)
	}
	wait("signal", func(e Event) bool {
		s, ok := e.(Signal)
		return ok && s.Kind == "typing" && s.User == wire.Member{ID: bob.User().ID, Name: "Bob"} && string(s.Data) == `{"on":true}`
	})
	if err := bob.Rename(ctx, "Robert"); err != nil || bob.User().Name != "Robert" {
		t.Fatalf("renamed to %q, %v", bob.User().Name, err)
	}
	wait("update", func(e Event) bool {
		p, ok := e.(Presence)
		return ok && p.Event == wire.EventUpdate && p.User == wire.Member{ID: bob.User().ID, Name: "Robert"} && p.Count == 2
	})
	if err := bob.Rename(ctx, "Bob"); err != nil {
		t.Fatal(err)
	}
	first, err := b.Say(ctx, Draft{Text: "hi", Data: []byte("[1]"), Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	wait("message", func(e Event) bool {
		m, ok := e.(Message)
		return ok && m.Text == "hi" && string(m.Data) == "[1]" && m.ID == first && !m.Mine && m.Live
	})
	again, err := b.Say(ctx, Draft{Text: "hi", Data: []byte("[1]"), Key: "k"})
	if err != nil || again != first {
		t.Errorf("the repeat got %v, %v, want %v", again, err, first)
	}
	if _, err := b.Say(ctx, Draft{Text: "other", Key: "k"}); err == nil || !strings.HasPrefix(err.Error(), "conflict") {
		t.Errorf("another content with the same key: %v", err)
	}
	second, err := b.Send(ctx, "there")
	if err != nil {
		t.Fatal(err)
	}
	if m, more, err := a.History(ctx, &second, 1); err != nil || len(m) != 1 || m[0].ID != first || more {
		t.Errorf("history %+v, %v, %v", m, more, err)
	}
	if m, count, err := b.Members(ctx); err != nil || count != 2 || len(m) != 2 {
		t.Errorf("members %+v, %d, %v", m, count, err)
	}

	bob.Close()
	o := Options{Name: "Bob", Session: bob.Session()}
	bob2, err := Dial(ctx, "ws://"+addrs[0]+"/ws", o)
	if err != nil || bob2.User() != bob.User() {
		t.Fatalf("came back as %+v, %v, was %+v", bob2.User(), err, bob.User())
	}
	defer bob2.Close()
	h := newHearer(1)
	b, err = bob2.Join(ctx, "tea", JoinOptions{Handle: h.handle, Since: &first})
	if err != nil {
		t.Fatal(err)
	}
	h.wait(t)
	if h.texts[0] != "there" || h.ids[0] != second {
		t.Errorf("resumed with %v", h.texts)
	}
	if err := b.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	if err := a.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := bob2.Join(ctx, "tea", JoinOptions{}); err != nil {
		t.Errorf("joining again: %v", err)
	}
}
