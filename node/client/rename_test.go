package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"parley/node/wire"
)

// A new name is asked for as one that is chosen now, and from then on told with the time that the node gave it: so no node takes who
// comes back with it for one who chose it just now.
func TestARenameIsKeptOverAllConnectionsWithItsTime(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		o := n.options()
		o.Name = "Ann"
		c, fc := n.dial(o)
		errs := make(chan error)
		rename := func(name string) wire.Request {
			t.Helper()
			go func() { errs <- c.Rename(t.Context(), name) }()
			h := fc.want("hello")
			if h.Name != name || h.Named != 0 || h.Session != "secret" {
				t.Errorf("asked for %q with %+v", name, h)
			}
			return h
		}
		greet := func(h wire.Request, name string, named int64) {
			t.Helper()
			fc.say(wire.Welcome{
				Req: h.Req, User: wire.User{ID: "me", Name: name, Guest: true}, Named: named, Session: "secret",
				Ping: 25, Limits: wire.LimitsOf(4096, 500),
			})
		}
		comesBack := func(name string, named int64) {
			t.Helper()
			fc.cut()
			fc = n.next()
			if h := fc.welcome(); h.Name != name || h.Named != named {
				t.Errorf("came back as %q, named %d, want %q, %d", h.Name, h.Named, name, named)
			}
		}
		comesBack("Ann", 0) // the node did not say since when

		greet(rename("Bea"), "Bea", 7000)
		if err := <-errs; err != nil || c.User().Name != "Bea" {
			t.Errorf("renamed to %q, %v", c.User().Name, err)
		}
		comesBack("Bea", 7000)

		h := rename("Cleo")
		fc.say(wire.Reject{Req: h.Req, Err: wire.Errorf(wire.BadRequest, "not that one")})
		if e, ok := errors.AsType[*wire.Error](<-errs); !ok || e.Code != wire.BadRequest {
			t.Errorf("got %v", e)
		}
		comesBack("Bea", 7000)

		rename("Dora")
		comesBack("Dora", 0) // it was lost on the way, or not
		greet(fc.want("hello"), "Dora", 9000)
		if err := <-errs; err != nil {
			t.Error(err)
		}
		comesBack("Dora", 9000)

		greet(rename("Eve"), "Fay", 9500) // who chose it elsewhere, later
		if err := <-errs; err != nil || c.User().Name != "Fay" {
			t.Errorf("renamed to %q, %v", c.User().Name, err)
		}
	})
}

// A name that may have been taken is kept, and one that was refused takes nothing from a later one.
func TestANameIsGivenUpOnlyWhereItWasRefused(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error)
		go func() { errs <- c.Rename(ctx, "Ann") }()
		fc.want("hello")
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		fc.cut()
		fc = n.next()
		if h := fc.welcome(); h.Name != "Ann" {
			t.Errorf("came back as %q, which was asked for", h.Name)
		}

		go func() { errs <- c.Rename(t.Context(), "Bea") }()
		bea := fc.want("hello")
		go c.Rename(t.Context(), "Cleo")
		cleo := fc.want("hello")
		fc.say(wire.Reject{Req: bea.Req, Err: wire.Errorf(wire.BadRequest, "not that one")})
		if err := <-errs; err == nil {
			t.Error("a name that was refused is taken")
		}
		fc.cut() // before Cleo is answered
		fc = n.next()
		if h := fc.welcome(); h.Name != "Cleo" || cleo.Name != "Cleo" {
			t.Errorf("asked for %q and came back as %q", cleo.Name, h.Name)
		}
	})
}

// Of two names that are asked for at once and both refused neither is kept, whichever is refused first: a node would refuse who comes back
// with it, again and again.
func TestOfTwoNamesThatAreRefusedNoneIsKept(t *testing.T) {
	for _, first := range []int{0, 1} {
		withFakeNode(t, func(t *testing.T, n *fakeNode) {
			opts := n.options()
			opts.Name = "Ann"
			c, fc := n.dial(opts)
			errs := make(chan error)
			var asked []wire.Request
			for _, name := range []string{"Bea", "Cleo"} {
				go func() { errs <- c.Rename(t.Context(), name) }()
				asked = append(asked, fc.want("hello"))
			}
			for i := range asked {
				fc.say(wire.Reject{Req: asked[(first+i)%2].Req, Err: wire.Errorf(wire.BadRequest, "not that one")})
				if err := <-errs; err == nil {
					t.Error("a name that was refused is taken")
				}
			}
			fc.cut()
			fc = n.next()
			if h := fc.welcome(); h.Name != "Ann" {
				t.Errorf("%s was refused first, and it came back as %q", asked[first].Name, h.Name)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if n := len(c.renames); n != 0 {
				t.Errorf("it has %d names in mind that were answered", n)
			}
		})
	}
}

// Whatever is asked first of a node that comes back, of two names it is told the one that was chosen last.
func TestOfTwoNamesTheOneChosenLastCounts(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		n.set(func() { n.away = true })
		fc.cut()
		errs := make(chan error)
		for _, name := range []string{"Ann", "Bea"} {
			synctest.Wait()
			go func() { errs <- c.Rename(t.Context(), name) }()
		}
		synctest.Wait()
		n.set(func() { n.away = false })
		fc = n.next()
		if h := fc.welcome(); h.Name != "Bea" {
			t.Errorf("came back as %q", h.Name)
		}
		for range 2 {
			h := fc.want("hello")
			if h.Name != "Bea" {
				t.Errorf("then asked for %q", h.Name)
			}
			fc.say(wire.Welcome{Req: h.Req, User: wire.User{ID: "me", Name: h.Name, Guest: true}, Session: "secret", Ping: 25})
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if name := c.User().Name; name != "Bea" {
			t.Errorf("it is called %q", name)
		}
	})
}

// What others are called is told as it changes.
func TestAnUpdateIsTold(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		var l log
		join(t, c, fc, ID{}, JoinOptions{Handle: l.handle})
		bea := wire.Member{ID: "b", Name: "Bea"}
		fc.say(wire.Presence{Room: "lobby", Event: wire.EventUpdate, User: &bea, Count: 2, Presence: 3})
		l.said()
		want := Presence{Event: "update", User: bea, Count: 2, Version: 3}
		if got, ok := l.events[len(l.events)-1].(Presence); !ok || got.Event != want.Event || got.User != want.User || got.Count != 2 || got.Version != 3 {
			t.Errorf("told %+v, want %+v", l.events[len(l.events)-1], want)
		}
	})
}
