package node

import (
	"encoding/json"
	"time"

	"parley/bus"
	"parley/node/socket"
	"parley/node/wire"
)

// A batch is the frames of one flush, encoded once for each codec and shared by all members: a delivery copies nothing and
// allocates nothing.
type batch struct {
	r       *room
	began   time.Time
	items   []item // what the room's inbox had
	from    bus.ID // the room's head before the batch: a member that misses the batch goes on from there
	handed  uint64 // the room's presence.handed before it
	frames  [codecs][]byte
	wanted  [codecs]bool // the codecs that have members
	count   int          // messages
	own     []own        // messages that were said by connections of this node
	scratch []byte
	extra   []byte // the frames for one member only
}

// own is a message in the batch that a connection of this node said.
type own struct {
	from       wire.Origin
	id         bus.ID
	settled    bool // that it has come acknowledges it
	start, end int  // its frame in frames[plain]
}

// maxBatch bounds the bytes of a batch in one codec. The rest of the flush goes into another batch.
const maxBatch = 64 << 10

// beginLocked begins a flush. It needs room.mu.
func (b *batch) beginLocked(r *room) {
	b.r, b.began = r, time.Now()
	for c := range b.wanted {
		b.wanted[c] = r.speak[c] > 0
	}
	b.resetLocked()
}

// end drops the references to the room and to what was in its inbox.
func (b *batch) end() {
	b.r = nil
	clear(b.items)
	if cap(b.items) > maxBatchItems {
		b.items = nil
	}
}

// maxBatchItems bounds the memory that a batch keeps between flushes.
const maxBatchItems = 1024

// resetLocked begins another batch of the same flush. It needs room.mu.
func (b *batch) resetLocked() {
	b.from, b.handed, b.count, b.own = b.r.head, b.r.presence.handed, 0, b.own[:0]
	for c := range b.frames {
		b.frames[c] = b.frames[c][:0]
	}
}

// addLocked encodes one item. It needs room.mu.
func (b *batch) addLocked(it *item) {
	switch it.kind {
	case itemMessage:
		if it.msg.Break {
			b.breakLocked(&it.msg)
			return
		}
		b.messageLocked(&it.msg)
	case itemSkip:
		b.skipLocked(*it.skip)
	case itemSignal:
		b.scratch = wire.AppendSignal(b.scratch[:0], it.msg.Body)
		if len(b.scratch) > 0 {
			b.eventLocked("signal")
		}
	case itemChange:
		b.r.changedLocked(b, it.who)
	case itemCount:
		b.r.countLocked(b)
	}
}

// messageLocked encodes a message, and moves the room's head on to it. It needs room.mu.
func (b *batch) messageLocked(m *bus.Message) {
	r := b.r
	start := len(b.frames[plain])
	for c := range codecs {
		if b.wanted[c] {
			b.frames[c], b.scratch = c.appendMessage(b.frames[c], b.scratch, m)
		}
	}
	if origin, ok := wire.OriginOf(m.Body); ok && r.srv.isOwn(origin.Conn) {
		b.own = append(b.own, own{origin, m.ID, !m.Unsettled, start, len(b.frames[plain])})
	}
	b.count++
	r.head = m.ID
	r.recent.add(*m, b.began)
	r.srv.cfg.Observer.DeliveryDelay(b.began.Sub(time.UnixMilli(int64(m.ID.Ms))))
	b.sendIfFullLocked()
}

// skipLocked passes over messages that were too many to wait for the flush, up to last: each member is served from the log. It needs
// room.mu.
func (b *batch) skipLocked(last bus.ID) {
	b.sendLocked()
	r := b.r
	from := r.head
	r.head = last
	r.recent.reset(last)
	for _, m := range r.members {
		if m.live {
			m.overflowLocked(from, r.presence.handed)
		}
	}
	b.resetLocked()
}

// breakLocked tells every member of a break in the chain. A member whose queue is full goes on from before the break, and is told
// by catchUp. It needs room.mu.
func (b *batch) breakLocked(m *bus.Message) {
	b.sendLocked()
	r := b.r
	again := !m.Marker.IsZero() && m.Marker == r.recent.broke // told before its entry came by
	r.head = m.ID
	r.recent.reset(m.ID)
	if again {
		b.resetLocked()
		return
	}
	if !m.Marker.IsZero() {
		r.recent.broke = m.Marker
	}
	b.frameLocked("gap", wire.Gap{Room: r.name, After: m.Lost, Last: m.ID})
	b.sendLocked()
	for _, mem := range r.members {
		if mem.live {
			mem.told = r.recent.broke
			mem.s.gapTold()
		}
	}
}

// frameLocked adds a frame other than a message, in the codecs that have words for it. It needs room.mu.
func (b *batch) frameLocked(op string, f appender) {
	b.scratch = f.Append(b.scratch[:0])
	b.eventLocked(op)
}

func (b *batch) eventLocked(op string) {
	for c := range codecs {
		if b.wanted[c] {
			b.frames[c] = c.appendEvent(b.frames[c], op, b.scratch)
		}
	}
	b.sendIfFullLocked()
}

// sendIfFullLocked keeps a batch to about maxBatch. It needs room.mu.
func (b *batch) sendIfFullLocked() {
	for c := range codecs {
		if len(b.frames[c]) > maxBatch {
			b.sendLocked()
			return
		}
	}
}

// emptyLocked reports that there is nothing to write, such as when the count of a large room is to be told later.
func (b *batch) emptyLocked() bool {
	for c := range b.frames {
		if len(b.frames[c]) > 0 {
			return false
		}
	}
	return len(b.own) == 0
}

// sendLocked writes the batch to every live member and begins the next one. If there is nothing to write, it looks at nobody: a large
// room that ends would cost the square of its size. It needs room.mu.
func (b *batch) sendLocked() {
	if b.emptyLocked() {
		b.resetLocked()
		return
	}
	var members, bytes [codecs]int
	for i, m := range b.r.members {
		if i%membersPerYield == membersPerYield-1 {
			yield()
		}
		if !m.live {
			continue
		}
		frames, answers, answered := b.frames[m.codec], 0, 0
		if len(b.own) > 0 && b.saidBy(m) {
			frames, answers, answered = b.personal(m.s)
		}
		fits := len(frames) == 0 || m.offer(frames)
		if !fits {
			m.conn.Put(frames[:answers]) // which the log does not have
			m.overflowLocked(b.from, b.handed)
		}
		if answered > 0 {
			m.s.pending.answered(answered)
		}
		if !fits || len(frames) == 0 {
			continue
		}
		members[m.codec]++
		bytes[m.codec] += len(frames)
	}
	for c := range codecs {
		if members[c] > 0 {
			b.r.srv.cfg.Observer.Delivered(c.String(), members[c]*b.count, bytes[c])
		}
	}
	b.resetLocked()
}

func (b *batch) saidBy(m *member) bool {
	for i := range b.own {
		if b.own[i].from.Conn == m.id {
			return true
		}
	}
	return false
}

// personal returns the batch for a session that said some of it. The answers to its sends come first: so many bytes, to so many
// sends as pending.answered is to be told of. In plain text they have no bytes, and the session's own messages are left out.
func (b *batch) personal(s *session) (frames []byte, answers, answered int) {
	b.extra = b.extra[:0]
	rest := 0
	for i := range b.own {
		o := &b.own[i]
		if o.from.Conn != s.id {
			continue
		}
		var req json.RawMessage
		waits := false
		if o.settled {
			req, waits = s.pending.take(o.from.Seq)
		}
		if waits {
			answered++
		}
		switch {
		case !s.codec.hasWords():
			b.extra = append(b.extra, b.frames[plain][rest:o.start]...)
			rest = o.end
		case waits:
			b.scratch = wire.Sent{Req: req, ID: o.id}.Append(b.scratch[:0])
			b.extra = socket.AppendText(b.extra, b.scratch)
		}
	}
	answers = len(b.extra)
	if !s.codec.hasWords() {
		answers = 0
	}
	b.extra = append(b.extra, b.frames[s.codec][rest:]...)
	return b.extra, answers, answered
}
