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
