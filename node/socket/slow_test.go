package socket

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// Where the system does not tell how far a peer is, a peer that takes a little of what waits, again and again, is not given up, however
// long all of it takes; one that takes nothing is.
func TestWhoTakesALittleAtATimeStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const stall, size = 30 * time.Second, 64 << 10
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := (&Group{cfg: Config{QueueBytes: 1 << 20, StallTimeout: stall}}).newConn(ours)
		c.Put(make([]byte, size))
		buf := make([]byte, 1<<10)
		for taken := 0; taken < size/2; {
			time.Sleep(stall / 3)
			n, err := theirs.Read(buf)
			if taken += n; err != nil {
				t.Fatalf("after %d bytes: %v", taken, err)
			}
		}
		began := time.Now()
		for !c.isDead() {
			if time.Sleep(time.Second); time.Since(began) > 3*stall {
				t.Fatalf("who takes nothing is there after %v", time.Since(began))
			}
		}
		c.close()
	})
}

// Who is being sent away is not slow: what a room has for it is dropped, and the room need not see to it.
func TestWhatIsOfferedToWhoIsSentAwayIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe() // of which nothing is read
		defer theirs.Close()
		c := (&Group{cfg: Config{QueueBytes: 1000, StallTimeout: time.Minute}}).newConn(ours)
		c.Put(make([]byte, 900))
		piece := make([]byte, 200)
		if c.Offer(piece) {
			t.Error("more is taken than the queue holds")
		}
		c.Finish([]byte("bye"), 1012)
		before := c.Waiting()
		if !c.Offer(piece) || c.Waiting() != before {
			t.Errorf("once it was said goodbye to %d bytes wait, before it were %d, or it is taken for slow", c.Waiting(), before)
		}
		c.Abort(0)
	})
}
