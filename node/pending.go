package node

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/bus"
	"parley/node/wire"
)

// maxOpenSends is how many sends of one connection may be without an answer; the next is not read before one has it.
const maxOpenSends = 64

// sends are those of a connection's sends that have no answer yet. The answer comes from the bus, or with the message
// itself, whichever is first.
type sends struct {
	mu    sync.Mutex
	next  uint32        // guarded by mu
	open  []openSend    // guarded by mu; in the order sent
	freed chan struct{} // guarded by mu; made by who waits, closed when one was answered

	doubts  map[string]doubt // guarded by mu; by room
	turn    sync.Mutex       // held from looking at doubts until the bus has the send
	handing atomic.Uint32    // which send the bus is being handed, 0 for none
}

// A doubt is a send whose outcome is unknown: the client is to repeat it. What the client had sent before it knew must not
// overtake the repeat, so it is refused too, until the repeat comes or cannot be expected any more.
type doubt struct {
	seq   uint32
	key   string
	until time.Time
}

// doubtWait is how long a repeat is waited for.
const doubtWait = 5 * time.Second

// doubt notes that the outcome of a send is unknown. The first one counts. It is called
// before the bus takes anything more into the room.
func (o *sends) doubt(seq uint32, room, key string) {
	if o.handing.Load() != seq { // else whoever has the turn waits for this call, or is past looking
		o.turn.Lock()
		defer o.turn.Unlock()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if d, ok := o.doubts[room]; ok && d.seq < seq {
		return
	}
	wait := unavailableRetry
	if key != "" {
		wait = doubtWait
	}
	if o.doubts == nil {
		o.doubts = make(map[string]doubt)
	}
	o.doubts[room] = doubt{seq, key, time.Now().Add(wait)}
}

// passes reports whether a send may go to the bus. It needs turn.
func (o *sends) passes(room, key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	d, ok := o.doubts[room]
	if ok && (key == "" || key != d.key) && time.Now().Before(d.until) {
		return false
	}
	delete(o.doubts, room)
	return true
}

type openSend struct {
	seq uint32
	req json.RawMessage
}

// begin notes a send, and gives the number that its message carries.
func (o *sends) begin(req json.RawMessage) uint32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	o.open = append(o.open, openSend{o.next, req})
	return o.next
}

// take gives the request of a send that has no answer yet; the caller answers it.
func (o *sends) take(seq uint32) (json.RawMessage, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.takeLocked(seq)
}

// answer has a send that has no answer yet answered by say, before the flush of its message can find it answered.
func (o *sends) answer(seq uint32, say func(req json.RawMessage)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if req, waits := o.takeLocked(seq); waits {
		say(req)
	}
}

func (o *sends) takeLocked(seq uint32) (json.RawMessage, bool) {
	i := slices.IndexFunc(o.open, func(s openSend) bool { return s.seq == seq })
	if i < 0 {
		return nil, false
	}
	req := o.open[i].req
	if o.open = slices.Delete(o.open, i, i+1); len(o.open) == 0 {
		o.open = nil // an idle connection keeps nothing
	}
	if o.freed != nil {
		close(o.freed)
		o.freed = nil
	}
	return req, true
}

// none reports whether every send has its answer.
func (o *sends) none() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.open) == 0
}

// full reports whether there are as many as there may be.
func (o *sends) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.open) >= maxOpenSends
}

// wait returns once fewer than n sends are open; false if done is closed first.
func (o *sends) wait(n int, done <-chan struct{}) bool {
	for {
		o.mu.Lock()
		if len(o.open) < n {
			o.mu.Unlock()
			return true
		}
		if o.freed == nil {
			o.freed = make(chan struct{})
		}
		freed := o.freed
		o.mu.Unlock()
		select {
		case <-freed:
		case <-done:
			return false
		}
	}
}

// publish says something in a room, and answers when the bus did.
func (s *session) publish(sub bus.Subscription, req *wire.Request) {
	s.sends.turn.Lock()
	defer s.sends.turn.Unlock()
	if !s.sends.passes(req.Room, req.Key) {
		s.refuse(req.Req, busError(bus.ErrUnavailable))
		return
	}
	seq, room, key := s.sends.begin(req.Req), req.Room, req.Key
	s.sends.handing.Store(seq)
	defer s.sends.handing.Store(0)
	d := draft(wire.Origin{Conn: s.id, Seq: seq}, s.user, req)
	sub.Publish(d, func(id bus.ID, err error) {
		if err == nil {
			s.sends.answer(seq, func(req json.RawMessage) { s.say("ok", wire.Sent{Req: req, ID: id}) })
			return
		}
		if req, waits := s.sends.take(seq); waits {
			if !errors.Is(err, bus.ErrConflict) {
				s.sends.doubt(seq, room, key)
			}
			s.refuse(req, busError(err))
		}
	})
}

// draft is what a send asks to be said, as it goes over the bus.
func draft(origin wire.Origin, user User, req *wire.Request) bus.Draft {
	said := wire.Said{
		Origin: origin,
		Room:   req.Room,
		From:   wire.Member{ID: user.ID, Name: user.Name},
		Text:   req.Text,
		Data:   req.Data,
		Key:    req.Key,
		At:     time.Now().UnixMilli(),
	}
	d := bus.Draft{Body: said.Body()}
	if req.Key != "" {
		d.Key = bus.KeyOf(user.ID, req.Key)
		d.Sum = wire.Sum(req.Text, req.Data)
	}
	return d
}

// unavailableRetry is what a client is told to wait before it repeats.
const unavailableRetry = time.Second

// busError says what a client is told when the bus failed.
func busError(err error) *wire.Error {
	if errors.Is(err, bus.ErrConflict) {
		return wire.Errorf(wire.Conflict, "%v", bus.ErrConflict)
	}
	return &wire.Error{
		Code:       wire.Unavailable,
		Message:    "the outcome is unknown, as the message bus does not answer: repeat with the same key",
		RetryAfter: unavailableRetry,
	}
}
