package node

import (
	"context"
	"testing"
	"time"

	"parley/bus"
)

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
