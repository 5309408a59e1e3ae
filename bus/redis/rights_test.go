package redis_test

import (
	"bytes"
	"context"
	"errors"
	"net"
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
		"commands of presence": {
			[]any{"allchannels", "-hrandfield", "-sadd", "-unlink", "-exists"},
			[]string{"HRANDFIELD", "SADD", "UNLINK", "EXISTS"},
		},
		"keys of nodes":     {[]any{"allchannels", "resetkeys", "~parley:{*"}, []string{"keys parley:lease:*"}},
		"keys of rooms":     {[]any{"allchannels", "resetkeys", "~parley:[a-z]*"}, []string{"keys parley:{*"}},
		"keys of a lease":   {[]any{"allchannels", "resetkeys", "~parley:[{ri]*", "~parley:layout"}, []string{"keys parley:lease:*"}},
		"a room's log":      {[]any{"allchannels", "resetkeys", "~parley:[a-z]*", "~parley:{*}:[^l]*"}, []string{"keys parley:{*"}},
		"keys of counts":    {[]any{"allchannels", "resetkeys", "~parley:[^c]*"}, []string{"keys parley:{%board}:*, parley:bucket:*, parley:count:*"}},
		"which run this is": {[]any{"allchannels", "-info"}, []string{"info"}},
	} {
		server := bustest.StartRedis(t)
		allow(t, server, c.rules...)
		b, err := redis.Open(t.Context(), redis.Config{URL: limitedURL(server)})
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

// A server that is too old is told by its version, before it is asked for what it can't do.
func TestRedisOpenSaysWhichVersionIsNeeded(t *testing.T) {
	server := bustest.StartRedis(t)
	cfg := redis.Config{URL: server.URL()}
	cfg.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return olderConn{c}, err
	})
	wantsNewer := func(err error, is string) {
		t.Helper()
		if !errors.Is(err, redis.ErrMisconfigured) || !strings.Contains(err.Error(), "needs Redis 7.0 or newer, and this server is "+is) {
			t.Errorf("says %v", err)
		}
	}
	_, err := redis.Open(t.Context(), cfg)
	wantsNewer(err, "6.")

	_, err = redis.Open(t.Context(), redis.Config{URL: bustest.StartRedis(t, `rename-command HELLO ""`).URL()})
	wantsNewer(err, "older")
}

// An olderConn leads to a server that gives out to be of Redis 6.
type olderConn struct{ net.Conn }

func (c olderConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	const says = "redis_version:"
	if i := bytes.Index(b[:n], []byte(says)); i >= 0 && i+len(says) < n {
		b[i+len(says)] = '6'
	}
	return n, err
}

// The least that a node needs.
func TestRedisOpenNeedsNoMoreThanItsOwnKeysAndChannels(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "resetkeys", "~parley:*", "resetchannels", "&parley:*")
	r := openRedis(t, redis.Config{URL: limitedURL(server)})
	_, told := subscribe(t, r, "lobby")
	appendTo(t, r, "lobby", "m", "k")
	told.expect("m")
}

// Without the right to publish, a script would end with the entry written and its key not: each repeat would be one more.
func TestRedisWhatMayNotBePublishedIsKeptOnce(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openRedis(t, redis.Config{URL: limitedURL(server)})
	allow(t, server, "resetchannels", "&parley:beat:*")
	first := appendTo(t, r, "lobby", "m", "k")
	if again := appendTo(t, r, "lobby", "m", "k"); again != first {
		t.Errorf("a repeat got %v, the first %v", again, first)
	}
	if n := server.Client().XLen(t.Context(), redis.KeysOf("lobby").Log).Val(); n != 1 {
		t.Errorf("%d entries were kept of one", n)
	}
}

// Servers say in different words that a script may not do something; only some of them are here to be asked.
func TestRedisARightThatAScriptLacksIsToldByEveryServer(t *testing.T) {
	for said, want := range map[string]bool{
		"NOPERM User parley has no permissions to run the 'xadd' command":                                                      true, // all
		"ERR The user executing the script can't run this command or subcommand script: 81f3, on @user_script:1.":              true, // Redis 7.0
		"ERR The user executing the script can't access at least one of the keys mentioned in the command arguments":           true,
		"ERR The user executing the script can't publish to the channel mentioned in the command":                              true,
		"ERR ACL failure in script: User parley has no permissions to run the 'xadd' command script: 81f3, on @user_script:1.": true, // Redis 7.2 to 8, Valkey
		"ERR ACL failure in script: No permissions to access a key script: 48c8, on @user_script:1.":                           true,
		"ERR ACL failure in script: No permissions to access a channel script: f6d5, on @user_script:1.":                       true,
		"OOM command not allowed when used memory > 'maxmemory'. script: 81f3, on @user_script:1.":                             false,
		"READONLY You can't write against a read only replica.":                                                                false,
	} {
		if got := redis.IsForbidden(said); got != want {
			t.Errorf("%q is about rights: %v, want %v", said, got, want)
		}
	}
}
