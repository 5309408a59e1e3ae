package node

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"parley/bus"
	"parley/bus/memory"
)

// A slowEnd is a bus whose subscriptions take their time to end.
type slowEnd struct {
	bus.Bus
	may  chan struct{}
	ends atomic.Int32
}

func (b *slowEnd) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	sub, err := b.Bus.Subscribe(ctx, room, sink)
	return slowlyEnding{sub, b}, err
}

type slowlyEnding struct {
	bus.Subscription
	b *slowEnd
}

func (s slowlyEnding) Close() {
	s.b.ends.Add(1)
	<-s.b.may
	s.Subscription.Close()
}

// A room that is being left is no room to enter: who comes meanwhile waits until it is gone, and enters it anew. So does the end of a
// node.
func TestARoomThatIsBeingLeftIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &slowEnd{Bus: memory.New(bus.Retention{}).Open(bus.NoObserver{}), may: make(chan struct{})}
		s := &Server{cfg: Config{Bus: b}.withDefaults(), rooms: make(map[string]*room)}
		s.ctx, s.cancel = context.WithCancel(t.Context())
		leave := func(r *room) {
			r.release()
			time.Sleep(s.cfg.Linger + time.Second)
			synctest.Wait() // its subscription is ending
		}
		old, err := s.enter(s.ctx, "lobby")
		if err != nil {
			t.Fatal(err)
		}
		leave(old)
		impatient, cancel := context.WithCancel(s.ctx)
		gaveUp := make(chan error, 1)
		go func() {
			_, err := s.enter(impatient, "lobby")
			gaveUp <- err
		}()
		entered := make(chan *room, 1)
		go func() {
			r, _ := s.enter(s.ctx, "lobby")
			entered <- r
		}()
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("who gives up waiting is told %v", err)
		}
		select {
		case r := <-entered:
			t.Fatalf("a room was entered while it was being left: the same one: %v", r == old)
		default:
		}
		b.may <- struct{}{}
		synctest.Wait()
		select {
		case r := <-entered:
			if r == nil || r == old {
				t.Fatalf("then it entered %p, and %p was left", r, old)
			}
			leave(r)
		default:
			t.Fatal("who waited for a room to be gone waits still")
		}
		ended := make(chan struct{})
		go func() {
			s.cancel()
			s.closeRooms()
			close(ended)
		}()
		synctest.Wait()
		select {
		case <-ended:
			t.Error("the node has ended before a room that it leaves is gone")
		default:
		}
		b.may <- struct{}{}
		<-ended
		old.closeIdle() // as when the linger ends while the node does
		if n := b.ends.Load(); n != 2 {
			t.Errorf("two subscriptions were ended %d times", n)
		}
	})
}

// The bus hands over what is said while a room is being flushed, and does not wait for that; nor does it flush a large room itself.
func TestADeliveryWaitsForNoFlush(t *testing.T) {
	r := roomOf(t, smallRoom+1)
	r.mu.Lock()
	given := make(chan struct{})
	go func() {
		r.Deliver(aMessage(1))
		close(given)
	}()
	select {
	case <-given:
	case <-time.After(time.Minute):
		t.Error("a delivery waits for a flush")
	}
	r.mu.Unlock()
	for _, want := range []bool{false, true} {
		if r.flushHere() != want {
			t.Errorf("with %d members it is flushed by who brings a message: %v", len(r.members), !want)
		}
		r.members = r.members[:smallRoom]
	}
}

// The end of a linger may meet somebody who has just come.
func TestARoomThatSomebodyIsInIsNotLeft(t *testing.T) {
	r := roomOf(t, 1) // held by its maker
	r.closeIdle()
	r.srv.roomsMu.Lock()
	defer r.srv.roomsMu.Unlock()
	if r.gone != nil || r.srv.rooms["lobby"] != r {
		t.Error("the room was left")
	}
}

// Who waits for what a room has taken in does not wait for a room that ends.
func TestARoomThatEndsIsNotWaitedFor(t *testing.T) {
	var in inbox
	in.state = inboxQueued // nobody flushes
	in.add(item{kind: itemMessage, msg: bus.Message{ID: bus.ID{Ms: 1}}}, func() {})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- in.await(ctx) }()
	for waits := false; !waits; time.Sleep(time.Millisecond) {
		in.mu.Lock()
		waits = in.taken != nil
		in.mu.Unlock()
	}
	in.close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Events that a queue refused have moved no cursor: whoever comes back with it has not seen them.
func TestACursorDoesNotPassWhatWasRefused(t *testing.T) {
	st := &stream{places: []place{{room: "a", at: &bus.ID{Ms: 1}}}}
	s := &Server{}
	s.buffers.New = func() any { return new(sayBuffers) }
	m := newMember(&session{srv: s, stream: st, codec: sse}, &room{name: "a"})
	event := []byte("id: 2-0\ndata: x\n\n")
	for _, given := range []bool{false, true} {
		m.putStream(event, func(b []byte) bool {
			if string(b) != "id: a=2-0\ndata: x\n\n" {
				t.Errorf("put %q", b)
			}
			return given
		})
		at := *st.places[0].at
		if moved := at == (bus.ID{Ms: 2}); moved != given {
			t.Errorf("taken: %v, and the cursor is %v", given, at)
		}
	}
}
