package node

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxPending is how many requests of one connection may be without an answer; the next is not read before one has it.
const maxPending = 64

// pending are those of a caller's sends and signals that have no answer yet. The answer comes from the bus, or with the message
// itself, whichever is first.
type pending struct {
	mu    sync.Mutex
	next  uint32           // guarded by mu
	open  []pendingRequest // guarded by mu; in the order they came
	taken int              // guarded by mu; requests whose answer is being said
	freed chan struct{}    // guarded by mu; made by a waiter, closed when a request was answered

	unconfirmed map[string]unconfirmed // guarded by mu; by room
	probe       uint32                 // guarded by mu; the number of the newest ping that asks whether the client knows of one
	order       sync.Mutex             // held from looking at unconfirmed until the bus has the send; comes before mu
	handing     atomic.Uint32          // which send the bus is being handed, 0 for none
}

// An unconfirmed send is one whose outcome is unknown: the client is to repeat it. What the client had sent before it knew must not
// overtake the repeat, so it is refused too, until the repeat comes or cannot be expected any more.
type unconfirmed struct {
	seq   uint32
	key   string
	probe uint32        // the ping that the client reads once it knows, 0 once it has
	wait  time.Duration // for the repeat, once the client knows
	until time.Time
}

const (
	// repeatWait is how long a repeat is waited for, once the client knows that it is to repeat.
	repeatWait = 5 * time.Second
	// probeWait is how long that is waited for: a client that reads nothing for longer is dropped.
	probeWait = 30 * time.Second
)

// unconfirm notes that the outcome of a send is unknown. The first one in a room counts. The bus calls it before it takes
// anything more into the room. Where the client answers pings, unconfirm reports whether one has to follow what it is told.
func (p *pending) unconfirm(seq uint32, room, key string, pings bool) (probe bool) {
	if p.handing.Load() != seq { // else the goroutine that holds order waits for this call, or has looked already
		p.order.Lock()
		defer p.order.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if u, ok := p.unconfirmed[room]; ok && u.seq < seq {
		return false
	}
	u := unconfirmed{seq: seq, key: key, wait: unavailableRetry}
	if key != "" {
		u.wait = repeatWait
	}
	u.until = time.Now().Add(u.wait)
	if pings {
		p.probe++
		u.probe, u.until = p.probe, time.Now().Add(probeWait)
	}
	if p.unconfirmed == nil {
		p.unconfirmed = make(map[string]unconfirmed)
	}
	p.unconfirmed[room] = u
	return pings
}

// appendProbe appends the payload of a ping: the number of the newest probe, nothing where there was none.
func (p *pending) appendProbe(dst []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.probe == 0 {
		return dst
	}
	return binary.BigEndian.AppendUint32(dst, p.probe)
}

// probed takes the payload of a pong: the client has read what it was told before that probe.
func (p *pending) probed(payload []byte) {
	if len(payload) != 4 {
		return
	}
	n := binary.BigEndian.Uint32(payload)
	p.mu.Lock()
	defer p.mu.Unlock()
	for room, u := range p.unconfirmed {
		if u.probe != 0 && u.probe <= n {
			u.probe, u.until = 0, time.Now().Add(u.wait)
			p.unconfirmed[room] = u
		}
	}
}

// passesLocked reports whether a send may go to the bus. It needs order.
func (p *pending) passesLocked(room, key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	u, ok := p.unconfirmed[room]
	if ok && (key == "" || key != u.key) && time.Now().Before(u.until) {
		return false
	}
	delete(p.unconfirmed, room)
	return true
}

// A pendingRequest is known to the bus by its seq, and to the client by its req.
type pendingRequest struct {
	seq uint32
	req json.RawMessage
}

// begin notes a request, and returns the number by which what it publishes is known.
func (p *pending) begin(req json.RawMessage) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	p.open = append(p.open, pendingRequest{p.next, req})
	return p.next
}

// take returns the req of a request that has no answer yet. The caller has to answer it, and then to call answered.
func (p *pending) take(seq uint32) (json.RawMessage, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	req, waits := p.takeLocked(seq)
	if waits {
		p.taken++
	}
	return req, waits
}

// answered notes that n requests which were taken have their answers: until then a goodbye waits.
func (p *pending) answered(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken -= n
	p.freeLocked()
}

func (p *pending) freeLocked() {
	if p.freed != nil {
		close(p.freed)
		p.freed = nil
	}
}

// answer has say answer a request that has no answer yet, before the flush of its message can find it answered.
func (p *pending) answer(seq uint32, say func(req json.RawMessage)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if req, waits := p.takeLocked(seq); waits {
		say(req)
		p.freeLocked()
	}
}

func (p *pending) takeLocked(seq uint32) (json.RawMessage, bool) {
	i := slices.IndexFunc(p.open, func(r pendingRequest) bool { return r.seq == seq })
	if i < 0 {
		return nil, false
	}
	req := p.open[i].req
	if p.open = slices.Delete(p.open, i, i+1); len(p.open) == 0 {
		p.open = nil // an idle connection keeps nothing
	}
	return req, true
}

// none reports whether every request has its answer.
func (p *pending) none() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)+p.taken == 0
}

// full reports whether there are as many as there may be.
func (p *pending) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)+p.taken >= maxPending
}

// wait returns once fewer than n requests are open; false if done is closed first.
func (p *pending) wait(n int, done <-chan struct{}) bool {
	for {
		p.mu.Lock()
		if len(p.open)+p.taken < n {
			p.mu.Unlock()
			return true
		}
		if p.freed == nil {
			p.freed = make(chan struct{})
		}
		freed := p.freed
		p.mu.Unlock()
		select {
		case <-freed:
		case <-done:
			return false
		}
	}
}
