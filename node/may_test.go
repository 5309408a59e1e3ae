package node

import (
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/memory"
	"parley/node/rights"
	"parley/node/wire"
)

// asking gives what asks whether a caller may send, with and without rights of its own, and a rate that all nodes share.
func asking(tb testing.TB) map[string]func() {
	s := New(Config{Bus: memory.New(bus.Retention{}).Open(bus.NoObserver{}), Limits: Limits{UserMessages: 1 << 30}})
	tb.Cleanup(func() { s.Shutdown(tb.Context()) })
	r, err := rights.New(map[string][]string{"*": {"read"}, "team-*": {"join", "send"}, "news": {"join", "history"}})
	if err != nil {
		tb.Fatal(err)
	}
	list := make(map[string]func())
	for name, g := range map[string]*Grant{
		"a guest": nil,
		"a token": {User: User{ID: "ada"}, Rights: r, Expires: time.Now().Add(time.Hour)},
	} {
		c := &caller{identity: identity{grant: g}, barred: new(atomic.Pointer[wire.Error])}
		list[name] = func() {
			if bad := s.may(c, rights.Send, "team-a"); bad != nil {
				tb.Fatal(bad)
			}
			if wait := s.spend(&c.identity); wait > 0 {
				tb.Fatal(wait)
			}
		}
	}
	return list
}

func TestAskingWhatOneMayAllocatesNothing(t *testing.T) {
	for name, may := range asking(t) {
		if n := testing.AllocsPerRun(100, may); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// What has expired gives nothing from that moment on, before the session is ended for it; nor does a session that is being ended.
func TestNothingMayBeDoneWithWhatHasEnded(t *testing.T) {
	s := New(Config{Bus: memory.New(bus.Retention{}).Open(bus.NoObserver{})})
	defer s.Shutdown(t.Context())
	for life, want := range map[time.Duration]wire.Code{-time.Millisecond: wire.Expired, time.Hour: ""} {
		c := &caller{identity: identity{grant: &Grant{User: User{ID: "ada"}, Expires: time.Now().Add(life)}}}
		bad := s.may(c, rights.Send, "lobby")
		if bad == nil && want != "" || bad != nil && bad.Code != want {
			t.Errorf("with %v left: %v, want %q", life, bad, want)
		}
		c.barred = new(atomic.Pointer[wire.Error])
		if c.barred.Store(errRevoked); s.may(c, 0, "") != errRevoked {
			t.Error("a session that is being ended may still ask")
		}
	}
}

func BenchmarkMay(b *testing.B) {
	for name, may := range asking(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				may()
			}
		})
	}
}
