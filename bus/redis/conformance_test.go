package redis_test

import (
	"testing"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

func TestRedis(t *testing.T) {
	bustest.RunRedis(t, bustest.Redis{
		Open: func(url string, keep bus.Retention, o bus.Observer) (bus.Bus, error) {
			return redis.Open(t.Context(), redis.Config{URL: url, Retention: keep, Observer: o})
		},
		ClockBack: redis.ClockBack,
	})
}
