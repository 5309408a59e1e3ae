package redis_test

import (
	"strings"
	"testing"
	"time"

	"parley/bus/redis"
)

// Others are reminded of the name of who is there by a name that nobody keeps, and not of who has left.
func TestRedisNobodyIsRemindedOfWhoHasLeft(t *testing.T) {
	t.Parallel()
	r := openRedis(t, redis.Config{CompareInterval: 300 * time.Millisecond})
	sub, _ := subscribe(t, r, "lobby")
	said := r.Client().Subscribe(t.Context(), redis.KeysOf("lobby").Channel)
	defer said.Close()
	if _, err := said.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{ // both come twice, by a later name with the second, which is reaped
		"1 1 i1 0 1 w+3 8 ann1000 Old+3 8 bob1000 Old",
		"2 1 i2 0 2 w+3 8 ann2000 New+3 8 bob2000 New",
		"3 3 i2 2 2 x",
		"4 1 i1 1 3 d-3 0 ann",
	} {
		redis.Receive(sub, "w"+change)
	}
	timeout := time.After(patience)
	for {
		select {
		case m := <-said.Channel():
			if !strings.HasPrefix(m.Payload, "n") {
				continue
			}
			if !strings.Contains(m.Payload, "bob2000 New") || strings.Contains(m.Payload, "ann") {
				t.Errorf("reminded of %q", m.Payload)
			}
			return
		case <-timeout:
			t.Fatal("nobody is reminded of bob's name")
		}
	}
}
