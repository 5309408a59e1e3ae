package node

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestASessionIsInTheRoomsThatItJoinedAndDidNotLeave(t *testing.T) {
	var ms memberships
	want := map[string]*member{}
	for range 2000 {
		name := fmt.Sprint("room ", rand.N(30))
		if m := ms.in(name); m != want[name] {
			t.Fatalf("%s has the member %p, want %p", name, m, want[name])
		} else if m != nil {
			ms.remove(m)
			delete(want, name)
		} else {
			want[name] = &member{r: &room{name: name}}
			ms.add(want[name])
		}
		if len(ms) != len(want) {
			t.Fatalf("it is in %d rooms, want %d", len(ms), len(want))
		}
	}
}
