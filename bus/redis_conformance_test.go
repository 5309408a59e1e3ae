package bus_test

import (
	"testing"

	"parley/bus"
	"parley/bus/bustest"
)

func TestRedis(t *testing.T) {
	bustest.RunRedis(t, bustest.Redis{
		Open: func(url string, keep bus.Retention, o bus.Observer) (bus.Bus, error) {
			return bus.OpenRedis(t.Context(), bus.RedisConfig{URL: url, Retention: keep, Observer: o})
		},
		ClockBack: bus.ClockBack,
	})
}
