package redis

import (
	"slices"
	"strings"
	"time"

	"parley/bus/redis/resp"
)

// While a slot of a Cluster moves, its primaries refuse scripts whose keys they have in part, or not any more. What was refused, and
// what follows it in the room, is held in order: it is tried again until the primary takes it, or moves with the room to another.

const (
	redirectPause = 50 * time.Millisecond // between two tries
	heldFor       = 20 * time.Second      // what is held for longer fails
)

// A hold is the ops of a room that wait.
type hold struct {
	ops    []*op
	until  time.Time
	leaves bool   // with the room: none is sent until they are taken
	moved  func() // is called once none of the room's ops is under way; nil if it was, or for a room that stays
}

// isRedirect reports whether a node of a Cluster says that another has the room, or will have.
func isRedirect(said string) bool {
	return strings.HasPrefix(said, "MOVED ") || strings.HasPrefix(said, "ASK ") || strings.HasPrefix(said, "TRYAGAIN") ||
		strings.Contains(said, "non local key") || strings.HasPrefix(said, "CLUSTERDOWN Hash slot not served")
}

// redirected reports whether v says so. The topology is looked at then.
func (r *Bus) redirected(v resp.Value) bool {
	if r.cluster == nil || v.Kind != resp.Error || !isRedirect(string(v.Text)) {
		return false
	}
	r.cluster.look()
	return true
}

// holdLocked keeps those ops of a batch that were redirected, and what waits behind them. It gives the others.
func (p *publisher) holdLocked(ops []*op) (others []*op) {
	if p.link.bus.cluster == nil {
		return ops
	}
	var kept map[string]*hold
	for _, o := range ops {
		if !o.redirected {
			others = append(others, o)
			continue
		}
		if p.finished || time.Since(o.began) > heldFor {
			o.err = unavailable(refusal("TRYAGAIN its slot is on the move"))
			others = append(others, o)
			continue
		}
		if kept == nil {
			kept = make(map[string]*hold)
		}
		if kept[o.name()] == nil {
			kept[o.name()] = new(hold)
		}
		*o = op{room: o.room, keys: o.keys, body: o.body, key: o.key, hasKey: o.hasKey, sum: o.sum, began: o.began, done: o.done}
		kept[o.name()].ops = append(kept[o.name()].ops, o)
		p.bytes += o.size()
	}
	if kept == nil {
		return others
	}
	p.queue = slices.DeleteFunc(p.queue, func(o *op) bool {
		h := kept[o.name()]
		if h != nil {
			h.ops = append(h.ops, o)
		}
		return h != nil
	})
	for room, h := range kept {
		had := p.holdOfLocked(room)
		had.ops = append(h.ops, had.ops...)
		had.until = time.Now().Add(redirectPause)
	}
	time.AfterFunc(redirectPause, func() { wake(p.link.wake) })
	return others
}

func (p *publisher) holdOfLocked(room string) *hold {
	if p.held == nil {
		p.held = make(map[string]*hold)
	}
	h := p.held[room]
	if h == nil {
		h = new(hold)
		p.held[room] = h
	}
	return h
}

// releaseLocked queues what has waited for long enough.
func (p *publisher) releaseLocked() {
	now := time.Now()
	for room, h := range p.held {
		if !h.leaves && !now.Before(h.until) {
			p.queue = append(h.ops, p.queue...)
			delete(p.held, room)
		}
	}
}

func (p *publisher) holdsNothingLocked() bool {
	for _, h := range p.held {
		if len(h.ops) > 0 {
			return false
		}
	}
	return true
}

// failHeldLocked adds those that a failure concerns.
func (p *publisher) failHeldLocked(f *failure, failed []*op) []*op {
	for room, h := range p.held {
		if len(h.ops) == 0 || !f.concerns(h.ops[0]) {
			continue
		}
		for _, o := range h.ops {
			p.bytes -= o.size()
		}
		failed = append(failed, h.ops...)
		if h.ops = nil; !h.leaves {
			delete(p.held, room)
		}
	}
	return failed
}

// move calls moved, in a goroutine of its own, once none of a room's ops is under way. What is published in the room from then on
// waits until it is taken.
func (p *publisher) move(room string, moved func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.holdOfLocked(room)
	h.leaves, h.moved = true, moved
	p.queue = slices.DeleteFunc(p.queue, func(o *op) bool {
		mine := o.keys != nil && o.keys.room == room
		if mine {
			h.ops = append(h.ops, o)
		}
		return mine
	})
	p.movableLocked()
}

// movableLocked calls those moved whose time has come.
func (p *publisher) movableLocked() {
	if p.batch != nil || p.failed != nil {
		return
	}
	for _, h := range p.held {
		if h.moved != nil {
			go h.moved()
			h.moved = nil
		}
	}
}

// take gives what is held of a room, and holds it no more.
func (p *publisher) take(room string) []*op {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.held[room]
	delete(p.held, room)
	if h == nil {
		return nil
	}
	for _, o := range h.ops {
		p.bytes -= o.size()
	}
	p.restLocked()
	return h.ops
}

// give queues what was taken elsewhere, however much it is. It reports false where all has ended.
func (p *publisher) give(ops []*op) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	for _, o := range ops {
		p.bytes += o.size()
	}
	p.queue = append(p.queue, ops...)
	wake(p.link.wake)
	return true
}
