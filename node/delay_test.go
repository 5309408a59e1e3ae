package node

import (
	"testing"
	"time"
)

type delays struct {
	NoObserver
	all []time.Duration
}

func (d *delays) DeliveryDelay(took time.Duration) { d.all = append(d.all, took) }

// A clock of the bus that is ahead makes delays of less than nothing: they are told as they are, for the skew is to be seen.
func TestADelayShowsTheSkewOfClocks(t *testing.T) {
	r := roomOf(t, 1)
	told := &delays{}
	r.srv.cfg.Observer = told
	var b batch
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		flushOne(r, &b, aMessage(uint64(time.Now().Add(ahead).UnixMilli())))
	}
	if len(told.all) != 2 || told.all[0] > -59*time.Minute || told.all[1] < 59*time.Minute {
		t.Errorf("told %v", told.all)
	}
}
