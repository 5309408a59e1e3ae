package node

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
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

// A node that ends tells so of its users' connections: they may be opened elsewhere at once.
func TestTheConnectionsOfANodeThatEndsCountNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(bus.Retention{})
		who := identity{user: User{ID: "ada"}, grant: &Grant{User: User{ID: "ada"}}}
		start := func(name string) *Server {
			s := &Server{cfg: Config{Bus: store.Open(bus.NoObserver{}), Limits: Limits{UserConnections: 1}}.withDefaults(), holder: name}
			s.ctx, s.cancel = context.WithCancel(t.Context())
			return s
		}
		ends, other := start("ends"), start("other")
		if _, bad := ends.connect(t.Context(), &who); bad != nil {
			t.Fatal(bad)
		}
		ends.disconnected("ada") // as the last sessions do, of which the end is not waited for
		ends.cancel()
		ends.wg.Wait()
		if _, bad := other.connect(t.Context(), &who); bad != nil {
			t.Errorf("a connection of a node that has ended: %v", bad)
		}
	})
}

// A partAway is a bus that does not answer about some users.
type partAway struct {
	bus.Bus
	wait atomic.Int64 // nanoseconds
	asks atomic.Int32
}

func (b *partAway) Count(ctx context.Context, of, holder string, n int, life time.Duration) (int, error) {
	if strings.Contains(of, "away") {
		b.asks.Add(1)
		time.Sleep(time.Duration(b.wait.Load()))
		return 0, bus.ErrUnavailable
	}
	return b.Bus.Count(ctx, of, holder, n, life)
}

// That some users can't be counted harms no others, and does not have the bus asked without a pause.
func TestConnectionsCountThoughAPartOfTheBusIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(bus.Retention{})
		b := &partAway{Bus: store.Open(bus.NoObserver{})}
		s := &Server{cfg: Config{Bus: b, Limits: Limits{UserConnections: 1}}.withDefaults(), holder: "one"}
		s.ctx, s.cancel = context.WithCancel(t.Context())
		connect := func(user string) {
			if _, bad := s.connect(t.Context(), &identity{user: User{ID: user}, grant: &Grant{User: User{ID: user}}}); bad != nil {
				t.Errorf("%s: %v", user, bad)
			}
		}
		connect("ada")
		for i := range 20 {
			connect(fmt.Sprint("away", i))
		}
		s.wg.Go(s.watchUsers)
		time.Sleep(10 * countLife)
		if n, err := store.Open(bus.NoObserver{}).Count(t.Context(), "connections of ada", "two", 1, countLife); n != 2 || err != nil {
			t.Errorf("she has %d connections: %v", n, err)
		}
		b.wait.Store(int64(busTimeout))
		b.asks.Store(0)
		time.Sleep(10 * countRefresh)
		if n, most := int(b.asks.Load()), int(10*countRefresh/busTimeout)+1; n > most {
			t.Errorf("it is asked %d times, of which each takes as long as may be: want at most %d", n, most)
		}
		s.cancel()
		s.wg.Wait()
	})
}

// What a user has said is not forgotten before it would be allowed anew; who has no connection is asked for nothing on the bus.
func TestAUserIsForgottenOnceThatSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &partAway{Bus: memory.New(bus.Retention{}).Open(bus.NoObserver{})}
		s := &Server{cfg: Config{Bus: b, Limits: Limits{UserMessages: 1, UserConnections: 1}}.withDefaults()}
		s.ctx, s.cancel = context.WithCancel(t.Context())
		defer s.cancel()
		who := identity{user: User{ID: "away"}, grant: &Grant{User: User{ID: "away"}}}
		for _, step := range []struct {
			after time.Duration
			known int
		}{{0, 1}, {countLife, 1}, {time.Second, 0}} {
			if step.after == 0 {
				s.spend(&who)
				synctest.Wait() // for a draw
			}
			time.Sleep(step.after)
			s.refreshCounts()
			if n := len(s.users.known); n != step.known || b.asks.Load() > 0 {
				t.Errorf("after %v more %d users are known, want %d; the bus was asked %d times", step.after, n, step.known, b.asks.Load())
			}
		}
	})
}

// A noDraws is a bus whose buckets are away for a while.
type noDraws struct {
	bus.Bus
	away  bool
	draws int
}

func (b *noDraws) Draw(ctx context.Context, bucket string, n int, rate float64, burst int) (int, error) {
	if b.draws++; b.away {
		return 0, bus.ErrUnavailable
	}
	return b.Bus.Draw(ctx, bucket, n, rate, burst)
}

// While the bus is away a user says what a node gives without asking, and once it is back all that the user may say.
func TestAUserMaySayAllAgainOnceTheBusIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, seconds = 60, 10
		b := &noDraws{Bus: memory.New(bus.Retention{}).Open(bus.NoObserver{}), away: true}
		s := &Server{cfg: Config{Bus: b, Limits: Limits{UserMessages: most}}.withDefaults()}
		s.ctx, s.cancel = context.WithCancel(t.Context())
		defer s.cancel()
		who := identity{user: User{ID: "ada"}, grant: &Grant{User: User{ID: "ada"}}}
		says := func() (n int) {
			for range most * seconds {
				if s.spend(&who) == 0 {
					n++
				}
				time.Sleep(time.Second / most)
				synctest.Wait() // for a draw
			}
			return n
		}
		if n := says(); n > most {
			t.Errorf("while the bus is away %d of %d may be said", n, most*seconds)
		}
		b.away = false
		if n := says(); n < most*seconds*9/10 {
			t.Errorf("once it is back %d of %d may be said", n, most*seconds)
		}
		b.draws = 0
		if n := says(); n < most*seconds*9/10 || b.draws > 2*seconds { // of chunks that do not grow it takes four a second
			t.Errorf("then %d of %d may be said, with %d draws", n, most*seconds, b.draws)
		}
	})
}
