package client

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"parley/node/wire"
)

// A Draft is a message that has not been said.
type Draft struct {
	Text string
	Data json.RawMessage // any JSON, for programs; nil for none
	Key  string          // the idempotency key; default one of Options.Key
}

// window is how many sends of a room are without an answer at a time.
const window = 64

// An outbox is what was sent into one room and has no answer yet, in order. The first ones are on their way over the
// current link, the others follow as answers come. After trouble it waits until nothing is on its way and a while has
// passed, and starts from its first again: what it repeats is in order. It is guarded by Client.mu.
type outbox struct {
	drafts []*draft
	open   int  // how many are on their way
	held   bool // after trouble
	timed  bool // what is held goes on at a time that is set
	after  time.Duration
}

type draft struct {
	request wire.Request
	done    func(ID, error)
	began   time.Time // of the first attempt
	open    bool      // it is on its way
}

// Send says something and waits until the room has it, over as many connections as that takes. A *wire.Error is the node's
// last word. If ctx is done first, the message may be said nevertheless.
func (r *Room) Send(ctx context.Context, text string) (ID, error) {
	return r.Say(ctx, Draft{Text: text})
}

// Say is Send, for all that a message can be.
func (r *Room) Say(ctx context.Context, d Draft) (i ID, err error) {
	settled := make(chan struct{})
	o := r.post(d, func(got ID, bad error) {
		i, err = got, bad
		close(settled)
	})
	select {
	case <-settled:
		return i, err
	case <-ctx.Done():
	}
	r.c.mu.Lock()
	if r.outbox.remove(o) {
		o.finish(r.c, ID{}, ctx.Err())
		r.resumeLocked()
	}
	r.c.unlock()
	<-settled
	return i, err
}

// SendAsync says something and does not wait: many can be on their way, and keep their order. done is called once, from any
// goroutine and possibly before SendAsync returns, and must not block.
func (r *Room) SendAsync(d Draft, done func(ID, error)) { r.post(d, done) }

func (r *Room) post(d Draft, done func(ID, error)) *draft {
	c := r.c
	if d.Key == "" {
		d.Key = c.opts.Key()
	}
	o := &draft{request: wire.Request{Op: "send", Room: r.name, Text: d.Text, Data: d.Data, Key: d.Key}, done: done}
	c.mu.Lock()
	defer c.unlock()
	bad := c.checkLocked(&o.request)
	switch {
	case c.err != nil:
		o.finish(c, ID{}, c.err)
	case c.rooms[r.name] != r:
		o.finish(c, ID{}, ErrLeft)
	case bad != nil:
		o.finish(c, ID{}, bad)
	default:
		r.outbox.drafts = append(r.outbox.drafts, o)
		r.pumpLocked()
	}
	return o
}

// finish has done called when the lock is given up.
func (o *draft) finish(c *Client, i ID, err error) {
	c.finished = append(c.finished, func() { o.done(i, err) })
}

// pumpLocked sends what may be sent.
func (r *Room) pumpLocked() {
	c, b := r.c, &r.outbox
	if !r.in || b.held {
		return
	}
	for i := b.open; i < len(b.drafts) && b.open < window; i++ {
		o := b.drafts[i]
		if o.began.IsZero() {
			o.began = time.Now()
		} else if time.Since(o.began) > KeyLife {
			b.remove(o)
			o.finish(c, ID{}, ErrUnconfirmed)
			i--
			continue
		}
		o.open = true
		b.open++
		c.link.requestLocked(o.request, func(f *wire.Frame) { r.replied(o, f) })
	}
}

// replied takes the answer to a send.
func (r *Room) replied(o *draft, f *wire.Frame) {
	c, b := r.c, &r.outbox
	c.mu.Lock()
	defer c.unlock()
	if !slices.Contains(b.drafts, o) {
		return // given up, or settled with the room
	}
	switch err := f.Err(); {
	case f.Op == "ok":
		b.remove(o)
		o.finish(c, f.ID, nil)
	case c.again(err) || err.Code == wire.NotJoined:
		b.open--
		o.open = false
		b.held, b.after = true, max(b.after, err.RetryAfter)
		if err.Code == wire.NotJoined && r.in {
			r.in, r.live = false, false
			r.joinLocked()
		}
	default:
		b.remove(o)
		o.finish(c, ID{}, err)
	}
	r.resumeLocked()
}

// resumeLocked goes on after an answer: with what waits or, after trouble, from the first again.
func (r *Room) resumeLocked() {
	b := &r.outbox
	switch {
	case !b.held:
		r.pumpLocked()
	case b.open == 0 && !b.timed:
		b.timed = true
		r.laterLocked(r.c.link, b.after, func() {
			b.held, b.timed, b.after = false, false, 0
			r.pumpLocked()
		})
	}
}

// rewind has everything wait for the next link.
func (b *outbox) rewind() {
	for _, o := range b.drafts {
		o.open = false
	}
	b.open, b.held, b.timed, b.after = 0, false, false, 0
}

// remove reports false if the draft was not there.
func (b *outbox) remove(o *draft) bool {
	i := slices.Index(b.drafts, o)
	if i < 0 {
		return false
	}
	b.drafts = slices.Delete(b.drafts, i, i+1)
	if o.open {
		b.open--
	}
	return true
}

func (b *outbox) fail(c *Client, err error) {
	for _, o := range b.drafts {
		o.finish(c, ID{}, err)
	}
	*b = outbox{}
}
