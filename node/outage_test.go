package node

import (
	"testing"
	"testing/synctest"
	"time"

	"parley/bus"
)

// While the bus is away one may ask now and then. It is over with the first answer, or when nobody has failed for a while.
func TestAnOutageLetsOneAskNowAndThenAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o outage
		lasts := func(want bool, when string) {
			t.Helper()
			if got := o.lasts(); got != want {
				t.Errorf("%s: lasts is %v", when, got)
			}
		}
		lasts(false, "at first")
		o.note(bus.ErrUnavailable)
		lasts(true, "after a failure")
		for range 3 {
			time.Sleep(outageProbe)
			lasts(false, "when one may ask")
			lasts(true, "for the next")
			lasts(true, "for others")
		}
		o.note(nil)
		lasts(false, "after an answer")
		lasts(false, "after an answer, for others")
		o.note(bus.ErrUnavailable)
		time.Sleep(outageLife + time.Second)
		lasts(false, "a while after the last failure")
		lasts(false, "a while after, for others")
	})
}
