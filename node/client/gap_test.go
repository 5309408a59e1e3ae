package client

import (
	"testing"

	"parley/node/wire"
)

// Who is cut off right after a gap comes back where the log goes on; where an older node does not say that, after the gap.
func TestAGapSaysWhereToComeBack(t *testing.T) {
	for _, tt := range []struct{ last, since ID }{
		{ID{Ms: 7}, ID{Ms: 7}},
		{ID{}, ID{Ms: 3}},
	} {
		r := &Room{c: &Client{}, in: true}
		e := r.event(&wire.Frame{Op: "gap", After: ID{Ms: 3}, Last: tt.last})
		if e != (Gap{After: ID{Ms: 3}, Last: tt.last}) || r.since == nil || *r.since != tt.since {
			t.Errorf("a gap whose last is %v is told as %v, and since is %v", tt.last, e, r.since)
		}
	}
}
