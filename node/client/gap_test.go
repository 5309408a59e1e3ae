package client

import (
	"testing"

	"parley/node/wire"
)

// Who is cut off right after a gap comes back where the log goes on, though that be its beginning; where an older node does not say that,
// after the gap.
func TestAGapSaysWhereToComeBack(t *testing.T) {
	for _, tt := range []struct {
		last  string
		since ID
	}{
		{`,"last":"7-0"`, ID{Ms: 7}},
		{`,"last":"0-0"`, ID{}},
		{"", ID{Ms: 3}},
	} {
		f, err := wire.ParseFrame([]byte(`{"op":"gap","room":"lobby","after":"3-0"` + tt.last + `}`))
		if err != nil {
			t.Fatal(err)
		}
		r := &Room{c: &Client{}, in: true}
		e := r.event(&f)
		if e != (Gap{After: ID{Ms: 3}, Last: tt.since}) || r.since == nil || *r.since != tt.since {
			t.Errorf("a gap with %q is told as %v, and since is %v", tt.last, e, r.since)
		}
	}
}
