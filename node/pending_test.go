package node

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"
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

// What a client sends before it has read that a send is in doubt must not overtake the repeat, however long it reads nothing.
func TestTheRepeatIsWaitedForFromWhenTheClientKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o pending
		if !o.unconfirm(1, "tea", "first", true) {
			t.Fatal("no ping is to follow")
		}
		if o.unconfirm(2, "tea", "second", true) {
			t.Error("another ping is to follow")
		}
		passes := func(key string) bool {
			o.order.Lock()
			defer o.order.Unlock()
			return o.passesLocked("tea", key)
		}
		o.probed(nil) // an earlier ping's
		time.Sleep(repeatWait + time.Second)
		if passes("later") {
			t.Error("it was overtaken by what the client sent before it could know")
		}
		o.probed(o.appendProbe(nil))
		time.Sleep(repeatWait - time.Second)
		if passes("later") {
			t.Error("it was not waited for")
		}
		time.Sleep(2 * time.Second)
		if !passes("later") {
			t.Error("it is waited for though the client could have repeated it long ago")
		}
		o.unconfirm(3, "tea", "third", true)
		time.Sleep(probeWait + time.Second)
		if !passes("later") {
			t.Error("it is waited for though the client answers no ping")
		}
		o.unconfirm(4, "tea", "fourth", true)
		if !passes("fourth") || !passes("later") {
			t.Error("the repeat was refused, or what followed it")
		}
		if o.unconfirm(5, "tea", "fifth", false) {
			t.Error("a ping is to follow where none is answered")
		}
		time.Sleep(repeatWait - time.Second)
		if passes("later") {
			t.Error("it was not waited for where no ping is answered")
		}
		time.Sleep(2 * time.Second)
		if !passes("later") {
			t.Error("it is waited for longer where no ping is answered")
		}
	})
}

// A client need not answer each ping: a pong may be for the newest only (RFC 6455 section 5.5.3), and says that all before was read.
func TestAPongSettlesAllThatWasAskedBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o pending
		rooms := []string{"tea", "coffee", "milk"}
		for i, room := range rooms {
			o.unconfirm(uint32(i+1), room, "key", true)
		}
		asked := o.appendProbe(nil)
		o.unconfirm(4, "juice", "key", true)
		o.probed(asked)
		time.Sleep(repeatWait + time.Second)
		o.order.Lock()
		defer o.order.Unlock()
		for _, room := range rooms {
			if !o.passesLocked(room, "later") {
				t.Errorf("in %s a repeat is waited for, though the client knew of it long ago", room)
			}
		}
		if o.passesLocked("juice", "later") {
			t.Error("what was asked after the ping was overtaken")
		}
	})
}
