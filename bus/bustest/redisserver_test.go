package bustest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRedisServerIsRealAndEmptyAfterRestart(t *testing.T) {
	for name, start := range map[string]func(testing.TB, ...string) *RedisServer{"unix": StartRedis, "tcp": StartRedisTCP} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			ctx, c := context.Background(), s.Client()
			if err := c.Set(ctx, "k", "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
			s.Restart()
			if err := c.Get(ctx, "k").Err(); err != redis.Nil {
				t.Fatalf("after a restart: %v, want nothing kept", err)
			}
		})
	}
}

func TestRedisServerKeepsWhatItsConfigSays(t *testing.T) {
	s := StartRedis(t, "appendonly yes", "appendfsync always")
	ctx, c := context.Background(), s.Client()
	if err := c.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	s.Restart()
	if got := c.Get(ctx, "k").Val(); got != "v" {
		t.Fatalf("after a kill: %q, want v", got)
	}
}

func TestRedisServerMayAskForAPassword(t *testing.T) {
	s := StartRedisTCP(t, "requirepass secret")
	c := redis.NewClient(&redis.Options{Addr: s.Addr(), Password: "secret"})
	defer c.Close()
	if err := c.Ping(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestPausedRedisServerIsSilentAndStillEnds(t *testing.T) {
	var dir string
	t.Run("paused", func(t *testing.T) {
		s := StartRedis(t)
		dir = s.dir
		c := s.Client()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		s.Pause()
		answered := make(chan error, 1)
		go func() { answered <- c.Ping(context.Background()).Err() }()
		select {
		case err := <-answered:
			t.Errorf("a paused server answered: %v", err)
		case <-ctx.Done():
		}
		s.Resume()
		<-answered
		s.Pause()
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the server's directory is still there: %v", err)
	}
}
