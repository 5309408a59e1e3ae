package node

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// An outage is that the bus does not answer questions. What would have to ask it is refused at once then, with a time to come back
// after: only the few that ask as it begins, and one now and then, wait for as long as an answer may take.
type outage struct {
	until atomic.Int64 // Unix nanoseconds
	turns atomic.Int64 // Unix nanoseconds; when the next one may ask
}

const (
	outageLife  = 3 * busTimeout   // after so long without a failure it is over
	outageProbe = unavailableRetry // how often one may ask
)

// lasts reports whether the bus is away. Now and then it says no, to find out.
func (o *outage) lasts() bool {
	now, next := time.Now(), o.turns.Load()
	if now.UnixNano() > o.until.Load() {
		return false
	}
	return now.UnixNano() < next || !o.turns.CompareAndSwap(next, now.Add(outageProbe).UnixNano())
}

// note notes what came of asking. That who asked has gone tells nothing of the bus.
func (o *outage) note(err error) {
	switch now := time.Now(); {
	case errors.Is(err, context.Canceled):
	case err != nil:
		o.turns.Store(now.Add(outageProbe).UnixNano())
		o.until.Store(now.Add(outageLife).UnixNano())
	case o.until.Load() != 0:
		o.until.Store(0)
	}
}
