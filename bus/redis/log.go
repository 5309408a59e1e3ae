package redis

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/id"
)

// After implements bus.Bus.
func (r *Bus) After(ctx context.Context, room string, since bus.ID, limit, bytes int) (bus.Page, error) {
	p, err := r.page(ctx, room, limit, bytes, "xrange", r.following(since), "+")
	if len(p.Messages) > 0 {
		p.Complete = p.Messages[0].Prev == since
	} else {
		p.Complete = err == nil && p.Last == since
	}
	return p, err
}

// Before implements bus.Bus.
func (r *Bus) Before(ctx context.Context, room string, before bus.ID, limit, bytes int) (bus.Page, error) {
	end := "+"
	if !before.IsZero() {
		end = "(" + before.String()
	}
	p, err := r.page(ctx, room, limit, bytes, "xrevrange", end, r.oldest().String())
	slices.Reverse(p.Messages)
	return p, err
}

// page reads a part of a room's log.
func (r *Bus) page(ctx context.Context, room string, limit, bytes int, command, from, to string) (p bus.Page, err error) {
	q := r.query(ctx, r.reads)
	cmd := q.readLog(r.keys(room), command, from, to, max(0, limit), bytes)
	if err := q.send(); err != nil {
		return bus.Page{}, err
	}
	rd, err := parseLogRead(cmd)
	if err != nil {
		return bus.Page{}, unavailable(err)
	}
	p.Messages, p.More, p.Last, p.LastBreak = rd.messages, rd.more, rd.last, rd.lastBreak
	for _, m := range p.Messages {
		if p.Last.Less(m.ID) {
			p.Last = m.ID
		}
		if m.Break && p.LastBreak.Less(m.ID) {
			p.LastBreak = m.ID
		}
	}
	return p, nil
}

// A logRead is what read.lua answers.
type logRead struct {
	last, lastBreak bus.ID
	more            bool
	messages        []bus.Message // what is none of ours is passed over
	bytes           int           // of them, about
}

// readLog asks for a part of a room's log.
func (q *query) readLog(k *roomKeys, command, from, to string, limit, bytes int) *redis.Cmd {
	return q.do("evalsha", readSHA, 3, k.log, k.last, k.lastBreak, command, from, to, limit, bytes)
}

func parseLogRead(cmd *redis.Cmd) (rd logRead, err error) {
	answer, err := cmd.Slice()
	if err != nil {
		return rd, err
	}
	if len(answer) < 3 {
		return rd, errEntry
	}
	last, _ := answer[0].(string)
	lastBreak, _ := answer[1].(string)
	lastBreak, _, _ = strings.Cut(lastBreak, " ")
	rd.last, _ = id.Parse(last)
	rd.lastBreak, _ = id.Parse(lastBreak)
	rd.more = answer[2] == int64(1)
	if len(answer) == 3 {
		return rd, nil
	}
	rd.messages = make([]bus.Message, 0, len(answer)-3)
	for _, e := range answer[3:] {
		m, err := messageOf(e)
		if errors.Is(err, errForeign) {
			continue
		}
		if err != nil {
			return rd, err
		}
		rd.bytes += len(m.Body)
		rd.messages = append(rd.messages, m)
	}
	return rd, nil
}

// oldest is where what is read of a log begins: what is older may still be there, since logs are trimmed roughly.
func (r *Bus) oldest() bus.ID {
	return bus.ID{Ms: uint64(max(0, r.now().Add(-r.cfg.Retention.Age).UnixMilli()))}
}

// following is where a range begins that excludes an id. The greatest of all ids has no other form.
func (r *Bus) following(i bus.ID) string {
	oldest := r.oldest()
	switch {
	case i.Less(oldest):
		return oldest.String()
	case i == bus.ID{Ms: math.MaxUint64, Seq: math.MaxUint64}:
		return "+"
	}
	return "(" + i.String()
}

// A query is commands that are sent to Redis in one round trip.
type query struct {
	ctx    context.Context
	bus    *Bus
	client *redis.Client
	cmds   []redis.Cmder
}

func (r *Bus) query(ctx context.Context, c *redis.Client) *query {
	return &query{ctx: ctx, bus: r, client: c}
}

func (q *query) do(args ...any) *redis.Cmd {
	cmd := redis.NewCmd(q.ctx, args...)
	q.cmds = append(q.cmds, cmd)
	return cmd
}

func (q *query) get(key string) *redis.Cmd { return q.do("get", key) }

// send returns an error if any of the commands failed. That there is no such key is none.
func (q *query) send() error {
	if err := q.ask(); err != nil {
		return err
	}
	return refused(q.cmds...)
}

// ask returns an error if there is no answer. What was answered may be a refusal.
func (q *query) ask() error {
	if q.bus.closed.Load() && q.bus.ctx.Err() != nil {
		return bus.ErrClosed
	}
	if err := q.bus.exec(q.ctx, q.client, q.cmds); err != nil {
		return unavailable(err)
	}
	return nil
}

// refused gives the first refusal among the answers, nil without one.
func refused(cmds ...redis.Cmder) error {
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && err != redis.Nil {
			return unavailable(err)
		}
	}
	return nil
}

// idOf reads the answer to GET of an id. None is the zero ID.
func idOf(cmd *redis.Cmd) bus.ID {
	s, _ := cmd.Val().(string)
	i, _ := id.Parse(s)
	return i
}

// messageOf reads [id, [kind, text]].
func messageOf(entry any) (bus.Message, error) {
	pair, _ := entry.([]any)
	if len(pair) != 2 {
		return bus.Message{}, errEntry
	}
	written, _ := pair[0].(string)
	fields, _ := pair[1].([]any)
	i, err := id.Parse(written)
	if err != nil || len(fields) < 2 {
		return bus.Message{}, errEntry
	}
	kind, _ := fields[0].(string)
	text, _ := fields[1].(string)
	if kind != "m" && kind != "g" {
		return bus.Message{}, errForeign
	}
	m, err := parseEntry(i, kind[0], text)
	if err != nil {
		err = errForeign
	}
	return m, err
}

var (
	errEntry   = errors.New("not an entry of a log")
	errForeign = errors.New("an entry of somebody else's")
)

// parsePublished reads "id prev body", or of a marker "id prev lost".
func parsePublished(kind byte, s string) (bus.Message, error) {
	first, rest, ok := strings.Cut(s, " ")
	i, err := id.Parse(first)
	if !ok || err != nil {
		return bus.Message{}, errEntry
	}
	return parseEntry(i, kind, rest)
}

// parseEntry reads "prev body", or of a marker "prev lost".
func parseEntry(i bus.ID, kind byte, s string) (bus.Message, error) {
	first, rest, ok := strings.Cut(s, " ")
	prev, err := id.Parse(first)
	if !ok || err != nil {
		return bus.Message{}, errEntry
	}
	m := bus.Message{ID: i, Prev: prev}
	if kind == 'm' {
		m.Body = stringAsBytes(rest)
		return m, nil
	}
	m.Break, m.Marker = true, i
	m.Lost, err = id.Parse(rest)
	return m, err
}
