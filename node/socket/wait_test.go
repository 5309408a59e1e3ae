package socket

import (
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// An answering handler answers the first message at once. The second has to wait, for longer than the client may have patience.
type answering struct {
	echo
	answered bool
	heard    chan struct{}
	missed   bool
}

func (a *answering) Message(bool, []byte) bool {
	if a.answered {
		return false
	}
	a.answered = true
	a.c.Put(text("the answer"))
	return true
}

func (a *answering) Wait() {
	select {
	case <-a.heard:
	case <-time.After(time.Minute):
		a.missed = true
	}
}

// What is answered is not kept back for the sake of what comes behind it and has to wait.
func TestAnAnswerLeavesBeforeTheNextRequestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		c := (&Group{cfg: Config{QueueBytes: 1 << 20, StallTimeout: time.Hour, MessageWait: time.Hour}}).newConn(theirs)
		a := &answering{echo: echo{c: c}, heard: make(chan struct{})}
		c.handler = a
		go func() {
			if _, err := io.ReadFull(ours, make([]byte, len(text("the answer")))); err == nil {
				close(a.heard)
			}
		}()
		if err := c.take(slices.Concat(clientFrame(0x81, "one"), clientFrame(0x81, "two")), true); err != nil {
			t.Error(err)
		}
		if a.missed {
			t.Error("the first answer waits for the second")
		}
		c.close()
	})
}
