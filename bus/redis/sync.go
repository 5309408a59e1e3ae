package redis

import (
	"context"
	"fmt"
	"time"

	"parley/bus"
	"parley/bus/id"
	"parley/bus/redis/resp"
)

// A head is a read of a room's newest id, shared by all who asked before it was sent.
type head struct {
	at   bus.ID        // the greatest id that was known then; owned by the link until done is closed
	run  string        // the server's that was asked; owned by the link until done is closed
	id   bus.ID        // static after done
	err  error         // static after done
	done chan struct{} // closed with the answer
}

// A waiter waits until the chain has got to an id, or until a read of the log that began after it is over.
type waiter struct {
	id    bus.ID
	reads uint64 // that had begun
	whole bool   // an id proves nothing yet: the log is being read
	lost  bool   // an id proves nothing: the log had less than what was delivered
	done  chan struct{}
}

// A message that was acknowledged arrives in much less. What does not is read from the log.
const arrivesWithin = time.Second

// headPause is between two attempts to read a room's newest id.
const headPause = 50 * time.Millisecond

// Sync implements bus.Subscription.
func (rm *room) Sync(ctx context.Context) error {
	for {
		h := rm.askHead()
		select {
		case <-h.done:
		case <-ctx.Done():
			return rm.unsynced(ctx, nil)
		case <-rm.bus.ctx.Done():
			return bus.ErrClosed
		}
		if h.err == nil {
			return rm.await(ctx, h)
		}
		select {
		case <-time.After(headPause):
		case <-ctx.Done():
			return rm.unsynced(ctx, h.err)
		case <-rm.bus.ctx.Done():
			return bus.ErrClosed
		}
	}
}

func (rm *room) unsynced(ctx context.Context, err error) error {
	if err == nil {
		err = context.Cause(ctx)
	}
	return unavailable(fmt.Errorf("read the newest id of %s: %w", rm.name, err))
}

// await returns once all is delivered that the log had when its head was read.
func (rm *room) await(ctx context.Context, h *head) error {
	rm.mu.Lock()
	rm.foundLocked(h.id, h.run)
	lost := h.id.Less(h.at)
	if rm.state == live && lost {
		rm.repairNowLocked()
	}
	if rm.state == live && !rm.at.Less(h.id) {
		rm.mu.Unlock()
		return nil
	}
	if rm.state == over {
		rm.mu.Unlock()
		return bus.ErrClosed
	}
	w := &waiter{id: h.id, reads: rm.reads, whole: rm.state != live, lost: lost, done: make(chan struct{})}
	rm.waiters = append(rm.waiters, w)
	rm.mu.Unlock()
	late := time.NewTimer(arrivesWithin)
	defer late.Stop()
	for {
		select {
		case <-w.done:
			return rm.syncedOrOver()
		case <-late.C:
			rm.mu.Lock()
			if rm.state == live {
				rm.repairNowLocked()
			}
			rm.mu.Unlock()
		case <-ctx.Done():
			rm.mu.Lock()
			defer rm.mu.Unlock()
			rm.releaseWaitersLocked(func(other *waiter) bool { return other == w })
			return rm.unsynced(ctx, nil)
		}
	}
}

func (rm *room) syncedOrOver() error {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.state == over {
		return bus.ErrClosed
	}
	return nil
}

// releaseWaitersLocked ends the waiting of those for whom ok holds.
func (rm *room) releaseWaitersLocked(ok func(*waiter) bool) {
	kept := rm.waiters[:0]
	for _, w := range rm.waiters {
		if ok(w) {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	clear(rm.waiters[len(kept):])
	rm.waiters = kept
}

// arrivedAtLocked ends the waiting of those who wait for an id up to which all is delivered.
func (rm *room) arrivedAtLocked() {
	rm.releaseWaitersLocked(func(w *waiter) bool { return !w.whole && !rm.at.Less(w.id) })
}

// askHead gives a read of the newest id that has not begun.
func (rm *room) askHead() *head {
	rm.idsMu.Lock()
	h, first := rm.head, false
	if h == nil {
		h = &head{done: make(chan struct{})}
		rm.head, first = h, !rm.headSent
	}
	rm.idsMu.Unlock()
	if first {
		rm.link.mender.addHead(rm)
	}
	return h
}

// appendHead appends the read that was asked for, and gives what takes the answer.
func (rm *room) appendHead(out []byte) ([]byte, func(resp.Value)) {
	rm.mu.Lock()
	at := rm.at
	rm.mu.Unlock()
	if owed := rm.owed(); at.Less(owed) {
		at = owed
	}
	rm.idsMu.Lock()
	h := rm.head
	rm.head, rm.headSent = nil, true
	rm.idsMu.Unlock()
	h.at, h.run = at, rm.bus.server.runNow()
	return resp.Append(out, "GET", rm.keys.last), func(v resp.Value) {
		switch v.Kind {
		case resp.Text:
			h.id, h.err = id.Parse(string(v.Text))
		case resp.Error:
			h.err = refusal(v.Text)
		}
		if rm.bus.redirected(v) {
			go rm.bus.cluster.readHead(rm, h)
		} else {
			close(h.done)
		}
		rm.idsMu.Lock()
		rm.headSent = false
		more := rm.head != nil
		rm.idsMu.Unlock()
		if more {
			rm.link.mender.addHead(rm)
		}
	}
}
