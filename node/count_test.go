package node

import (
	"testing"
	"time"
)

func TestALargeRoomIsCountedLessOften(t *testing.T) {
	for members, want := range map[int]time.Duration{
		3: time.Second, 200: time.Second, 1000: 5 * time.Second, 2000: 10 * time.Second, 1_000_000: 10 * time.Second,
	} {
		if got := countPause(members); got != want {
			t.Errorf("%d members wait %v, want %v", members, got, want)
		}
	}
}
