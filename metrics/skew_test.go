package metrics

import (
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestTheLeastDelayIsThatOfTheLastMinutes(t *testing.T) {
	var l least
	at := time.Unix(600, 0)
	for i, step := range []struct {
		after    time.Duration
		observed []time.Duration
		want     time.Duration
	}{
		{0, nil, 0},
		{time.Second, []time.Duration{5, 3, 9}, 3},
		{time.Minute, nil, 3},
		{time.Second, []time.Duration{-7}, -7},
		{time.Minute, []time.Duration{8}, -7},
		{time.Minute, nil, 8},
		{time.Minute, nil, 0},
		{time.Second, []time.Duration{4}, 4},
		{10 * time.Minute, nil, 0},
		{time.Second, []time.Duration{6}, 6},
		{time.Minute, []time.Duration{7}, 6},
		{10 * time.Minute, nil, 0},
	} {
		at = at.Add(step.after)
		for _, d := range step.observed {
			l.observe(d, at)
		}
		if got := l.value(at); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

// A node whose clock lags shows it, though no delay is less than nothing.
func TestTheSkewOfClocksIsShown(t *testing.T) {
	reg, m := newMetrics()
	for _, d := range []time.Duration{-3 * time.Second, -3*time.Second + 5*time.Millisecond, time.Second} {
		m.DeliveryDelay(d)
	}
	got, err := testutil.GatherAndCount(reg, "parley_delivery_delay_least_seconds")
	series := scrape(t, Handler(reg))["parley_delivery_delay_least_seconds"]
	if value, bad := strconv.ParseFloat(series, 64); err != nil || got != 1 || bad != nil || value != -3 {
		t.Errorf("%d series, %q, %v", got, series, err)
	}
}
