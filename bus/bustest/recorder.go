package bustest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
)

// A Recorder is a Sink that keeps what it is given. It fails the test as soon as it is given something that a Bus must not
// give: two calls at once, ids that don't rise, a message out of the chain or for the second time, anything after End.
type Recorder struct {
	t      testing.TB
	inside atomic.Bool // a call is in progress

	mu      sync.Mutex // guards what follows
	seen    Seen
	has     map[bus.ID]string // the bodies of seen.Messages
	chained bool              // there is an id that the next message must follow
	last    bus.ID
	marker  bus.ID // of the last break
	ended   bool
	wake    chan struct{} // closed, and replaced, when something comes
	told    bool          // the test is over: nothing can be reported any more
}

// Seen is what a Recorder was given so far. The slices only grow, and belong to the Recorder.
type Seen struct {
	Messages []bus.Message // breaks included
	Signals  [][]byte
	Changes  []bus.Change
}

// Bodies are those of the messages, in order, without the breaks.
func (s Seen) Bodies() []string {
	out := make([]string, 0, len(s.Messages))
	for _, m := range s.Messages {
		if !m.Break {
			out = append(out, string(m.Body))
		}
	}
	return out
}

// Has reports whether a message with that body is among them.
func (s Seen) Has(body string) bool {
	return slices.ContainsFunc(s.Messages, func(m bus.Message) bool { return !m.Break && string(m.Body) == body })
}

// Breaks are the breaks among the messages.
func (s Seen) Breaks() []bus.Message {
	var out []bus.Message
	for _, m := range s.Messages {
		if m.Break {
			out = append(out, m)
		}
	}
	return out
}

// NewRecorder makes a Recorder for one subscription.
func NewRecorder(t testing.TB) *Recorder {
	r := &Recorder{t: t, has: map[bus.ID]string{}, wake: make(chan struct{})}
	t.Cleanup(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told = true
	})
	return r
}

// From says where the chain begins: Subscription.Last.
func (r *Recorder) From(last bus.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen.Messages) == 0 {
		r.chained, r.last = true, last
	} else if first := r.seen.Messages[0]; !first.Break && first.Prev != last {
		r.failLocked("the first message %v follows %v; the subscription's last was %v", first.ID, first.Prev, last)
	}
}

// End says that the subscription is closed: nothing may come any more.
func (r *Recorder) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

// Deliver implements bus.Sink.
func (r *Recorder) Deliver(m bus.Message) {
	defer r.enter("Deliver")()
	if m.Break {
		if m.Body != nil {
			r.failLocked("a break at %v has a body: %q", m.ID, m.Body)
		}
		again := !m.Marker.IsZero() && m.Marker == r.marker
		r.marker = m.Marker
		if again { // it was told before it came by
			if m.ID != m.Marker || m.Prev != r.last {
				r.failLocked("the break %v, which was told before, came as %v after %v, in place of %v", m.Marker, m.ID, r.last, m.Prev)
			}
			r.last = m.ID
			return
		}
	} else {
		if r.chained && m.Prev != r.last {
			r.failLocked("message %v %.40q follows %v, but was delivered after %v", m.ID, m.Body, m.Prev, r.last)
		}
		if !m.Prev.Less(m.ID) {
			r.failLocked("message %v %.40q does not come after %v, which it names as the one before it", m.ID, m.Body, m.Prev)
		}
		if body, ok := r.has[m.ID]; ok && body == string(m.Body) {
			r.failLocked("message %v %.40q was delivered twice", m.ID, m.Body)
		}
		r.has[m.ID] = string(m.Body)
	}
	r.chained, r.last = true, m.ID
	r.seen.Messages = append(r.seen.Messages, m)
}

// Signal implements bus.Sink.
func (r *Recorder) Signal(body []byte) {
	defer r.enter("Signal")()
	r.seen.Signals = append(r.seen.Signals, bytes.Clone(body))
}

// Presence implements bus.Sink.
func (r *Recorder) Presence(c bus.Change) {
	defer r.enter("Presence")()
	r.seen.Changes = append(r.seen.Changes, c)
}

// enter begins a call and gives what ends it.
func (r *Recorder) enter(call string) func() {
	alone := r.inside.CompareAndSwap(false, true)
	r.mu.Lock()
	if !alone {
		r.failLocked("%s was called while another call was in progress", call)
	}
	if r.ended {
		r.failLocked("%s was called after the end", call)
	}
	return func() {
		close(r.wake)
		r.wake = make(chan struct{})
		r.mu.Unlock()
		r.inside.Store(false)
	}
}

func (r *Recorder) failLocked(format string, args ...any) {
	if !r.told {
		r.t.Errorf(format, args...)
	}
}

// Seen is what came so far.
func (r *Recorder) Seen() Seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

// Wait waits until ok, and gives what had come by then. It fails the test after half a minute.
func (r *Recorder) Wait(t testing.TB, what string, ok func(Seen) bool) Seen {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		seen, wake := r.seen, r.wake
		r.mu.Unlock()
		if ok(seen) {
			return seen
		}
		select {
		case <-wake:
		case <-timeout.C:
			t.Fatalf("waited %v in vain for %s; seen: %v", patience, what, seen)
		}
	}
}

// WaitBody waits for the message with that body.
func (r *Recorder) WaitBody(t testing.TB, body string) Seen {
	t.Helper()
	at := 0 // everything before it has been looked at
	return r.Wait(t, fmt.Sprintf("%.40q", body), func(s Seen) bool {
		for ; at < len(s.Messages); at++ {
			if m := s.Messages[at]; !m.Break && string(m.Body) == body {
				return true
			}
		}
		return false
	})
}

func (s Seen) String() string {
	const shown = 12
	tail := s.Messages[max(0, len(s.Messages)-shown):]
	return fmt.Sprintf("%d messages, of which the last are %.60q, %d signals, changes %v",
		len(s.Messages), bodies(tail), len(s.Signals), s.Changes)
}
