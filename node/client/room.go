package client

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"parley/node/wire"
)

// JoinOptions are optional.
type JoinOptions struct {
	// Handle is told what happens, in order, on the goroutine that reads the connection: it must not block, nor call what
	// waits for an answer. SendAsync it may call.
	Handle func(Event)

	Limit *int // messages from before, without Since; default what the node gives
	Since *ID  // the last message seen, to resume from
}

// A Room is one that the client is in whenever there is a connection.
type Room struct {
	c      *Client     // static
	name   string      // static
	limit  *int        // static
	handle func(Event) // static; called by the reader, without the lock
	joined chan error  // static; has what came of the first attempt to join

	// Guarded by Client.mu.
	in     bool // the node has let us in, over the current link
	was    bool // it has, over any
	live   bool // and what was missed has come
	since  *ID  // where to resume; nil before the first answer
	floor  ID   // what is not above it was seen
	seen   recent
	outbox outbox
}

// Join joins a room, and stays in it over all connections until it is left. It returns when the node has answered, or ctx is
// done: then the room is left. What the node refuses is a *wire.Error.
func (c *Client) Join(ctx context.Context, room string, o JoinOptions) (*Room, error) {
	r := &Room{c: c, name: room, limit: o.Limit, handle: o.Handle, joined: make(chan error, 1), since: o.Since, seen: newRecent()}
	if r.handle == nil {
		r.handle = func(Event) {}
	}
	if o.Since != nil {
		r.floor = *o.Since
	}
	if err := c.enter(r); err != nil {
		return nil, fmt.Errorf("join %s: %w", room, err)
	}
	select {
	case err := <-r.joined:
		if err != nil {
			return nil, fmt.Errorf("join %s: %w", room, err)
		}
		return r, nil
	case <-ctx.Done():
		c.mu.Lock()
		r.leaveLocked()
		c.unlock()
		return nil, fmt.Errorf("join %s: %w", room, ctx.Err())
	}
}

func (c *Client) enter(r *Room) error {
	c.mu.Lock()
	defer c.unlock()
	if c.err != nil {
		return c.err
	}
	if bad := c.checkLocked(r.joinRequest()); bad != nil {
		return bad
	}
	if c.rooms[r.name] != nil {
		return fmt.Errorf("the client is in it already")
	}
	c.rooms[r.name] = r
	r.joinLocked()
	return nil
}

// Leave leaves the room. What is not acknowledged gets ErrLeft.
func (r *Room) Leave(ctx context.Context) error {
	r.c.mu.Lock()
	l, answered := r.leaveLocked()
	r.c.unlock()
	if l == nil {
		return nil
	}
	select {
	case <-answered:
	case <-l.lost:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// leaveLocked takes the room from the client. The link is nil if there is no answer to wait for.
func (r *Room) leaveLocked() (l *link, answered chan struct{}) {
	c := r.c
	if c.rooms[r.name] != r {
		return nil, nil
	}
	delete(c.rooms, r.name)
	r.endLocked(ErrLeft)
	if c.link != nil {
		answered = make(chan struct{})
		c.link.requestLocked(wire.Request{Op: "leave", Room: r.name}, func(*wire.Frame) { close(answered) })
	}
	return c.link, answered
}

// Signal tells those who are in the room now, such as that one is typing. It is never repeated.
func (r *Room) Signal(ctx context.Context, kind string, data json.RawMessage) error {
	_, err := r.c.ask(ctx, wire.Request{Op: "signal", Room: r.name, Kind: kind, Data: data})
	return err
}

// History reads at most limit messages before an id, oldest first, and whether there are more. Before nil means the newest.
func (r *Room) History(ctx context.Context, before *ID, limit int) (messages []wire.Entry, more bool, err error) {
	f, err := r.c.ask(ctx, wire.Request{Op: "history", Room: r.name, Before: before, Limit: &limit})
	if err != nil {
		return nil, false, err
	}
	return f.Messages, f.More, nil
}

// Members lists who is in the room, or some of them, and counts all.
func (r *Room) Members(ctx context.Context) (members []wire.Member, count int, err error) {
	f, err := r.c.ask(ctx, wire.Request{Op: "members", Room: r.name})
	if err != nil {
		return nil, 0, err
	}
	return f.Members, f.Count, nil
}

func (r *Room) joinRequest() *wire.Request {
	j := &wire.Request{Op: "join", Room: r.name, Since: r.since}
	if r.since == nil {
		j.Limit = r.limit
	}
	return j
}

// joinLocked asks the node to let the client in, if there is a connection.
func (r *Room) joinLocked() {
	if l := r.c.link; l != nil {
		l.requestLocked(*r.joinRequest(), func(f *wire.Frame) { r.answered(l, f) })
	}
}

// answered takes the answer to a join.
func (r *Room) answered(l *link, f *wire.Frame) {
	switch in, out := r.admit(l, f); {
	case in:
		r.handle(Joined{Last: f.Last, Recovered: f.Recovered, Members: f.Members, Count: f.Count})
		r.tell(nil)
	case out:
		r.handle(Left{f.Err()})
	}
}

// admit has the room in the client, or out of it if it was in.
func (r *Room) admit(l *link, f *wire.Frame) (in, out bool) {
	c := r.c
	c.mu.Lock()
	defer c.unlock()
	switch err := f.Err(); {
	case !r.onLocked(l):
		return false, false
	case f.Op == "error" && c.again(err):
		r.laterLocked(l, err.RetryAfter, r.joinLocked)
		return false, false
	case f.Op == "error":
		delete(c.rooms, r.name)
		r.endLocked(err)
		return false, r.was
	}
	r.in, r.was = true, true
	if r.since == nil {
		r.since = &f.Last // whatever comes of the messages from before, what follows is not to be missed
	}
	r.pumpLocked()
	return true, false
}

// tell lets Join return, if it has not.
func (r *Room) tell(err error) {
	select {
	case r.joined <- err:
	default:
	}
}

// onLocked reports whether the room is the client's, and the link too.
func (r *Room) onLocked(l *link) bool { return r.c.link == l && r.c.rooms[r.name] == r }

// awayLocked notes that there is no connection.
func (r *Room) awayLocked() {
	r.in, r.live = false, false
	r.outbox.rewind()
}

// endLocked settles what waits for the room, which is the client's no more.
func (r *Room) endLocked(why error) {
	r.in = false
	r.outbox.fail(r.c, why)
	r.tell(why)
}

// laterLocked calls f, with the lock, after a while, if the connection is still the same.
func (r *Room) laterLocked(l *link, wait time.Duration, f func()) {
	time.AfterFunc(wait+r.c.backoff(0), func() {
		r.c.mu.Lock()
		defer r.c.unlock()
		if r.onLocked(l) {
			f()
		}
	})
}

// take handles what happens in the room.
func (r *Room) take(f *wire.Frame) {
	if e := r.event(f); e != nil {
		r.handle(e)
	}
}

// event makes an Event of a frame, nil if it is none.
func (r *Room) event(f *wire.Frame) Event {
	c := r.c
	c.mu.Lock()
	defer c.unlock()
	if !r.in {
		return nil // of an earlier stay
	}
	if f.Op == "left" {
		delete(c.rooms, r.name)
		r.endLocked(f.Err())
		return Left{f.Err()}
	}
	user := wire.Member{ID: f.User.ID, Name: f.User.Name, Info: f.User.Info}
	switch f.Op {
	case "message":
		if !r.floor.Less(f.ID) {
			return nil
		}
		r.floor, r.since = f.ID, &f.ID
		if r.seen.add(&f.Entry) {
			return Message{Entry: f.Entry, Mine: f.From.ID == c.user.ID, Live: r.live}
		}
	case "live":
		r.live = true
		return Live{}
	case "gap":
		r.floor, r.since = ID{}, &f.Last
		return Gap{f.After, f.Last}
	case "presence":
		return Presence{Event: f.Event, User: user, Members: f.Members, Count: f.Count, Version: f.Presence}
	case "signal":
		return Signal{Kind: f.Kind, User: user, Data: f.Data}
	}
	return nil
}
