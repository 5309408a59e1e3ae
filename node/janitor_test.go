package node

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"parley/bus"
)

// What nothing was heard of for a while is forgotten: addresses, and the newest messages of rooms.
func TestTheJanitorForgetsWhatIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &Server{cfg: Config{Limits: Limits{AddressRequests: 1}}.withDefaults(), ctx: ctx, rooms: make(map[string]*room)}
		s.addresses.limits = &s.cfg.Limits
		s.mayRequest("192.0.2.1:80")
		r := &room{srv: s, name: "lobby"}
		r.recent.add(bus.Message{ID: bus.ID{Ms: 2}, Prev: bus.ID{Ms: 1}}, time.Now())
		empty := &room{srv: s, name: "empty", recent: recent{whole: true}}
		s.rooms["lobby"], s.rooms["empty"] = r, empty
		s.wg.Go(s.janitor)
		known := func() (addresses, messages int) {
			synctest.Wait()
			s.addresses.mu.Lock()
			defer s.addresses.mu.Unlock()
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(s.addresses.known), len(r.recent.msgs)
		}
		time.Sleep(recentLife - 10*time.Second)
		if addresses, messages := known(); addresses != 1 || messages != 1 {
			t.Errorf("too soon, %d addresses and %d messages are known", addresses, messages)
		}
		time.Sleep(addressLife + recentLife)
		if addresses, messages := known(); addresses != 0 || messages != 0 {
			t.Errorf("%d addresses and %d messages are known", addresses, messages)
		}
		if !empty.recent.whole {
			t.Error("of a room without messages it is not known any more that it has none")
		}
		cancel()
		s.wg.Wait()
	})
}

// At rest a node makes little garbage, and all of it would be resident until there is half as much of it as of what is used.
func TestAQuietNodeCollectsItsGarbage(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // nobody else collects
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &Server{cfg: Config{}.withDefaults(), ctx: ctx}
		collections := func() uint32 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.NumGC
		}
		runtime.GC()
		s.wg.Go(s.janitor)
		after := func(d time.Duration, megabytes int) {
			time.Sleep(d)
			for range megabytes {
				_ = make([]byte, 1<<20)
			}
		}
		before := collections()
		after(3*sweepEvery, 64)
		if n := collections() - before; n > 0 {
			t.Errorf("without garbage there were %d collections", n)
		}
		after(sweepEvery+janitorTick, 0)
		if n := collections() - before; n == 0 {
			t.Error("64 MB of garbage were not collected")
		}
		time.Sleep(sweepEvery)
		before = collections()
		for range 9 {
			after(sweepEvery/3, 64)
			runtime.GC()
			after(0, 64)
		}
		if n := collections() - before; n != 9 {
			t.Errorf("there were %d collections more, though it collects by itself", n-9)
		}
		cancel()
		s.wg.Wait()
	})
}
