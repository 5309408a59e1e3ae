package node_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/memory"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// noRooms is a bus that cannot subscribe, and takes longer than it is given to say so.
type noRooms struct{ bus.Bus }

func (noRooms) Subscribe(ctx context.Context, _ string, _ bus.Sink) (bus.Subscription, error) {
	<-ctx.Done()
	time.Sleep(50 * time.Millisecond)
	return nil, bus.ErrUnavailable
}

// Whoever joins gives up before the room does. Its linger, over before and after that, must find nothing to close.
func TestANodeOutlivesARoomThatItCouldNotOpen(t *testing.T) {
	for _, linger := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond} {
		t.Run(linger.String(), func(t *testing.T) {
			t.Parallel()
			c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus, cfg.Linger = noRooms{cfg.Bus}, linger })
			p := nodetest.Dial(t, c.Nodes[0].URL("/"))
			p.Say(`{"op":"join","room":"tea"}`)
			p.WantError(wire.Unavailable)
			time.Sleep(200 * time.Millisecond)
			p.Say(`{"op":"ping"}`)
			p.Want("ok")
		})
	}
}

// halfAway is a bus that subscribes, and then cannot say what there is.
type halfAway struct {
	bus.Bus
	catchUp, resume bool // fails
}

func (b halfAway) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	s, err := b.Bus.Subscribe(ctx, room, sink)
	return halfAwaySubscription{s, b.catchUp}, err
}

func (b halfAway) After(ctx context.Context, room string, since bus.ID, limit, bytes int) (bus.Page, error) {
	if b.resume {
		return bus.Page{}, bus.ErrUnavailable
	}
	return b.Bus.After(ctx, room, since, limit, bytes)
}

type halfAwaySubscription struct {
	bus.Subscription
	fails bool
}

func (s halfAwaySubscription) Sync(ctx context.Context) error {
	if s.fails {
		return bus.ErrUnavailable
	}
	return s.Subscription.Sync(ctx)
}

// A room that nobody could join, however far that got, is let go.
func TestARoomThatCouldNotBeJoinedIsLetGo(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]halfAway{"catch-up": {catchUp: true}, "resume": {resume: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatch()
			c := nodetest.Start(t, 1, func(cfg *node.Config) {
				b.Bus = cfg.Bus
				cfg.Bus, cfg.Observer, cfg.Linger = b, w, time.Millisecond
			})
			p := nodetest.Dial(t, c.Nodes[0].URL("/"))
			p.Say(`{"op":"join","room":"tea","since":"5-0"}`)
			p.WantError(wire.Unavailable)
			w.wait(t, "room closed", 1)
		})
	}
}

// lateRooms is a bus that subscribes when nobody waits for it any more.
type lateRooms struct{ bus.Bus }

func (b lateRooms) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	<-ctx.Done()
	time.Sleep(50 * time.Millisecond)
	return b.Bus.Subscribe(context.WithoutCancel(ctx), room, sink)
}

func TestARoomThatCameTooLateIsLetGo(t *testing.T) {
	t.Parallel()
	w := newWatch()
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus, cfg.Observer, cfg.Linger = lateRooms{cfg.Bus}, w, time.Millisecond })
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Say(`{"op":"join","room":"tea"}`)
	p.WantError(wire.Unavailable)
	w.wait(t, "room opened", 1)
	w.wait(t, "room closed", 1)
}

// heldRooms is a bus that takes its time over one room.
type heldRooms struct {
	bus.Bus
	held  string
	asked chan struct{}
}

func (b heldRooms) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	if room == b.held {
		close(b.asked)
		<-ctx.Done()
	}
	return b.Bus.Subscribe(ctx, room, sink)
}

// rejections tells of requests that were answered with an error.
type rejections struct {
	node.NoObserver
	codes chan string
}

func (r rejections) Rejected(code string) { r.codes <- code }

// That a client does not wait for an answer says nothing of the bus: nobody else is turned away for it.
func TestAClientThatGoesMakesNoOutage(t *testing.T) {
	t.Parallel()
	o := rejections{codes: make(chan string, 10)}
	b := heldRooms{held: "held", asked: make(chan struct{})}
	n := nodetest.Start(t, 1, func(cfg *node.Config) {
		b.Bus = cfg.Bus
		cfg.Bus, cfg.Observer = b, o
	}).Nodes[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-b.asked
		cancel()
	}()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, n.HTTP("/v1/rooms/held/messages"), strings.NewReader(`{"text":"hi"}`))
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Fatalf("it was answered %s", resp.Status)
	}
	<-o.codes // the node has noticed
	if status, _, problem := call(t, "POST", n.HTTP("/v1/rooms/other/messages"), `{"text":"hi"}`); status != http.StatusCreated {
		t.Errorf("another client is answered %d: %v", status, problem)
	}
}

// A mute is a bus to which nothing can be said, and which says that it is not ready.
type mute struct{ bus.Bus }

func (mute) Publish(_ string, _ bus.Draft, done func(bus.ID, error)) {
	done(bus.ID{}, bus.ErrUnavailable)
}

func (mute) Signal(_ string, _ []byte, done func(error)) { done(bus.ErrUnavailable) }

func (mute) Ready() error { return bus.ErrUnavailable }

func (mute) Away() []string { return []string{"shard 1", "shard 2"} }

// What cannot be said is told to be so, in the words that the client has: plain text has none, and closes.
func TestWhatCannotBeSaidIsToldOverEveryWay(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus = mute{cfg.Bus} }).Nodes[0]
	p := nodetest.Dial(t, n.URL("/"))
	p.Join("lobby")
	for _, op := range []string{`"send","text":"x"`, `"signal","kind":"k"`} {
		p.Say(`{"op":%s,"req":7,"room":"lobby"}`, op)
		f := p.UntilError()
		if f.Code != wire.Unavailable || f.RetryAfter == 0 || string(f.Req) != "7" {
			t.Errorf("%s: %s", op, nodetest.Show(f))
		}
	}
	if status, _, problem := call(t, "POST", n.HTTP("/v1/rooms/lobby/messages"), `{"text":"x"}`); status != 503 {
		t.Errorf("over HTTP: %d %v", status, problem)
	}
	plain := nodetest.DialPlain(t, n.URL("/"))
	plain.Say("x")
	plain.WantClose(wire.StatusOverload)
}

// Clients are sent elsewhere while the bus is not ready; a part of it that is away is away for every node, and only named.
func TestANodeIsReadyWhileItsBusIs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		wrap   func(bus.Bus) bus.Bus
		status int
		says   string
	}{
		"ready":          {func(b bus.Bus) bus.Bus { return b }, 200, "ready\n"},
		"not ready":      {func(b bus.Bus) bus.Bus { return mute{b} }, 503, "not ready: " + bus.ErrUnavailable.Error()},
		"partly not":     {func(b bus.Bus) bus.Bus { return partly{b} }, 200, "ready\naway: shard 1\naway: shard 2\n"},
		"partly, but up": {func(b bus.Bus) bus.Bus { return struct{ bus.Bus }{partly{b}} }, 200, "ready\n"},
	} {
		n := node.New(node.Config{Bus: tt.wrap(memory.New(bus.Retention{}).Open(bus.NoObserver{})), Log: slog.New(slog.DiscardHandler)})
		defer n.Shutdown(t.Context())
		w := httptest.NewRecorder()
		n.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		if body := w.Body.String(); w.Code != tt.status || !strings.Contains(body, tt.says) || tt.status == 200 && body != tt.says {
			t.Errorf("%s: %d %s", name, w.Code, body)
		}
		if cached := w.Header().Get("Cache-Control"); cached != "no-store" {
			t.Errorf("%s: a proxy may keep it: %q", name, cached)
		}
	}
}

// partly is a bus of which a part is away.
type partly struct{ bus.Bus }

func (b partly) Away() []string { return mute{}.Away() }
