package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/memory"
	"parley/bus/redis"
)

const (
	redisAttempt = 3 * time.Second // how long one attempt to open Redis may take
	redisPause   = time.Second     // between two attempts
)

// openBus waits for a Redis that is away. What waiting doesn't mend, such as a wrong password, is an error at once.
func (c *ServeCmd) openBus(ctx context.Context, o bus.Observer, log *slog.Logger) (bus.Bus, error) {
	retention := bus.Retention{Size: c.HistorySize, Age: c.HistoryTTL, Bytes: int(c.HistoryBytes)}
	if c.Redis == "" {
		return memory.New(retention).Open(o), nil
	}
	goredis.SetLogger(redisLog{log})
	cfg := c.redisConfig()
	cfg.Retention, cfg.Observer, cfg.Log = retention, o, log
	for deadline := time.Now().Add(c.RedisWaitStart); ; {
		b, err := openRedis(ctx, cfg)
		if err == nil {
			return b, nil
		}
		left := time.Until(deadline)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, redis.ErrMisconfigured):
			return nil, fmt.Errorf("--redis: %w", err)
		case left <= 0:
			return nil, fmt.Errorf("--redis: waited %s: %w", c.RedisWaitStart, err)
		}
		log.Warn("waiting for Redis", "left", left.Round(time.Second), "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(min(left, redisPause)):
		}
	}
}

// redisConfig says which Redis.
func (c *ServeCmd) redisConfig() redis.Config {
	return redis.Config{URL: c.Redis, Password: c.RedisPassword, CAFile: c.RedisCA, CertFile: c.RedisCert, KeyFile: c.RedisKey, Replicas: c.RedisReplicas}
}

func openRedis(ctx context.Context, cfg redis.Config) (bus.Bus, error) {
	ctx, cancel := context.WithTimeout(ctx, redisAttempt)
	defer cancel()
	if cfg.IsCluster() {
		return redis.OpenCluster(ctx, cfg)
	}
	return redis.Open(ctx, cfg)
}

// redisLog takes what go-redis says of errors that it also returns.
type redisLog struct{ log *slog.Logger }

// Printf implements the logger that go-redis takes.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
	}
}
