package node

import (
	"encoding/json"
	"testing"
)

// The flush of a message may look for the answer to its send at any time.
func TestASendThatIsFoundAnsweredHasBeenAnswered(t *testing.T) {
	var o pending
	seq := o.begin(json.RawMessage(`1`))
	said := false
	o.answer(seq, func(req json.RawMessage) {
		said = true
		if string(req) != "1" {
			t.Errorf("got %s", req)
		}
		if o.mu.TryLock() {
			t.Error("somebody could look before the answer was said")
		}
	})
	if _, waits := o.take(seq); waits || !said {
		t.Errorf("said: %v, still without an answer: %v", said, waits)
	}
	o.answer(seq, func(json.RawMessage) { t.Error("answered twice") })
}

// A goodbye that came between taking a request and saying its answer would have the answer dropped.
func TestARequestThatWasTakenIsWaitedForUntilItsAnswerIsSaid(t *testing.T) {
	var o pending
	seq := o.begin(json.RawMessage(`1`))
	over := make(chan struct{})
	close(over)
	if _, waits := o.take(seq); !waits || o.none() || o.wait(1, over) {
		t.Error("it counts as answered before it is")
	}
	o.answered(1)
	if !o.none() || !o.wait(1, over) {
		t.Error("it is still waited for")
	}
}
