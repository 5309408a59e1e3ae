package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"parley/bus"
	"parley/bus/id"
	"parley/bus/redis/resp"
)

const (
	batchOps   = 256       // in one batch: a few milliseconds of Redis's time
	batchBytes = 512 << 10 // in one batch
	opBytes    = 512       // what an op costs beside its body
)

// Publish implements bus.Subscription.
func (rm *room) Publish(d bus.Draft, done func(bus.ID, error)) {
	rm.link.publisher.add(newMessageOp(rm, rm.keys, d, done))
}

// Signal implements bus.Subscription.
func (rm *room) Signal(body []byte, done func(error)) {
	rm.link.publisher.add(newSignalOp(rm.keys, body, done))
}

// Publish implements bus.Bus.
func (r *Bus) Publish(room string, d bus.Draft, done func(bus.ID, error)) {
	if rm := r.roomNamed(room); rm != nil {
		rm.Publish(d, done)
		return
	}
	r.linkOf(room).publisher.add(newMessageOp(nil, keysOf(r.db, room), d, done))
}

// Signal implements bus.Bus.
func (r *Bus) Signal(room string, body []byte, done func(error)) {
	r.linkOf(room).publisher.add(newSignalOp(r.keys(room), body, done))
}

// bytesAsString shares the bytes, which nobody may change from here on: bodies are read-only by contract.
func bytesAsString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// stringAsBytes shares the string, whose bytes nobody may change: bodies are read-only by contract.
func stringAsBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// An op is something to publish, from the time it is queued until it is settled.
type op struct {
	room   *room // nil if the publisher did not subscribe to it
	keys   *roomKeys
	body   string
	key    bus.Key
	hasKey bool
	sum    [8]byte
	began  time.Time
	done   func(bus.ID, error)

	channel string // of a plain PUBLISH instead of an entry in the log; "" for none
	beat    bool   // a heartbeat: with a write, which only a primary takes
	told    func(error)

	next *op // owned by the link once it is sent: of the same call of the script

	// Owned by the link's reader, once it was sent.
	answered   bool
	redirected bool // refused by a node of a Cluster that does not have all of the room
	id         bus.ID
	err        error
}

func newMessageOp(rm *room, k *roomKeys, d bus.Draft, done func(bus.ID, error)) *op {
	o := &op{room: rm, keys: k, body: bytesAsString(d.Body), began: time.Now(), done: done}
	copy(o.key[:], d.Key[:])
	o.hasKey = d.Key != (bus.Key{})
	binary.LittleEndian.PutUint64(o.sum[:], d.Sum)
	return o
}

func newSignalOp(k *roomKeys, body []byte, done func(error)) *op {
	return newPlainOp(k.channel, "s"+bytesAsString(body), done)
}

// newPlainOp publishes body on a channel and keeps nothing. told may be nil.
func newPlainOp(channel, body string, told func(error)) *op {
	return &op{channel: channel, body: body, told: told}
}

// newBeatOp publishes a heartbeat.
func newBeatOp(channel string) *op { return &op{channel: channel, beat: true} }

func (o *op) size() int { return opBytes + len(o.body) }

// name is the room's name, "" for a plain PUBLISH.
func (o *op) name() string {
	if o.keys == nil {
		return ""
	}
	return o.keys.room
}

// roomOn is the subscription to the op's room, or nil. If the publisher had none, the node may have subscribed since.
func (o *op) roomOn(r *Bus) *room {
	if o.room != nil {
		return o.room
	}
	return r.roomNamed(o.keys.room)
}

// A publisher is the sending half of a link. It sends what waits in batches, one at a time: this keeps the order of what one
// sender publishes into one room.
type publisher struct {
	link *link
	idle chan struct{} // closed when it is finished, and all is settled

	mu       sync.Mutex
	queue    []*op    // guarded by mu
	bytes    int      // guarded by mu; of the queue
	batch    *batch   // guarded by mu; nil when nothing is sent and not settled
	failed   *failure // guarded by mu; while it is being told
	settled  uint64   // guarded by mu; batches, and failures
	finished bool     // guarded by mu
	ended    bool     // guarded by mu; idle is closed

	held map[string]*hold // guarded by mu; of a Cluster, rooms whose ops wait; see held.go

	calls map[string]*op // owned by nextCalls, empty outside it; the last op of each room's call
}

func (p *publisher) init(l *link) {
	p.link, p.idle, p.calls = l, make(chan struct{}), make(map[string]*op)
}

// A batch is what was sent together.
type batch struct {
	ops      []*op
	calls    []*op // the first op of each call
	unsent   []*op // calls to be sent again: Redis did not know the script
	awaited  int   // how many answers are to come
	reloaded bool  // it was sent again
}

// A failure is why some ops failed. Until all of their callers have been told, the publisher takes no more ops for the same
// rooms: they would overtake what the callers are going to repeat.
type failure struct {
	err   error
	rooms map[string]bool // that it concerns; nil for all
}

func (f *failure) concerns(o *op) bool { return f != nil && (f.rooms == nil || f.rooms[o.name()]) }

var errQueueFull = errors.New("too much is waiting to be published")

// add queues an op, or settles it at once with an error.
func (p *publisher) add(o *op) {
	if err := p.enqueue(o); err != nil {
		p.tell(o, bus.ID{}, err)
	}
}

// enqueue queues an op, or says why it does not.
func (p *publisher) enqueue(o *op) error {
	p.mu.Lock()
	var err error
	switch {
	case p.finished:
		err = bus.ErrClosed
	case p.failed.concerns(o):
		err = p.failed.err
	case p.bytes+o.size() > p.link.bus.cfg.QueueBytes:
		err = unavailable(errQueueFull)
	case p.held != nil && p.held[o.name()] != nil:
		h := p.held[o.name()]
		h.ops = append(h.ops, o)
		p.bytes += o.size()
	default:
		p.queue = append(p.queue, o)
		p.bytes += o.size()
	}
	p.mu.Unlock()
	if err == nil {
		wake(p.link.wake)
	}
	return err
}

// finish makes the publisher take nothing new. It closes idle once all that waits is settled.
func (p *publisher) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished = true
	p.restLocked()
}

// restLocked closes idle if nothing is left to do.
func (p *publisher) restLocked() {
	if p.finished && !p.ended && len(p.queue) == 0 && p.holdsNothingLocked() && p.batch == nil && p.failed == nil {
		p.ended = true
		close(p.idle)
	}
}

// awaitIdle returns once it is finished and all is settled, true, or once nothing has been settled for too long.
func (p *publisher) awaitIdle() bool {
	for settled := p.settledSoFar(); ; {
		select {
		case <-p.idle:
			return true
		case <-time.After(silence):
		}
		now := p.settledSoFar()
		if now == settled {
			return false
		}
		settled = now
	}
}

func (p *publisher) settledSoFar() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settled
}

// appendBatch appends what the writer sends next, nothing while a batch is under way. The messages of one room share a call of
// the script, which Redis does or refuses as a whole: so none of them overtakes another.
func (p *publisher) appendBatch(out []byte, await []awaited) ([]byte, []awaited) {
	calls, reload := p.nextCalls()
	if reload {
		out, await = p.link.bus.reloadScripts(out, await)
	}
	r := p.link.bus
	for _, o := range calls {
		if o.channel == "" { // what the log has lost is marked before anything is appended
			out, await = p.link.mender.askFirst(out, await, o.roomOn(r), o.keys.room)
		}
		if o.beat {
			out = resp.Append(out, "DEL", o.channel)
			await = append(await, awaited{answer: func(resp.Value) {}})
		}
		out = r.appendOp(out, o)
		await = append(await, awaited{op: o})
	}
	if n := r.cfg.Replicas; n > 0 && slices.ContainsFunc(calls, appends) {
		out = resp.AppendInt(resp.AppendArg(resp.AppendCommand(out, 3), "WAIT"), int64(n))
		out = resp.AppendInt(out, (r.cfg.Timeout / 2).Milliseconds())
		await = append(await, awaited{answer: p.replicated})
	}
	return out, await
}

// appends reports whether an op goes into the log of its room.
func appends(o *op) bool { return o.channel == "" }

// nextCalls begins a batch, or what Redis knew no script for of the last one, and gives the first op of each call.
func (p *publisher) nextCalls() (calls []*op, reload bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.batch == nil:
		p.releaseLocked()
		ops := p.takeLocked()
		if len(ops) == 0 {
			return nil, false
		}
		p.batch = &batch{ops: ops}
		for _, o := range ops {
			if o.channel == "" {
				if last := p.calls[o.keys.room]; last != nil {
					last.next = o
					p.calls[o.keys.room] = o
					continue
				}
				p.calls[o.keys.room] = o
			}
			p.batch.calls = append(p.batch.calls, o)
		}
		clear(p.calls)
	case p.batch.unsent != nil && p.batch.awaited == 0:
		p.batch.calls, p.batch.unsent, p.batch.reloaded = p.batch.unsent, nil, true
		reload = true
	default:
		return nil, false
	}
	p.batch.awaited = len(p.batch.calls)
	if p.link.bus.cfg.Replicas > 0 && slices.ContainsFunc(p.batch.calls, appends) {
		p.batch.awaited++
	}
	return p.batch.calls, reload
}

// replicated takes the answer to WAIT: how many replicas have all that was answered before it.
func (p *publisher) replicated(v resp.Value) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.batch == nil {
		return
	}
	p.batch.awaited--
	if v.Kind == resp.Int && v.Int >= int64(p.link.bus.cfg.Replicas) {
		return
	}
	err := unavailable(fmt.Errorf("%d of %d replicas have it", v.Int, p.link.bus.cfg.Replicas))
	if v.Kind == resp.Error {
		err = unavailable(refusal(v.Text))
	}
	for _, o := range p.batch.ops {
		if o.channel == "" && o.answered && o.err == nil {
			o.err = err
		}
	}
}

func (p *publisher) takeLocked() []*op {
	n, bytes := 0, 0
	for n < len(p.queue) && n < batchOps && bytes < batchBytes {
		bytes += p.queue[n].size()
		n++
	}
	batch := slices.Clone(p.queue[:n])
	p.queue = slices.Delete(p.queue, 0, n)
	p.bytes -= bytes
	return batch
}

// answered takes the answer to a call, of which o is the first op.
func (p *publisher) answered(o *op, v resp.Value) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.batch
	f.awaited--
	if isForgotten(v) && !f.reloaded {
		f.unsent = append(f.unsent, o)
		return
	}
	if o.channel == "" && p.link.bus.redirected(v) {
		for ; o != nil; o = o.next {
			o.redirected = true
		}
		return
	}
	if o.channel != "" || v.Kind != resp.Array {
		for ; o != nil; o = o.next {
			o.answer(v)
		}
		return
	}
	var last resp.Value
	for answers := v.Elems; o != nil; o = o.next {
		if len(answers) > 0 { // otherwise the last was an error, and what follows was not done
			last, answers = answers[0], answers[1:]
		} else if last.Kind != resp.Error {
			last = resp.Value{}
		}
		o.answer(last)
	}
}

// isForgotten reports whether the server does not know the script any more.
func isForgotten(v resp.Value) bool {
	return v.Kind == resp.Error && strings.HasPrefix(string(v.Text), "NOSCRIPT")
}

// answer notes what an answer says.
func (o *op) answer(v resp.Value) {
	o.answered = true
	switch v.Kind {
	case resp.Text: // the entry's id
		if o.id, o.err = id.Parse(string(v.Text)); o.err != nil {
			o.err = unavailable(fmt.Errorf("answer %q: %w", v.Text, o.err))
		}
	case resp.Int: // of a plain PUBLISH the number of receivers, otherwise the script's 0
		if o.channel == "" {
			o.err = bus.ErrConflict
		}
	case resp.Error:
		o.err = unavailable(refusal(v.Text))
	default:
		o.err = unavailable(fmt.Errorf("answer of kind %d", v.Kind))
	}
}

// settle tells the callers what came of the batch, once all of it is answered. If an op was refused, those that wait for the
// same room fail too.
func (p *publisher) settle() {
	p.mu.Lock()
	f := p.batch
	if f == nil || f.awaited > 0 {
		p.mu.Unlock()
		return
	}
	if f.unsent != nil {
		p.mu.Unlock()
		wake(p.link.wake)
		return
	}
	ops := p.holdLocked(f.ops)
	p.settleAndUnlock(ops, refusals(ops))
}

// broke settles everything after the connection broke, or could not be made.
func (p *publisher) broke(why error) {
	p.mu.Lock()
	var sent []*op
	if p.batch != nil {
		sent = p.batch.ops
	}
	for _, o := range sent {
		if !o.answered {
			o.err = why
		}
	}
	p.settleAndUnlock(sent, &failure{err: why})
}

// settleAndUnlock settles ops that were sent, and fails those that wait and that f concerns; a nil f concerns none. The caller
// holds mu, which settleAndUnlock unlocks.
func (p *publisher) settleAndUnlock(sent []*op, f *failure) {
	p.failed = f
	var behind []*op
	p.queue = slices.DeleteFunc(p.queue, func(o *op) bool {
		if !f.concerns(o) {
			return false
		}
		behind = append(behind, o)
		p.bytes -= o.size()
		return true
	})
	behind = p.failHeldLocked(f, behind)
	p.mu.Unlock()
	for _, o := range sent {
		p.tell(o, o.id, o.err)
	}
	for _, o := range behind {
		p.tell(o, bus.ID{}, f.err)
	}
	p.batchDone()
}

// batchDone is called when all callers were told of a batch, and of a failure.
func (p *publisher) batchDone() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.batch, p.failed = nil, nil
	p.settled++
	p.restLocked()
	p.movableLocked()
	if len(p.queue)+len(p.held) > 0 { // the time of what is held may have come meanwhile
		wake(p.link.wake)
	}
}

// refusals is the failure that refused ops make, nil for none.
func refusals(ops []*op) (f *failure) {
	for _, o := range ops {
		if errors.Is(o.err, bus.ErrUnavailable) {
			if f == nil {
				f = &failure{err: o.err, rooms: make(map[string]bool)}
			}
			f.rooms[o.name()] = true
		}
	}
	return f
}

// tell settles an op: it calls done.
func (p *publisher) tell(o *op, i bus.ID, err error) {
	r := p.link.bus
	if err != nil && errors.As(err, new(refusal)) {
		r.complain("publish", err)
	}
	switch {
	case o.channel != "":
		if o.told != nil {
			o.told(err)
		}
		return
	case err == nil:
		r.acknowledged(o, i)
	}
	r.cfg.Observer.Published(time.Since(o.began), err)
	o.done(i, err)
}

// acknowledged notes the id of an op where it is asked about: at the subscription, or at the room's trail. The subscription that
// the op came over may have been closed since, and there may be another.
func (r *Bus) acknowledged(o *op, i bus.ID) {
	for rm := o.roomOn(r); rm != nil; rm = r.roomNamed(o.keys.room) {
		if rm.acknowledged(i) {
			return
		}
	}
	r.trails.acknowledged(o.keys, i, r.server.runNow())
}

// A refusal is what the server says that it will not do.
type refusal string

func (r refusal) Error() string { return string(r) }

// RedisError makes it one of go-redis's kind of error.
func (refusal) RedisError() {}

// appendOp appends the command of an op and of those that share it. It is called when they are sent, not when they are queued, so
// that the floor is as high as it can be.
func (r *Bus) appendOp(out []byte, first *op) []byte {
	if first.channel != "" {
		return resp.Append(out, r.scripts.publish, first.channel, first.body)
	}
	n := 0
	for o := first; o != nil; o = o.next {
		n++
	}
	var floor []byte
	var buf [64]byte
	if rm := first.roomOn(r); rm != nil {
		floor = rm.appendFloor(buf[:0])
	}
	out = r.appendScript(out, r.scripts.append, first.keys, floor, 3*n)
	for o := first; o != nil; o = o.next {
		out = resp.AppendArg(out, o.body)
		if o.hasKey {
			out = resp.AppendArg(out, o.key[:])
		} else {
			out = resp.AppendArg(out, "")
		}
		out = resp.AppendArg(out, o.sum[:])
	}
	return out
}
