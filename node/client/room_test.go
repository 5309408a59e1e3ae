package client

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"parley/node/wire"
)

// Who says what was seen last is given what followed, once, whatever the limit.
func TestAJoinResumesAfterWhatWasSeenElsewhere(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		var l log
		limit, since := 7, ID{Ms: 40}
		go c.Join(t.Context(), "lobby", JoinOptions{Handle: l.handle, Limit: &limit, Since: &since})
		j := fc.want("join")
		if j.Since == nil || *j.Since != since || j.Limit != nil {
			t.Errorf("it asked for what followed %v, at most %v", j.Since, j.Limit)
		}
		fc.say(wire.Joined{Req: j.Req, Room: "lobby", Last: ID{Ms: 50}})
		fc.message("lobby", "you", "", "seen", since)
		fc.message("lobby", "you", "", "missed", ID{Ms: 50})
		if got := l.said(); got != "missed" {
			t.Errorf("heard %q", got)
		}
	})
}

// A room's handler is told of each time that the node lets the client in, with what the node says of it, and of no attempt.
func TestTheHandlerIsToldWhatTheNodeSaysOfARoom(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		var l log
		here := []wire.Member{{ID: "me"}, {ID: "b", Name: "Bea", Info: `{"a":1}`}}
		no := false
		later := &wire.Error{Code: wire.Unavailable}
		errs := make(chan error, 1)
		join := func() { _, err := c.Join(t.Context(), "lobby", JoinOptions{Handle: l.handle}); errs <- err }
		wantEvents := func(want ...Event) {
			t.Helper()
			synctest.Wait()
			if len(l.events) != len(want) || len(want) > 0 && !reflect.DeepEqual(l.events, want) {
				t.Errorf("told %+v, want %+v", l.events, want)
			}
			l.events = nil
		}

		go join()
		fc.say(wire.Reject{Req: fc.want("join").Req, Err: later})
		fc.say(wire.Reject{Req: fc.want("join").Req, Err: wire.Errorf(wire.Forbidden, "members only")})
		if err := <-errs; err == nil {
			t.Error("joined a room that the node refused")
		}
		wantEvents() // who has not been in does not leave

		go join()
		fc.say(wire.Joined{Req: fc.want("join").Req, Room: "lobby", Last: ID{Ms: 8}, Members: here, Count: 300})
		if err := <-errs; err != nil {
			t.Error(err)
		}
		wantEvents(Joined{Last: ID{Ms: 8}, Members: here, Count: 300})
		fc.say(wire.Presence{Room: "lobby", Event: wire.EventLeave, User: &here[1], Count: 299, Presence: 4})
		wantEvents(Presence{Event: wire.EventLeave, User: here[1], Count: 299, Version: 4})
		fc.say(wire.Presence{Room: "lobby", Event: wire.EventSync, Members: here, Count: 2, Presence: 5})
		wantEvents(Presence{Event: wire.EventSync, Members: here, Count: 2, Version: 5})

		fc.cut()
		fc = n.next()
		fc.welcome()
		fc.say(wire.Reject{Req: fc.want("join").Req, Err: later})
		fc.say(wire.Joined{Req: fc.want("join").Req, Room: "lobby", Last: ID{Ms: 9}, Recovered: &no, Members: here[:1], Count: 1})
		wantEvents(Joined{Last: ID{Ms: 9}, Recovered: &no, Members: here[:1], Count: 1})

		fc.cut()
		fc = n.next()
		fc.welcome()
		banned := wire.Errorf(wire.Forbidden, "banned")
		fc.say(wire.Reject{Req: fc.want("join").Req, Err: banned})
		wantEvents(Left{banned})
	})
}

// The answer to a join that was given up is for nobody.
func TestAJoinThatIsGivenUpTellsNothingAnyMore(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		for _, answer := range []interface{ Append([]byte) []byte }{
			wire.Joined{Room: "lobby"},
			wire.Reject{Err: &wire.Error{Code: wire.Unavailable}},
			wire.Reject{Err: wire.Errorf(wire.Forbidden, "members only")},
		} {
			var l, l2 log
			ctx, cancel := context.WithCancel(t.Context())
			errs := make(chan error)
			go func() {
				errs <- func() error { _, err := c.Join(ctx, "lobby", JoinOptions{Handle: l.handle}); return err }()
			}()
			given := fc.want("join")
			cancel()
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			leave := fc.want("leave")
			go func() {
				errs <- func() error { _, err := c.Join(t.Context(), "lobby", JoinOptions{Handle: l2.handle}); return err }()
			}()
			again := fc.want("join")
			switch a := answer.(type) {
			case wire.Joined:
				a.Req = given.Req
				fc.say(a)
			case wire.Reject:
				a.Req = given.Req
				fc.say(a)
			}
			fc.say(wire.OK{Req: leave.Req})
			time.Sleep(time.Minute / 2) // nothing is asked for, which this would read
			fc.say(wire.Joined{Req: again.Req, Room: "lobby"})
			if err := <-errs; err != nil {
				t.Errorf("who comes after got %v", err)
			}
			fc.message("lobby", "you", "", "hello", ID{Ms: 5})
			if got := l2.said(); got != "hello" || len(l.events) > 0 {
				t.Errorf("heard %q, and the one who gave up %+v", got, l.events)
			}
			go func() { errs <- c.rooms["lobby"].Leave(t.Context()) }()
			fc.say(wire.OK{Req: fc.want("leave").Req})
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// Who does not wait for the answer has left nevertheless.
func TestLeaveReturnsWithItsContext(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		left := make(chan error, 1)
		go func() { left <- r.Leave(ctx) }()
		fc.want("leave")
		time.Sleep(2 * time.Second)
		select {
		case err := <-left:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		default:
			t.Fatal("it waits on")
		}
		if _, err := r.Send(t.Context(), "x"); !errors.Is(err, ErrLeft) {
			t.Errorf("sent after leaving: %v", err)
		}
	})
}

// What the reader has in hand while the room is left or lost is told to nobody.
func TestARoomThatIsLeftTellsNothingAnyMore(t *testing.T) {
	for name, end := range map[string]func(*Room){
		"left": func(r *Room) { r.endLocked(ErrLeft) },
		"lost": func(r *Room) { r.awayLocked() },
	} {
		r := &Room{c: &Client{}, in: true, live: true, joined: make(chan error, 1), seen: newRecent()}
		end(r)
		if e := r.event(&wire.Frame{Op: "message", Entry: wire.Entry{ID: ID{Ms: 1}}}); e != nil {
			t.Errorf("a room that is %s tells %+v", name, e)
		}
	}
}
