package node

import (
	"context"
	"log/slog"
	"time"

	"parley/bus"
	"parley/node/wire"
)

// A member that joins, or was too slow for the fan-out, is not live: catchUp serves it from the log at its own speed, from its
// cursor up to the room's head, and makes it live there. It does that under the room's lock, so the member misses nothing and
// gets nothing twice.

// overflowLocked takes a member whose queue is full out of the fan-out. It misses what follows from, and what was told of the roster
// past handed. It needs room.mu.
func (m *member) overflowLocked(from bus.ID, handed uint64) {
	m.live = false
	m.cursor = from
	m.handed = handed
	m.s.srv.cfg.Observer.Overflowed()
	m.s.srv.notes.note(slow, m.s.connAttr(), m.s.fromAttr(), slog.String("user", m.user.ID), slog.String("room", m.r.name))
	m.s.srv.wg.Go(m.catchUp)
}

// catchUp serves a member until it is live. It ends early when the member left, its connection ended, or the node does.
func (m *member) catchUp() {
	var buf, scratch []byte
	for {
		if !m.conn.WaitForSpace() {
			return
		}
		buf = buf[:0]
		m.r.mu.Lock()
		var done bool
		cursor, greeted := m.cursor, m.greeted
		buf, scratch, done = m.serveRecentLocked(buf, scratch)
		fits := m.putIfSpace(buf)
		if !fits { // others have filled the queue meanwhile, such as its catch-ups in other rooms
			m.cursor, m.greeted, m.live, done = cursor, greeted, false, false
		}
		over := done || m.gone
		if over {
			m.ahead = nil // before another catchUp begins
		}
		m.r.mu.Unlock()
		if done && greeted {
			m.s.srv.cfg.Observer.CaughtUp()
		}
		if over {
			return
		}
		if len(buf) > 0 || !fits {
			continue
		}
		if !m.serveLog(buf, scratch) && !m.s.pause(m.r.srv.jitter(catchUpPause)) {
			return
		}
	}
}

// catchUpPause is how long catchUp waits for the bus to answer again, or for the room's flush to get as far as the log.
const catchUpPause = 50 * time.Millisecond

// pieceBytes is about how much catchUp writes in one go, if the queue is not a small one.
const pieceBytes = 32 << 10

// fits reports whether a piece of so many messages may be as large as buf: with what may wait when it is put, the queue holds it.
func (m *member) fits(buf []byte, messages int) bool {
	size := len(buf)
	if st := m.stream; st != nil {
		size += (messages + 1) * st.cursorBytes() // live has one too
	}
	return size <= min(pieceBytes, m.s.srv.cfg.QueueBytes/2)
}

// appendMessage appends a message, but for one that the client said itself where its codec has no words for that.
func (m *member) appendMessage(buf, scratch []byte, msg *bus.Message) (frames, grown []byte) {
	if !m.codec.hasWords() {
		if origin, ok := wire.OriginOf(msg.Body); ok && origin.Conn == m.id {
			return buf, scratch
		}
	}
	return m.codec.appendMessage(buf, scratch, msg)
}

// serveRecentLocked appends what follows the cursor, as far as the node has it in memory, and makes the member live if that
// is all. It needs room.mu, and the caller must put the frames before it unlocks.
func (m *member) serveRecentLocked(buf, scratch []byte) (frames, grown []byte, done bool) {
	msgs, ok := m.r.afterLocked(m.cursor, m.told)
	if !ok || m.gone {
		return buf, scratch, false
	}
	for i := range msgs {
		before := len(buf)
		buf, scratch = m.appendMessage(buf, scratch, &msgs[i])
		if before > 0 && !m.fits(buf, i+1) {
			return buf[:before], scratch, false
		}
		m.cursor = msgs[i].ID
	}
	return m.goLiveLocked(buf, scratch)
}

// goLiveLocked makes a member live that has reached the head, and appends what it is told then. It needs room.mu.
func (m *member) goLiveLocked(buf, scratch []byte) (frames, grown []byte, done bool) {
	m.live = true
	if !m.greeted {
		m.greeted = true
		scratch = wire.Live{Room: m.r.name}.Append(scratch[:0])
		buf = m.codec.appendEventAt(buf, m.cursor, "live", scratch)
	}
	if m.handed != m.r.presence.handed {
		sync := m.r.sync()
		if sync.Event == wire.EventSync {
			sync.Members, sync.Count, sync.Presence = m.rosterLocked()
		}
		scratch = sync.Append(scratch[:0])
		buf = m.codec.appendEvent(buf, "presence", scratch)
	}
	return buf, scratch, true
}

// serveLog writes one page of the log that follows the cursor, up to the head at the most, or tells of a gap. It reports
// whether it got on.
func (m *member) serveLog(buf, scratch []byte) bool {
	r := m.r
	page, err := m.next()
	if err != nil {
		return false
	}
	if !page.Complete {
		return m.skip(page)
	}
	r.mu.Lock()
	head, newest := r.head, m.told
	r.mu.Unlock()
	if len(page.Messages) == 0 || head.Less(page.Messages[0].ID) {
		return false // the log is ahead of the room, whose flush is under way
	}
	cursor := m.cursor
	for i := 0; i < len(page.Messages) && cursor != head; i++ {
		msg, before := &page.Messages[i], cursor
		cursor = msg.ID
		if !msg.Break {
			had := len(buf)
			buf, scratch = m.appendMessage(buf, scratch, msg)
			if had > 0 && !m.fits(buf, i+1) {
				buf, cursor = buf[:had], before
				break
			}
			continue
		}
		if !newest.Less(msg.Marker) {
			continue // the member was told
		}
		if len(buf) > 0 {
			cursor = before // first what is before the gap
			break
		}
		if !m.tellOfBreak(msg) {
			return true
		}
		newest = msg.Marker
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !m.gone && m.putIfSpace(buf) {
		m.cursor = cursor
	}
	return true
}

// tellOfBreak tells of a break in the log, unless the member has left: then it reports false.
func (m *member) tellOfBreak(brk *bus.Message) bool {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	if !m.gone {
		m.conn.Put(m.appendGap(nil, brk.Lost, brk.ID))
		m.told = brk.Marker
	}
	return !m.gone
}

// next is the page of the log that follows the cursor. A join has read the first one.
func (m *member) next() (bus.Page, error) {
	ahead := m.ahead
	m.ahead = nil
	if ahead != nil && ahead.since == m.cursor {
		return ahead.Page, nil
	}
	return m.r.after(m.r.srv.ctx, m.cursor)
}

// skip tells of a gap after the cursor and moves on: to all that the log has where only the cursor and what followed it is lost, or
// to the newest messages where it was trimmed past the cursor.
func (m *member) skip(page bus.Page) bool {
	lost, told := m.cursor, bus.ID{}
	for _, msg := range page.Messages {
		if msg.Break && msg.Lost.Less(m.cursor) { // the cursor itself is among what is lost there
			lost, told = msg.Lost, msg.Marker
			break
		}
	}
	if m.isPast(page) {
		lost = page.Last
	}
	start, err := m.resumption(page)
	if err != nil {
		return false
	}
	if lost != m.cursor && start.Less(lost) {
		start = lost // which was seen
	}
	if !start.Less(page.LastBreak) {
		told = page.LastBreak // else it is told in its place
	}
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	if !m.gone {
		m.put(m.appendGap(nil, lost, start))
		m.cursor = start
		if m.told.Less(told) {
			m.told = told
		}
	}
	return true
}

// resumption is where reading goes on after a gap: page is what the log has after the cursor.
func (m *member) resumption(page bus.Page) (bus.ID, error) {
	switch {
	case len(page.Messages) > 0 && page.Messages[0].Prev.Less(m.cursor):
		return page.Messages[0].Prev, nil // there the log goes on without the cursor
	case m.isPast(page):
		return page.Last, nil
	}
	ctx, cancel := context.WithTimeout(m.r.srv.ctx, busTimeout)
	defer cancel()
	return m.r.start(ctx, wire.DefaultBacklog)
}

// isPast reports that the log ends before the cursor, which the room has passed: the log has lost it, and nothing was said since. What
// the log has was seen. Of an id that the room has not come to nobody knows what it follows.
func (m *member) isPast(page bus.Page) bool {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	return len(page.Messages) == 0 && !page.Last.IsZero() && page.Last.Less(m.cursor) && !m.r.head.Less(m.cursor)
}

// appendGap appends a gap, in its place among the messages; last is where it goes on. If the client can't be told, its connection is
// closed, and takes nothing more.
func (m *member) appendGap(buf []byte, after, last bus.ID) []byte {
	m.s.gapTold()
	return m.codec.appendEvent(buf, "gap", wire.Gap{Room: m.r.name, After: after, Last: last}.Append(nil))
}
