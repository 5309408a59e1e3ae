package redis_test

import (
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// lossInVain has a room that its node has left lose something, which the server refuses to note for now. noted waits until it has.
func lossInVain(t *testing.T) (server *bustest.RedisServer, r *redis.Bus, kept bus.ID, noted func()) {
	t.Helper()
	server = bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r = openAt(t, limitedURL(server), often)
	sub, told := subscribe(t, r, "lobby")
	kept = appendTo(t, r, "lobby", "kept", "")
	lost := appendTo(t, r, "lobby", "lost", "")
	told.expect("kept", "lost")
	sub.Close()
	r.Cut(func() {
		rewind(t, r, "lobby", kept)
		allow(t, server, "allchannels", "-xadd")
	})
	return server, r, kept, func() {
		t.Helper()
		allow(t, server, "allchannels")
		eventually(t, "the loss to be noted", func() bool {
			p, err := r.After(t.Context(), "lobby", lost, 10, 0)
			return err == nil && !p.LastBreak.IsZero()
		})
	}
}

// What a room that was left has lost is asked again where the server refused to say so: who comes back is told then.
func TestRedisALossThatCouldNotBeNotedIsNotedLater(t *testing.T) {
	server, _, _, noted := lossInVain(t)
	eventually(t, "a refusal", func() bool { return refusals(t, server, "xadd") > 0 })
	noted()
}

// So it is where somebody comes back while the server refuses: who joins does not wait, and the loss is noted when it may be.
func TestRedisALossThatCouldNotBeNotedAtAJoinIsNotedLater(t *testing.T) {
	_, r, kept, noted := lossInVain(t)
	if back, _ := subscribe(t, r, "lobby"); back.Last() != kept {
		t.Errorf("who is back begins after %v, the log ends with %v", back.Last(), kept)
	}
	noted()
}

// A loss that the server refuses to note is not passed over: nothing that follows it is handed on before it could be told. Nor is it
// asked about without end.
func TestRedisALossThatCouldNotBeNotedHoldsUpWhatFollows(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openAt(t, limitedURL(server), often)
	sub, told := subscribe(t, r, "lobby")
	kept := appendTo(t, r, "lobby", "kept", "")
	next := appendTo(t, r, "lobby", "lost", "")
	next.Seq++
	told.expect("kept", "lost")
	r.Cut(func() {
		rewind(t, r, "lobby", kept, entry{next, kept, "next"})
		allow(t, server, "allchannels", "-xadd")
	})
	for range 50 { // each of which asks, too
		_, _ = tryAppend(t, r, "lobby", "refused", "")
	}
	if err := server.Client().Do(t.Context(), "acl", "log", "reset").Err(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "three refusals", func() bool { return refusals(t, server, "xadd") >= 3 })
	for time.Since(began) < 3*time.Second {
		time.Sleep(10 * time.Millisecond)
		if n := refusals(t, server, "xadd"); n > 3+int(time.Since(began)/time.Second) {
			t.Fatalf("it is asked %d times within %v", n, time.Since(began))
		}
	}
	allow(t, server, "allchannels")
	allowed := time.Now()
	told.expect("kept", "lost", "break", "next")
	if took := time.Since(allowed); took > 8*time.Second {
		t.Errorf("it is told %v after it could be, want about a second", took)
	}
	if redis.AsksLate(sub) {
		t.Error("the next loss is told late, too")
	}
}
