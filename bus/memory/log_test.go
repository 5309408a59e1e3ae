package memory_test

import (
	"fmt"
	"slices"
	"testing"

	"parley/bus"
)

// A log that has dropped some, and then keeps more than ever before, has all of these in their order.
func TestMemoryALogGrowsThoughItHasDroppedSome(t *testing.T) {
	m, _ := newMemory(bus.Retention{Bytes: 10_000, Size: 1000})
	b := open(t, m)
	say := func(n, bytes int) (said []string) {
		for i := range n {
			body := fmt.Sprintf("%*d", bytes, i)
			publish(t, b, "room", bus.Draft{Body: []byte(body)})
			said = append(said, body)
		}
		return said
	}
	want := append(say(5, 3000)[2:], say(14, 10)...) // of the large ones three fit
	p, err := b.After(t.Context(), "room", bus.ID{}, 100, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, msg := range p.Messages {
		if got = append(got, string(msg.Body)); i > 0 && msg.Prev != p.Messages[i-1].ID {
			t.Errorf("%q follows %v, want %v", msg.Body, msg.Prev, p.Messages[i-1].ID)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log has %d messages, which differ from the last %d", len(got), len(want))
	}
}
