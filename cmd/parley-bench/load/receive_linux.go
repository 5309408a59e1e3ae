package load

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// read takes what a connection has, as far as it fits the buffer; what is left makes it ready again.
func (l *loop) read(c *conn) {
	for {
		kept := copy(l.buf, c.rest)
		n, err := c.receive(l.buf[kept:])
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return
		case err != nil:
			l.drop(c, fmt.Errorf("read: %w", err))
			return
		case n == 0:
			l.drop(c, errHungUp)
			return
		}
		l.now = l.clock.now()
		l.load.mark(l.now)
		b := l.buf[:kept+n]
		if c.state == upgrading {
			done := false
			if b, done = l.upgraded(c, b); !done {
				c.keep(b)
				return
			}
		}
		c.keep(l.take(c, b))
		if c.secure == nil || c.fd < 0 {
			return
		} // what TLS has decrypted already makes no socket ready, so that is read to the end
	}
}

// receive is read(2), or what takes its place with TLS. At the end n is 0.
func (c *conn) receive(b []byte) (n int, err error) {
	if c.secure != nil {
		return c.secure.receive(b)
	}
	return unix.Read(int(c.fd), b)
}

// keep keeps the beginning of a frame until the rest of it is there. Most reads end with a frame, so nothing is held then.
func (c *conn) keep(rest []byte) {
	switch {
	case len(rest) > 0:
		c.rest = append(c.rest[:0], rest...)
	case cap(c.rest) > 1024:
		c.rest = nil
	default:
		c.rest = c.rest[:0]
	}
}

// take handles the whole frames in b and returns what follows them. It does not allocate for a delivery as it should be.
func (l *loop) take(c *conn, b []byte) (rest []byte) {
	for c.fd >= 0 {
		op, msg, n, err := c.framer.next(b)
		if err != nil {
			l.drop(c, err)
			return nil
		}
		if n == 0 {
			return b
		}
		b = b[n:]
		switch op {
		case opText:
			if at := findStamp(msg, c.room.hint); at >= 0 {
				l.deliver(c, msg, at)
			} else {
				l.reply(c, msg)
			}
		case opPing:
			l.frame = appendFrame(l.frame[:0], opPong, msg)
			l.write(c, l.frame)
		case opClose:
			l.drop(c, closeReason(msg))
		case opBinary:
			l.drop(c, errors.New("a binary message came"))
		}
	}
	return nil
}

// deliver checks and measures a message whose stamp begins at at.
func (l *loop) deliver(c *conn, msg []byte, at int) {
	if c.room.hint != at {
		c.room.hint = at
	}
	load := &l.load
	if end := at + l.fixedEnd; end >= len(msg) || msg[end] != stampEnd {
		load.check.Damaged++
		return
	}
	due, v := c.receiver.take(msg[at:])
	switch v {
	case fresh, late:
		load.delivered++
		if due >= load.step.From && due < load.step.To {
			record(load.latency, l.now-due)
		}
	case repeated:
		load.check.Duplicated++
	case foreign:
		load.check.Foreign++
	case damaged:
		load.check.Damaged++
	case stale: // its step has been settled without it
	}
}

// reply handles what is no message.
func (l *loop) reply(c *conn, msg []byte) {
	if l.codec == Text {
		l.load.check.Foreign++
		l.fail(fmt.Errorf("a message came that nobody here sent: %.60q", msg))
		return
	}
	r, err := parseReply(msg)
	if err != nil {
		l.drop(c, err)
		return
	}
	seq, ofSend := r.request()
	switch {
	case r.Op == "ok" && ofSend:
		l.answered(c, seq, "")
	case r.Op == "error" && ofSend:
		l.answered(c, seq, string(r.Code)+" "+r.Message)
	case r.Op == "ok" && string(r.Req) == joinRequest:
		if c.state == joining {
			l.setJoined(c)
		}
	case r.Op == "welcome" && c.state == greeting:
		c.state = ready
		l.settlePhase(c, nil)
	case r.Op == "gap":
		l.load.check.Gaps++
	case r.Op == "error" || r.Op == "bye":
		l.drop(c, fmt.Errorf("the server says %s: %s %s%s", r.Op, r.Code, r.Message, r.Reason))
	}
}
