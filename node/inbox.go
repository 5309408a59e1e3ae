package node

import (
	"context"
	"sync"
	"time"

	"parley/bus"
)

// An inbox holds what the bus brought for a room until the room is flushed, and says when that is: at once after a quiet
// window, else when the window is over, so that a busy room's messages share their writes.
type inbox struct {
	mu     sync.Mutex
	items  []item      // guarded by mu
	state  inboxState  // guarded by mu
	rested time.Time   // guarded by mu; when the next flush may be, at the earliest
	timer  *time.Timer // guarded by mu; waits for rested

	messages int     // guarded by mu; bytes of messages among the items
	skipped  *bus.ID // guarded by mu; of the item that stands for messages which are too many, if there is one

	signals int         // guarded by mu; bytes of signals among the items
	changes int         // guarded by mu; changes of the roster among them
	change  *bus.Change // guarded by mu; the newest of these

	taken chan struct{} // guarded by mu; made by a waiter, closed when the items are taken
}

type inboxState byte

const (
	inboxQuiet  inboxState = iota // nothing waits
	inboxWaits                    // for the end of the window
	inboxQueued                   // for a flusher, or is being flushed
	inboxClosed
)

// An item is one thing that the bus brought.
type item struct {
	kind itemKind
	msg  bus.Message // of a signal only the Body
	who  *bus.Change
	skip *bus.ID
}

type itemKind byte

const (
	itemMessage itemKind = iota
	itemSkip             // so many messages came that the log has to serve them, up to skip
	itemSignal
	itemChange
	itemCount // it is time to tell how many members there are
)

// Bounds of what waits between two flushes.
const (
	maxMessages = 4 << 20   // bytes; the log serves more to every member by itself, which is dearer than a flush
	maxSignals  = 256 << 10 // bytes; more are dropped, as signals may be
	maxChanges  = 256       // more become one, which has the roster told anew

	itemBytes = 128 // about what a message takes beside its body
)

// fitsLocked counts an item, or makes up for one that is too much.
func (in *inbox) fitsLocked(it *item) bool {
	switch it.kind {
	case itemMessage:
		return in.messageFitsLocked(it)
	case itemSignal:
		if in.signals+len(it.msg.Body) > maxSignals {
			return false
		}
		in.signals += len(it.msg.Body)
	case itemChange:
		if in.changes >= maxChanges {
			*in.change = bus.Change{Kind: bus.Synced, Count: it.who.Count, Version: it.who.Version}
			return false
		}
		in.changes++
		in.change = it.who
	}
	return true
}

// messageFitsLocked is fitsLocked of a message. Past the bound one item stands for all that follow, up to a break or the flush.
func (in *inbox) messageFitsLocked(it *item) bool {
	size := len(it.msg.Body) + itemBytes
	switch {
	case it.msg.Break:
		in.skipped = nil
	case in.skipped != nil:
		*in.skipped = it.msg.ID
		return false
	case in.messages+size > maxMessages:
		last := it.msg.ID
		in.skipped = &last
		*it = item{kind: itemSkip, skip: &last}
	default:
		in.messages += size
	}
	return true
}

// add takes an item in. It reports whether the caller is to see to a flush now.
func (in *inbox) add(it item, wake func()) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.state == inboxClosed || !in.fitsLocked(&it) {
		return false
	}
	in.items = append(in.items, it)
	if in.state != inboxQuiet {
		return false
	}
	return in.dueLocked(wake)
}

// dueLocked moves on from quiet: it reports true, or sees to it that wake is called when the window is over.
func (in *inbox) dueLocked(wake func()) bool {
	wait := time.Until(in.rested)
	if wait <= 0 {
		in.state = inboxQueued
		return true
	}
	in.state = inboxWaits
	if in.timer == nil {
		in.timer = time.AfterFunc(wait, wake)
	} else {
		in.timer.Reset(wait)
	}
	return false
}

// woken reports, at the end of a window, whether the caller is to see to a flush.
func (in *inbox) woken() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.state != inboxWaits {
		return false
	}
	in.state = inboxQueued
	return true
}

// take moves the items to dst. The goroutine that flushes the room calls it.
func (in *inbox) take(dst []item) []item {
	in.mu.Lock()
	defer in.mu.Unlock()
	dst = append(dst, in.items...)
	in.takenLocked()
	clear(in.items)
	in.items = in.items[:0]
	in.messages, in.skipped = 0, nil
	in.signals, in.changes, in.change = 0, 0, nil
	if cap(in.items) > maxIdleItems {
		in.items = nil
	}
	return dst
}

// await returns once the items that are here now have been taken: they are flushed for the next holder of room.mu.
func (in *inbox) await(ctx context.Context) error {
	in.mu.Lock()
	if len(in.items) == 0 {
		in.mu.Unlock()
		return nil
	}
	if in.taken == nil {
		in.taken = make(chan struct{})
	}
	taken := in.taken
	in.mu.Unlock()
	select {
	case <-taken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (in *inbox) takenLocked() {
	if in.taken != nil {
		close(in.taken)
		in.taken = nil
	}
}

// maxIdleItems bounds the memory that a room keeps between flushes.
const maxIdleItems = 4

// rest ends a flush and starts the window. It reports whether the caller is to see to another flush now.
func (in *inbox) rest(began time.Time, wake func()) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.state == inboxClosed {
		return false
	}
	now := time.Now()
	in.rested = now.Add(windowAfter(now.Sub(began)))
	in.state = inboxQuiet
	if len(in.items) == 0 {
		return false
	}
	return in.dueLocked(wake)
}

func (in *inbox) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.state = inboxClosed
	in.items = nil
	in.takenLocked()
	if in.timer != nil {
		in.timer.Stop()
	}
}
