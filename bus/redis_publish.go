package bus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"

	"parley/bus/id"
)

const (
	batchOps   = 256       // in one pipeline: a few milliseconds of Redis's time
	batchBytes = 512 << 10 // in one pipeline
	opBytes    = 512       // what an op costs beside its body
)

// Publish implements Bus.
func (r *Redis) Publish(room string, d Draft, done func(ID, error)) {
	o := &op{room: room, keys: r.keys(room), kind: "m", body: bytesAsString(d.Body), began: time.Now(), done: done}
	var both [24]byte
	copy(both[:16], d.Key[:])
	binary.LittleEndian.PutUint64(both[16:], d.Sum)
	written := string(both[:])
	o.sum = written[16:]
	if d.Key != (Key{}) {
		o.key = written[:16]
	}
	r.publisherOf(room).add(o)
}

// Signal implements Bus.
func (r *Redis) Signal(room string, body []byte, done func(error)) {
	o := newPlainOp(r.keys(room).channel, "s"+bytesAsString(body), done)
	r.publisherOf(room).add(o)
}

func (r *Redis) publisherOf(room string) *publisher {
	return r.publishers[hash(room)%uint32(len(r.publishers))]
}

// hash is FNV-1a.
func hash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

// bytesAsString shares the bytes, which nobody may change from here on: bodies are read-only by contract.
func bytesAsString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// stringAsBytes shares the string, whose bytes must not be written to: go-redis makes a string of its own of each
// payload, and bodies are read-only by contract.
func stringAsBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// An op is something to publish, from the time it is queued until it is settled.
type op struct {
	room  string
	keys  *roomKeys
	kind  string // "m" or "g", as in append.lua
	body  string
	key   string // "" for none
	sum   string // 8 bytes
	began time.Time
	done  func(ID, error)

	channel string // of a plain PUBLISH instead of an entry in the log; "" for none
	told    func(error)

	cmd    *redis.Cmd // set when it is sent, as are the others
	floor  string
	random int
	args   [18]any // point to the above, which spares an allocation each
}

// newPlainOp publishes body on a channel and keeps nothing. told may be nil.
func newPlainOp(channel, body string, told func(error)) *op {
	return &op{channel: channel, body: body, told: told}
}

func (o *op) size() int { return opBytes + len(o.body) }

// A publisher publishes what is hashed to it: all that waits in one pipeline, one pipeline at a time, so that what one
// sender publishes into one room keeps its order.
type publisher struct {
	bus  *Redis
	wake chan struct{} // capacity 1

	mu       sync.Mutex
	queue    []*op    // guarded by mu
	bytes    int      // guarded by mu; of the queue
	failed   *failure // guarded by mu; while it is being told
	finished bool     // guarded by mu
	idle     chan struct{}
}

func newPublisher(r *Redis) *publisher {
	return &publisher{bus: r, wake: make(chan struct{}, 1), idle: make(chan struct{})}
}

// A failure is why nothing that was published later may be taken until all have been told: it would overtake what their
// senders are to repeat.
type failure struct {
	err   error
	rooms map[string]bool // that it concerns; nil for all
}

func (f *failure) concerns(o *op) bool { return f != nil && (f.rooms == nil || f.rooms[o.room]) }

var errQueueFull = errors.New("too much is waiting to be published")

// add queues an op, or settles it at once if it can't be.
func (p *publisher) add(o *op) {
	p.mu.Lock()
	var err error
	switch {
	case p.finished:
		err = ErrClosed
	case p.failed.concerns(o):
		err = p.failed.err
	case p.bytes+o.size() > p.bus.cfg.QueueBytes:
		err = unavailable(errQueueFull)
	default:
		p.queue = append(p.queue, o)
		p.bytes += o.size()
	}
	p.mu.Unlock()
	if err != nil {
		p.settle(o, ID{}, err)
		return
	}
	wake(p.wake)
}

// finish takes nothing new. idle is closed when all that waits is settled.
func (p *publisher) finish() {
	p.mu.Lock()
	p.finished = true
	p.mu.Unlock()
	wake(p.wake)
}

func (p *publisher) run() {
	defer close(p.idle)
	var batch []*op
	for {
		p.mu.Lock()
		batch = p.takeLocked(batch[:0])
		finished := p.finished
		p.mu.Unlock()
		switch {
		case len(batch) > 0:
			p.publish(batch)
			clear(batch)
		case finished:
			return
		default:
			select {
			case <-p.wake:
			case <-p.bus.ctx.Done():
				p.mu.Lock()
				p.finished = true
				p.mu.Unlock()
			}
		}
	}
}

func (p *publisher) takeLocked(batch []*op) []*op {
	n, bytes := 0, 0
	for n < len(p.queue) && n < batchOps && bytes < batchBytes {
		bytes += p.queue[n].size()
		n++
	}
	batch = append(batch, p.queue[:n]...)
	rest := copy(p.queue, p.queue[n:])
	clear(p.queue[rest:])
	p.queue = p.queue[:rest]
	p.bytes -= bytes
	return batch
}

// publish sends a batch and settles it. What waits behind an op that failed fails too: all of it if the connection broke,
// otherwise what goes into the same room.
func (p *publisher) publish(batch []*op) {
	cmds := make([]redis.Cmder, len(batch))
	for i, o := range batch {
		o.cmd = p.bus.command(o)
		cmds[i] = o.cmd
	}
	var f *failure
	err := exec(context.Background(), p.bus.own, cmds)
	if err != nil {
		p.bus.complain("publish", err)
		err = unavailable(err)
		f = &failure{err: err}
	} else {
		f = refusals(batch)
	}
	behind := p.fail(f)
	for _, o := range batch {
		p.settleAnswered(o, err)
	}
	for _, o := range behind {
		p.settle(o, ID{}, f.err)
	}
	if f != nil {
		p.fail(nil)
	}
}

// refusals gives the rooms in which something was refused.
func refusals(batch []*op) (f *failure) {
	for _, o := range batch {
		if err := o.cmd.Err(); err != nil {
			if f == nil {
				f = &failure{err: unavailable(err), rooms: make(map[string]bool)}
			}
			f.rooms[o.room] = true
		}
	}
	return f
}

// fail has what the failure concerns fail from now on, and returns what of that is waiting. nil ends the failure.
func (p *publisher) fail(f *failure) (waiting []*op) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = f
	if f == nil {
		return nil
	}
	p.queue = slices.DeleteFunc(p.queue, func(o *op) bool {
		if !f.concerns(o) {
			return false
		}
		waiting = append(waiting, o)
		p.bytes -= o.size()
		return true
	})
	return waiting
}

// settleAnswered settles an op by the answer to its command. broken is why there may be none.
func (p *publisher) settleAnswered(o *op, broken error) {
	err := o.cmd.Err()
	if err != nil {
		if broken == nil || isReply(err) {
			p.bus.complain("publish", err)
			broken = unavailable(err)
		}
		p.settle(o, ID{}, broken)
		return
	}
	switch v := o.cmd.Val().(type) {
	case string:
		i, err := id.Parse(v)
		if err != nil {
			err = unavailable(fmt.Errorf("answer %q: %w", v, err))
		}
		p.settle(o, i, err)
	case int64: // of a plain PUBLISH the number of receivers, otherwise the script's 0
		if o.channel != "" {
			p.settle(o, ID{}, nil)
			return
		}
		p.settle(o, ID{}, ErrConflict)
	default: // no answer, where the connection was refused
		if broken == nil {
			broken = unavailable(fmt.Errorf("answer %v", v))
		}
		p.settle(o, ID{}, broken)
	}
}

func (p *publisher) settle(o *op, i ID, err error) {
	if o.channel != "" {
		if o.told != nil {
			o.told(err)
		}
		return
	}
	if err == nil {
		if rm := p.bus.roomNamed(o.room); rm != nil {
			rm.acknowledged(i)
		}
	}
	p.bus.cfg.Observer.Published(time.Since(o.began), err)
	o.done(i, err)
}

// command makes an op's command. It is called when the op is sent, so that the floor is as high as it can be.
func (r *Redis) command(o *op) *redis.Cmd {
	if o.channel != "" {
		return redis.NewCmd(context.Background(), "publish", &o.channel, &o.body)
	}
	if rm := r.roomNamed(o.room); rm != nil {
		o.floor = rm.floorText()
	}
	return r.appendCommand(o)
}

// appendCommand runs append.lua.
func (r *Redis) appendCommand(o *op) *redis.Cmd {
	o.random = rand.IntN(1 << 16)
	k := o.keys
	o.args = [...]any{
		"evalsha", &appendSHA, 5, &k.log, &k.last, &k.records[0], &k.records[1], &k.brk,
		&k.channel, &o.kind, &o.body, &o.key, &o.sum, &o.floor, &o.random, r.limits[0], r.limits[1], r.limits[2],
	}
	return redis.NewCmd(context.Background(), o.args[:]...)
}

// lastLife is how long the last id's key outlives the last use of its room: longer than the log.
func (r *Redis) lastLife() time.Duration { return r.cfg.Retention.Age + time.Hour }

// complain logs what is wrong with Redis, at most once in a few seconds.
func (r *Redis) complain(doing string, err error) {
	if r.closed.Load() {
		return
	}
	now := time.Now().UnixNano()
	before := r.complained.Load()
	if now-before > int64(complainEvery) && r.complained.CompareAndSwap(before, now) {
		r.log.Warn("redis: "+doing, "err", err)
	}
}

const complainEvery = 5 * time.Second
