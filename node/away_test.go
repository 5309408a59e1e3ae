package node_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley/bus"
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
