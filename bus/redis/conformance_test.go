package redis_test

import (
	"testing"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

func TestRedis(t *testing.T) {
	bustest.RunRedis(t, bustest.Redis{
		Open: func(url string, s bustest.Settings) (bus.Bus, error) {
			r, err := redis.Open(t.Context(), redis.Config{
				URL: url, Retention: s.Retention, Observer: s.Observer,
				Timeout: s.Timeout, CompareInterval: s.Compare, QueueBytes: s.QueueBytes,
			})
			return checked{r, t}, err
		},
		ClockBack: redis.ClockBack,
	})
}
