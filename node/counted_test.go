package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"parley/bus"
	"parley/bus/memory"
	"parley/node/wire"
)

// A user's connections count on every node for as long as they are open, however long that is; those of a node that was killed count
// for a minute.
func TestAConnectionCountsForAsLongAsItIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(bus.Retention{})
		who := identity{user: User{ID: "ada"}, grant: &Grant{User: User{ID: "ada"}}}
		start := func(name string) (s *Server, kill func()) {
			s = &Server{cfg: Config{Bus: store.Open(bus.NoObserver{}), Limits: Limits{UserConnections: 1}}.withDefaults(), holder: name}
			s.ctx, s.cancel = context.WithCancel(t.Context())
			s.wg.Go(s.watchUsers)
			return s, func() { s.cancel(); s.wg.Wait() }
		}
		connects := func(s *Server) bool {
			t.Helper()
			_, bad := s.connect(t.Context(), &who)
			if bad != nil && bad.Code != wire.RateLimited {
				t.Fatal(bad)
			}
			synctest.Wait() // where it was one too many, that is told in a goroutine
			return bad == nil
		}
		one, killOne := start("one")
		two, killTwo := start("two")
		defer killTwo()
		if !connects(one) {
			t.Fatal("the first is refused")
		}
		for range 60 { // at one time or another between two refreshes
			time.Sleep(time.Minute + time.Second)
			if connects(two) {
				t.Fatal("a connection that is open does not count any more")
			}
		}
		one.disconnected("ada")
		synctest.Wait()
		if !connects(two) {
			t.Error("a connection that has ended still counts")
		}
		two.disconnected("ada")
		synctest.Wait()
		if !connects(one) {
			t.Error("the place was not freed")
		}
		killOne()
		time.Sleep(countLife + time.Second)
		if !connects(two) {
			t.Error("the connection of a node that was killed counts for more than a minute")
		}
	})
}
