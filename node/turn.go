package node

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"parley/node/wire"
)

// Reading by turns: whoever has the session reads what has come, handles the messages that are whole, and gives it up again.
// Of a message that is not whole the beginning is kept. So a connection needs a goroutine only while one of its requests
// has to wait for something.

var errAgain = errors.New("nothing to read yet")

const (
	turnBuffer = 64 << 10    // what is read in one go
	deafWait   = time.Second // how long one whose answer to a close would not be understood has to take the close in
)

// turn handles what has come, and parks the session. What would have to wait goes on in a goroutine of its own.
func (s *session) turn(buf []byte) {
	switch err := s.takeTurn(buf, false); {
	case errors.Is(err, errWouldWait):
		s.srv.wg.Go(s.serveTurns)
	case err != nil:
		s.srv.wg.Go(func() { s.over(err) }) // leaving a room waits for its flush
	case !s.srv.lot.park(s):
		s.srv.wg.Go(func() { s.over(io.ErrClosedPipe) })
	}
}

var turnBuffers = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}

// serveTurns is a turn that may wait.
func (s *session) serveTurns() {
	buf := turnBuffers.Get().(*[]byte)
	defer turnBuffers.Put(buf)
	s.doTodo()
	if err := s.takeTurn(*buf, true); err != nil {
		s.over(err)
	} else if !s.srv.lot.park(s) {
		s.over(io.ErrClosedPipe)
	}
}

// errWouldWait is what a turn that may not wait answers when it has to: for space in the queue, for answers to sends, or for
// what todo asks.
var errWouldWait = errors.New("this has to wait")

// takeTurn handles what has come, as much as it reads in one go: a client that says more than that has its turn again after
// others. It answers nil then, and otherwise why it ended.
func (s *session) takeTurn(buf []byte, mayWait bool) error {
	c := s.conn
	rest, err := s.handleWhole(c.begun, mayWait) // what an earlier turn could not wait for
	c.keep(rest, s.srv.cfg.MessageWait)
	if err != nil {
		return err
	}
	n, err := c.readNow(buf)
	if errors.Is(err, errAgain) {
		return nil
	}
	if err != nil {
		return err
	}
	b := buf[:n]
	if len(c.begun) > 0 {
		c.begun = append(c.begun, b...)
		b = c.begun
	}
	rest, err = s.handleWhole(b, mayWait)
	c.keep(rest, s.srv.cfg.MessageWait)
	return err
}

// keep keeps what is left of what was read, and sees to it that a message which was begun is finished within wait.
func (c *conn) keep(rest []byte, wait time.Duration) {
	switch {
	case len(rest) > 0:
		if c.begun == nil {
			c.expect(wait)
		}
		c.begun = append(c.begun[:0], rest...)
	case c.begun != nil:
		c.begun = nil
		c.expect(0)
	}
}

// handleWhole handles the messages in b that are whole, and gives what is behind them.
func (s *session) handleWhole(b []byte, mayWait bool) (rest []byte, err error) {
	if s.codec == sse || s.deaf {
		return nil, nil
	}
	for len(b) > 0 {
		if s.mustWait() {
			if !mayWait {
				return b, errWouldWait
			}
			s.conn.waitForSpace()
			s.sends.wait(maxOpenSends, s.ended)
		}
		n, v := measure(b)
		switch v {
		case partial:
			return b, nil
		case tooBig:
			s.end(&closing{code: wire.StatusTooBig, reason: fmt.Sprintf("a message may have %d bytes, in few fragments", wire.MaxFrame)})
			s.conn.expireIn(deafWait)
			s.deaf = true
			return nil, nil
		case ping:
			s.conn.put(appendPong(nil, b[:n]))
		case whole:
			s.conn.given = b[:n]
			err = s.readOne(mayWait)
		}
		b = b[n:]
		if err != nil {
			return b, err
		}
	}
	return nil, nil
}

// mustWait reports that the next message is not to be handled yet.
func (s *session) mustWait() bool { return !s.conn.hasSpace() || s.sends.full() }

// appendPong answers a ping frame, which is whole and masked (RFC 6455 section 5.5.3).
func appendPong(dst, frame []byte) []byte {
	mask, payload := frame[2:6], frame[6:]
	dst = wire.AppendHeader(dst, wire.OpPong, len(payload))
	for i, c := range payload {
		dst = append(dst, c^mask[i%4])
	}
	return dst
}
