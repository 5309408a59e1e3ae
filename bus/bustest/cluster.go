package bustest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"parley/bus"
)

// patience is how long the suite waits for what must come; what comes late all the same fails where a promise names a time.
const patience = 30 * time.Second

func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// A cluster is what one subtest works with: a backend and the handles that it opened.
type cluster struct {
	t       testing.TB
	backend Backend
	server  *RedisServer                                      // nil for a bus in memory
	openAt  func(url string, o bus.Observer) (bus.Bus, error) // of a bus on Redis

	nodes   []*node
	talking []*traffic
}

// A node is a handle on the bus, with calls that wait for their outcome and fail the test where none comes.
type node struct {
	bus.Bus
	t    testing.TB
	wire *proxy // nil where the node is connected directly
	seen tally
	gone sync.Once
}

// open opens a further handle.
func (c *cluster) open() *node {
	c.t.Helper()
	n := &node{t: c.t}
	b, err := c.backend.Open(&n.seen)
	return c.opened(n, b, err)
}

// openProxied opens a further handle that reaches Redis through a proxy.
func (c *cluster) openProxied() *node {
	c.t.Helper()
	n := &node{t: c.t, wire: newProxy(c.t, c.server)}
	b, err := c.openAt(n.wire.url(), &n.seen)
	return c.opened(n, b, err)
}

// openOn opens a further handle on another server than the cluster's.
func (c *cluster) openOn(server *RedisServer) *node {
	c.t.Helper()
	n := &node{t: c.t}
	b, err := c.openAt(server.URL(), &n.seen)
	return c.opened(n, b, err)
}

func (c *cluster) opened(n *node, b bus.Bus, err error) *node {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("open: %v", err)
	}
	n.Bus = b
	c.nodes = append(c.nodes, n)
	return n
}

// close closes what is open still. It runs under the watchdog, since closing may hang too.
func (c *cluster) close() {
	for _, tr := range c.talking {
		tr.stop()
	}
	for _, n := range c.nodes {
		n.close()
		if n.wire != nil {
			n.wire.close()
		}
	}
}

func (n *node) close() {
	n.gone.Do(func() {
		if err := n.Close(); err != nil && n.wire == nil {
			n.t.Errorf("close: %v", err)
		}
	})
}

// An outcome is what Publish came to.
type outcome struct {
	id  bus.ID
	err error
}

// start publishes, and gives the outcome once it is there. A second call of done fails the test.
func (n *node) start(room string, d bus.Draft) <-chan outcome {
	result, settled := make(chan outcome, 1), once(n.t, "done of Publish")
	n.Publish(room, d, func(i bus.ID, err error) {
		settled()
		result <- outcome{i, err}
	})
	return result
}

// once gives a function that fails the test when it is called twice.
func once(t testing.TB, what string) func() {
	var mu sync.Mutex
	called := false
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if called {
			t.Errorf("%s was called twice", what)
		}
		called = true
	}
}

func (n *node) await(result <-chan outcome) outcome {
	n.t.Helper()
	select {
	case o := <-result:
		return o
	case <-time.After(patience):
		n.t.Fatalf("publish: not settled after %v", patience)
		return outcome{}
	}
}

// publish publishes a body and must succeed, at least when it is repeated, as a busy machine may make necessary.
func (n *node) publish(room, body string) bus.ID {
	n.t.Helper()
	return n.mustPublish(room, keyed("u", rand.Text(), body))
}

// mustPublish is publish of a draft. One without a key is not repeated.
func (n *node) mustPublish(room string, d bus.Draft) bus.ID {
	n.t.Helper()
	o := n.await(n.start(room, d))
	if o.err != nil && d.Key != (bus.Key{}) {
		n.t.Logf("publish %.40q to %s: %v", d.Body, room, o.err)
		o.id, o.err = n.repeat(room, d)
	}
	if o.err != nil {
		n.t.Fatalf("publish %.40q to %s: %v", d.Body, room, o.err)
	}
	return o.id
}

// repeat repeats a draft until it is acknowledged, as a client does.
func (n *node) repeat(room string, d bus.Draft) (bus.ID, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		o := <-n.start(room, d)
		if o.err == nil {
			return o.id, nil
		}
		if !errors.Is(o.err, bus.ErrUnavailable) || time.Now().After(deadline) {
			return bus.ID{}, fmt.Errorf("publish %q to %s: %w", d.Body, room, o.err)
		}
	}
}

// traffic is a stream of messages that one handle publishes, each repeated until it is acknowledged.
type traffic struct {
	stopping  chan struct{}
	ended     chan struct{}
	stopOnce  sync.Once
	published []string // owned by the goroutine until ended is closed
}

// talk starts traffic. It ends with stop, or with the subtest.
func (c *cluster) talk(n *node, room, prefix string) *traffic {
	tr := &traffic{stopping: make(chan struct{}), ended: make(chan struct{})}
	c.talking = append(c.talking, tr)
	go func() {
		defer close(tr.ended)
		for i := 0; ; i++ {
			body := fmt.Sprint(prefix, i)
			if _, err := n.repeat(room, keyed(prefix, body, body)); err != nil {
				c.t.Error(err)
				return
			}
			tr.published = append(tr.published, body)
			select {
			case <-tr.stopping:
				return
			case <-time.After(500 * time.Microsecond): // a pace that the log can keep
			}
		}
	}()
	return tr
}

// stop gives the bodies that were acknowledged, in order.
func (tr *traffic) stop() []string {
	tr.stopOnce.Do(func() { close(tr.stopping) })
	<-tr.ended
	return tr.published
}

// keyed is a draft with the key that a user gave.
func keyed(user, key, body string) bus.Draft {
	sum := uint64(14695981039346656037)
	for _, b := range []byte(body) {
		sum = (sum ^ uint64(b)) * 1099511628211
	}
	return bus.Draft{Body: []byte(body), Key: bus.KeyOf(user, key), Sum: sum}
}

// subscribe subscribes a new Recorder.
func (n *node) subscribe(room string) (bus.Subscription, *Recorder) {
	n.t.Helper()
	r := NewRecorder(n.t)
	ctx, cancel := patient()
	defer cancel()
	s, err := n.Subscribe(ctx, room, r)
	if err != nil {
		n.t.Fatalf("subscribe to %s: %v", room, err)
	}
	r.From(s.Last())
	return s, r
}

func (n *node) after(room string, since bus.ID, limit int) bus.Page {
	n.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	p, err := n.After(ctx, room, since, limit, 0)
	if err != nil {
		n.t.Fatalf("after %v in %s: %v", since, room, err)
	}
	return p
}

func (n *node) before(room string, before bus.ID, limit int) bus.Page {
	n.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	p, err := n.Before(ctx, room, before, limit, 0)
	if err != nil {
		n.t.Fatalf("before %v in %s: %v", before, room, err)
	}
	return p
}

func (n *node) roster(room string) bus.Roster {
	n.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	r, err := n.Roster(ctx, room)
	if err != nil {
		n.t.Fatalf("roster of %s: %v", room, err)
	}
	return r
}

// until asks again and again, for what no event tells.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain for %s", patience, what)
		}
	}
}

// check waits for nothing: got is want, or the test fails.
func check[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// bodies are the bodies of messages, with breaks as "break".
func bodies(ms []bus.Message) []string {
	out := make([]string, 0, len(ms))
	for _, m := range ms {
		if m.Break {
			out = append(out, "break")
		} else {
			out = append(out, string(m.Body))
		}
	}
	return out
}

func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(prefix, i)
	}
	return out
}

// A tally is an Observer that counts.
type tally struct {
	mu                                              sync.Mutex
	published, failed, repaired, broken, reconnects int
}

func (o *tally) Published(_ time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.published++
	if err != nil {
		o.failed++
	}
}

func (o *tally) Repaired(n int) { o.add(&o.repaired, n) }
func (o *tally) Broken()        { o.add(&o.broken, 1) }
func (o *tally) Reconnected()   { o.add(&o.reconnects, 1) }

func (o *tally) add(count *int, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	*count += n
}

func (o *tally) count(of *int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return *of
}
