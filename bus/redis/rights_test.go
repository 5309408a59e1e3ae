package redis_test

import (
	"errors"
	"strings"
	"testing"

	"parley/bus/bustest"
	"parley/bus/redis"
)

// Rights that are missing show at the start, and all at once.
func TestRedisOpenNamesTheRightsThatAreMissing(t *testing.T) {
	for name, c := range map[string]struct {
		rules []any
		names []string
	}{
		"channels, as by default": {[]any{"resetchannels"}, []string{"PUBLISH on channels", "SUBSCRIBE to channels"}},
		"commands":                {[]any{"allchannels", "-xadd", "-xrevrange"}, []string{"XADD", "XREVRANGE", "EVALSHA"}},
		"which run this is":       {[]any{"allchannels", "-info"}, []string{"info"}},
	} {
		server := bustest.StartRedis(t)
		allow(t, server, c.rules...)
		b, err := redis.Open(t.Context(), redis.Config{URL: strings.Replace(server.URL(), "unix://", "unix://node:secret@", 1)})
		if err == nil {
			b.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		if !errors.Is(err, redis.ErrMisconfigured) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: says %v", name, err)
		}
		for _, n := range c.names {
			if !strings.Contains(err.Error(), n) {
				t.Errorf("%s: says %v, and nothing of %s", name, err, n)
			}
		}
		if keys := server.Client().Keys(t.Context(), "*").Val(); len(keys) > 0 {
			t.Errorf("%s: left behind %v", name, keys)
		}
	}
}

// The least that a node needs.
func TestRedisOpenNeedsNoMoreThanItsOwnKeysAndChannels(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "resetkeys", "~parley:*", "resetchannels", "&parley:*")
	r := openRedis(t, redis.Config{URL: strings.Replace(server.URL(), "unix://", "unix://node:secret@", 1)})
	_, told := subscribe(t, r, "lobby")
	appendTo(t, r, "lobby", "m", "k")
	told.expect("m")
}

// Without the right to publish, a script would end with the entry written and its key not: each repeat would be one more.
func TestRedisWhatMayNotBePublishedIsKeptOnce(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openRedis(t, redis.Config{URL: strings.Replace(server.URL(), "unix://", "unix://node:secret@", 1)})
	allow(t, server, "resetchannels", "&parley:beat:*")
	first := appendTo(t, r, "lobby", "m", "k")
	if again := appendTo(t, r, "lobby", "m", "k"); again != first {
		t.Errorf("a repeat got %v, the first %v", again, first)
	}
	if n := server.Client().XLen(t.Context(), redis.KeysOf("lobby").Log).Val(); n != 1 {
		t.Errorf("%d entries were kept of one", n)
	}
}
