package bus_test

import (
	"testing"

	"parley/bus"
)

// Were two pairs to share a key, what one user says would be taken for a repeat of what another said.
func TestNoTwoPairsOfUserAndKeyCollide(t *testing.T) {
	pairs := make(map[bus.Key]string)
	for _, both := range []string{"", "a", "aa", "user:key", "\x01a\x01b", "é\x00"} {
		for i := range len(both) + 1 {
			k, pair := bus.KeyOf(both[:i], both[i:]), both[:i]+" | "+both[i:]
			if other, taken := pairs[k]; taken {
				t.Errorf("%q and %q have one key", pair, other)
			}
			pairs[k] = pair
			if k == (bus.Key{}) || k != bus.KeyOf(both[:i], both[i:]) {
				t.Errorf("%q has the key %x", pair, k)
			}
		}
	}
}
