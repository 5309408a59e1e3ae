package socket

import (
	"runtime"
	"testing"
)

// While the reader keeps answers together nothing leaves, and a room may be busy meanwhile: what waits is bounded all the same.
func TestWhileCorkedNoMoreIsTakenThanTheQueueHolds(t *testing.T) {
	for name, secure := range fronts {
		t.Run(name, func(t *testing.T) {
			c := byHandRead(t, secure)
			for leaves := true; leaves; runtime.Gosched() { // the answer to the handshake
				c.mu.Lock()
				leaves = c.draining
				c.mu.Unlock()
			}
			piece := AppendText(nil, make([]byte, 10<<10))
			limit, taken := c.group.cfg.QueueBytes, 0
			c.cork()
			for taken <= limit && c.Offer(piece) {
				taken += len(piece)
			}
			if waits := c.Waiting(); taken > limit || waits < limit*9/10 {
				t.Errorf("%d bytes were taken, and %d wait, in a queue of %d", taken, waits, limit)
			}
			c.uncork()
			if !c.WaitForSpace() || !c.Offer(piece) {
				t.Error("nothing is taken once they have left")
			}
		})
	}
}
