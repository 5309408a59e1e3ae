package memory

import (
	"context"

	"parley/bus"
)

// An event is one thing that sinks are to be told.
type event struct {
	to      []*subscription // those there when it happened; shared
	kind    eventKind
	message bus.Message // of a signal only the Body
	change  bus.Change
}

type eventKind byte

const (
	messageEvent eventKind = iota
	signalEvent
	presenceEvent
)

// deliverMost is how many events a caller delivers before a goroutine takes over. Without it, a caller could be kept for ever by
// others who add events as fast as it delivers them.
const deliverMost = 1024

// maxSpareEvents bounds what a room keeps of its queue when that is empty.
const maxSpareEvents = 64

// tellLocked queues an event for all who are subscribed.
func (r *room) tellLocked(e event) {
	if len(r.subs) == 0 {
		return
	}
	e.to = r.subs
	r.queue = append(r.queue, e)
}

// unlock reports whether the caller has to call deliver. If not, there is nothing to deliver, or someone delivers already.
func (r *room) unlock() bool {
	mine := !r.delivering && len(r.queue) > 0
	if mine {
		r.delivering = true
	}
	r.mu.Unlock()
	return mine
}

// signalAndUnlock tells all who are subscribed, and unlocks the room.
func (r *room) signalAndUnlock(body []byte, done func(error)) {
	r.tellLocked(event{kind: signalEvent, message: bus.Message{Body: body}})
	mine := r.unlock()
	done(nil)
	if mine {
		r.deliver()
	}
}

func (r *room) unlockAndDeliver() {
	if r.unlock() {
		r.deliver()
	}
}

// deliver calls the sinks until the queue is empty. Only the goroutine that set delivering calls it, so a room's sinks are
// called one at a time. They are called without a lock: a sink may publish.
func (r *room) deliver() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for told := 0; len(r.queue) > 0; {
		if told >= deliverMost {
			go r.deliver() // ends with the queue, and for a closed subscription with the round
			return
		}
		batch := r.queue
		r.queue, r.spare = r.spare, nil
		r.mu.Unlock()
		for i := range batch {
			batch[i].tell()
		}
		told += len(batch)
		clear(batch)
		r.mu.Lock()
		if cap(batch) <= maxSpareEvents {
			r.spare = batch[:0]
		}
		r.round++
		r.told.Broadcast()
	}
	r.delivering = false
	r.told.Broadcast()
}

func (e *event) tell() {
	for _, s := range e.to {
		if s.closed.Load() {
			continue
		}
		switch e.kind {
		case messageEvent:
			s.sink.Deliver(e.message)
		case signalEvent:
			s.sink.Signal(e.message.Body)
		case presenceEvent:
			s.sink.Presence(e.change)
		}
	}
}

// awaitRound returns once no sink is being called with what was taken from the queue up to that round.
func (r *room) awaitRound(round uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.delivering && r.round == round {
		r.told.Wait()
	}
}

// awaitTold returns once the sinks were told all that is in the queue now, true, or once ctx is over, false.
func (r *room) awaitTold(ctx context.Context) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.delivering {
		return true
	}
	until := r.round + 1 // what was taken from the queue is told
	if len(r.queue) > 0 {
		until++
	}
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told.Broadcast()
	})
	defer stop()
	for r.delivering && r.round < until {
		if ctx.Err() != nil {
			return false
		}
		r.told.Wait()
	}
	return true
}
