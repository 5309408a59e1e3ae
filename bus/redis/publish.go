package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
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

	// batchPause is the least time between the beginnings of two batches, unless one is full. After a quiet moment a message
	// leaves at once; on a busy node some messages share a batch. In 500 rooms of ten at 2,500 messages a second this spares two
	// batches in five, and a sixth of the CPU time of nodes and Redis.
	batchPause = 800 * time.Microsecond
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
	kind   string // "m" or "g", as in append.lua
	body   string
	key    bus.Key
	hasKey bool
	sum    [8]byte
	began  time.Time
	done   func(bus.ID, error)

	channel string // of a plain PUBLISH instead of an entry in the log; "" for none
	told    func(error)

	// Owned by the link's reader, once it was sent.
	answered bool
	id       bus.ID
	err      error
}

func newMessageOp(rm *room, k *roomKeys, d bus.Draft, done func(bus.ID, error)) *op {
	o := &op{room: rm, keys: k, kind: "m", body: bytesAsString(d.Body), began: time.Now(), done: done}
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
	queue    []*op     // guarded by mu
	bytes    int       // guarded by mu; of the queue
	batch    *batch    // guarded by mu; nil when nothing is sent and not settled
	sentAt   time.Time // guarded by mu; when a batch last was
	failed   *failure  // guarded by mu; while it is being told
	finished bool      // guarded by mu
	ended    bool      // guarded by mu; idle is closed
}

func (p *publisher) init(l *link) { p.link, p.idle = l, make(chan struct{}) }

// A batch is what was sent together.
type batch struct {
	ops      []*op
	unsent   []*op // to be sent again: Redis did not know the script
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
	p.mu.Lock()
	var err error
	switch {
	case p.finished:
		err = bus.ErrClosed
	case p.failed.concerns(o):
		err = p.failed.err
	case p.bytes+o.size() > p.link.bus.cfg.QueueBytes:
		err = unavailable(errQueueFull)
	default:
		p.queue = append(p.queue, o)
		p.bytes += o.size()
	}
	p.mu.Unlock()
	if err != nil {
		p.tell(o, bus.ID{}, err)
		return
	}
	wake(p.link.wake)
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
	if p.finished && !p.ended && len(p.queue) == 0 && p.batch == nil && p.failed == nil {
		p.ended = true
		close(p.idle)
	}
}

// early is how long the writer has to wait before the next batch.
func (p *publisher) early() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.batch != nil || len(p.queue) == 0 || len(p.queue) >= batchOps {
		return 0
	}
	return batchPause - time.Since(p.sentAt)
}

// appendBatch appends what the writer sends next, nothing while a batch is under way, and sets the reader's deadline for the
// answers.
func (p *publisher) appendBatch(out []byte, await []awaited, c *conn) ([]byte, []awaited) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ops []*op
	switch {
	case p.batch == nil:
		if ops = p.takeLocked(); len(ops) == 0 {
			return out, await
		}
		p.batch = &batch{ops: ops, awaited: len(ops)}
	case p.batch.unsent != nil && p.batch.awaited == 0:
		ops = p.batch.unsent
		out, await = appendLoad(out), append(await, awaited{op: &op{}})
		p.batch.unsent, p.batch.awaited, p.batch.reloaded = nil, 1+len(ops), true
	default:
		return out, await
	}
	p.sentAt = time.Now()
	_ = c.SetReadDeadline(p.sentAt.Add(p.link.bus.cfg.Timeout))
	for _, o := range ops {
		out = p.link.bus.appendOp(out, o)
		await = append(await, awaited{op: o})
	}
	return out, await
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

// isLate is called when the reader's deadline has passed. It reports whether an answer is late; if not, it sets a new deadline.
func (p *publisher) isLate(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.batch == nil {
		_ = c.SetReadDeadline(time.Time{})
		return false
	}
	deadline := p.sentAt.Add(p.link.bus.cfg.Timeout)
	_ = c.SetReadDeadline(deadline)
	return !time.Now().Before(deadline)
}

// answered takes the answer to an op of the batch.
func (p *publisher) answered(o *op, v resp.Value) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.batch
	f.awaited--
	if v.Kind == resp.Error && strings.HasPrefix(string(v.Text), "NOSCRIPT") && !f.reloaded {
		f.unsent = append(f.unsent, o)
		return
	}
	o.answer(v)
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
	p.settleAndUnlock(f.ops, refusals(f.ops))
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
	p.restLocked()
	if len(p.queue) > 0 {
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
	case o.kind == "m":
		if rm := o.roomOn(r); rm != nil && err == nil {
			rm.acknowledged(i)
		}
		r.cfg.Observer.Published(time.Since(o.began), err)
	}
	o.done(i, err)
}

// A refusal is what the server says that it will not do.
type refusal string

func (r refusal) Error() string { return string(r) }

// RedisError makes it one of go-redis's kind of error.
func (refusal) RedisError() {}

// appendOp appends an op's command. It is called when the op is sent, not when it is queued, so that the floor is as high as it
// can be.
func (r *Bus) appendOp(out []byte, o *op) []byte {
	if o.channel != "" {
		return resp.Append(out, "PUBLISH", o.channel, o.body)
	}
	k := o.keys
	out = resp.AppendCommand(out, 18)
	for _, arg := range []string{
		"EVALSHA", appendSHA, "5", k.log, k.last, k.records[0], k.records[1], k.lastBreak,
		k.channel, o.kind, o.body,
	} {
		out = resp.AppendArg(out, arg)
	}
	if o.hasKey {
		out = resp.AppendArg(out, o.key[:])
	} else {
		out = resp.AppendArg(out, "")
	}
	out = resp.AppendArg(out, o.sum[:])
	var floor []byte
	var buf [64]byte
	if rm := o.roomOn(r); rm != nil {
		floor = rm.appendFloor(buf[:0])
	}
	out = resp.AppendArg(out, floor)
	out = resp.AppendInt(out, rand.Int64N(1<<16))
	return append(out, r.limits...)
}
