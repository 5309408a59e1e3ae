package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"parley/bus"
	"parley/node/wire"
)

// send says something in a room. The answer comes with the message itself (batch.personal), or from the bus.
func (s *Server) send(_ context.Context, c *caller, req *wire.Request) (appender, *wire.Error) {
	r, bad := c.room(req.Room)
	if bad != nil {
		return nil, bad
	}
	if c.leaving.Load() {
		return nil, busError(bus.ErrUnavailable)
	}
	c.pending.order.Lock()
	defer c.pending.order.Unlock()
	if !c.pending.passesLocked(r.name, req.Key) {
		return nil, busError(bus.ErrUnavailable)
	}
	seq, key := c.pending.begin(req.Req), req.Key
	c.pending.handing.Store(seq)
	defer c.pending.handing.Store(0)
	r.sub.Publish(draft(c, seq, req), func(id bus.ID, err error) {
		if err == nil {
			c.pending.answer(seq, func(req json.RawMessage) { c.replies.answer(wire.Sent{Req: req, ID: id}) })
			return
		}
		if req, waits := c.pending.take(seq); waits {
			probe := false
			if !errors.Is(err, bus.ErrConflict) {
				probe = c.pending.unconfirm(seq, r.name, key, c.answersPings())
			}
			c.replies.refuse(req, busError(err))
			if probe {
				c.session.ping()
			}
			c.pending.answered(1)
		}
	})
	return nil, nil
}

// signal tells the members of a room something that is not kept.
func (s *Server) signal(_ context.Context, c *caller, req *wire.Request) (appender, *wire.Error) {
	r, bad := c.room(req.Room)
	if bad != nil {
		return nil, bad
	}
	seq := c.pending.begin(req.Req)
	body := wire.Signalled{
		Origin: wire.Origin{Conn: c.id, Seq: seq},
		Room:   r.name,
		Kind:   req.Kind,
		User:   wire.Member{ID: c.user.ID, Name: c.user.Name},
		Data:   req.Data,
	}.Body()
	r.sub.Signal(body, func(err error) {
		c.pending.answer(seq, func(req json.RawMessage) {
			if err != nil {
				c.replies.refuse(req, busError(err))
				return
			}
			c.replies.answer(wire.OK{Req: req})
		})
	})
	return nil, nil
}

// draft is a send as it goes over the bus.
func draft(c *caller, seq uint32, req *wire.Request) bus.Draft {
	said := wire.Said{
		Origin: wire.Origin{Conn: c.id, Seq: seq},
		Room:   req.Room,
		From:   wire.Member{ID: c.user.ID, Name: c.user.Name, Info: c.user.Info},
		Text:   req.Text,
		Data:   req.Data,
		Key:    req.Key,
		At:     time.Now().UnixMilli(),
	}
	d := bus.Draft{Body: said.Body()}
	if req.Key != "" {
		d.Key = bus.KeyOf(cmp.Or(c.keys, c.user.ID), req.Key)
		d.Sum = wire.Sum(req.Text, req.Data)
	}
	return d
}

// unavailableRetry is what a client is told to wait before it repeats.
const unavailableRetry = time.Second

// busError is what a client is told when the bus failed.
func busError(err error) *wire.Error {
	if errors.Is(err, bus.ErrConflict) {
		return wire.Errorf(wire.Conflict, "%v", bus.ErrConflict)
	}
	return &wire.Error{
		Code:       wire.Unavailable,
		Message:    "the outcome is unknown, as the message bus does not answer: repeat with the same key",
		RetryAfter: unavailableRetry,
	}
}
