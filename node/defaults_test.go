package node

import (
	"testing"
	"time"
)

// Who vanishes is sent a ping at the latest after PingInterval and a tenth, which the kernel has StallTimeout for.
func TestByDefaultWhoVanishesIsGoneWithinAMinute(t *testing.T) {
	if c := (Config{}).withDefaults(); c.PingInterval*11/10+c.StallTimeout > time.Minute {
		t.Errorf("a ping each %v, and %v for it, are more than a minute", c.PingInterval, c.StallTimeout)
	}
}
