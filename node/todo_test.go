package node

import (
	"bytes"
	"testing"
)

// Requests of a stream that wait are bounded in number and in bytes; one may be as large as it likes.
func TestRequestsThatWaitForAStreamAreBounded(t *testing.T) {
	for _, tc := range []struct{ size, most int }{{10, maxTodo}, {60 << 10, 2}, {200 << 10, 1}} {
		st := &stream{running: true} // somebody is at it
		s := &session{stream: st}
		for round := range 2 {
			taken := 0
			for s.takeIn(bytes.Repeat([]byte("x"), tc.size)) {
				taken++
			}
			if taken != tc.most {
				t.Errorf("round %d: %d requests of %d bytes wait, want %d", round, taken, tc.size, tc.most)
			}
			for range taken {
				if _, more := st.next(); !more {
					t.Errorf("round %d: a request was lost", round)
				}
			}
			if _, more := st.next(); more || st.running {
				t.Errorf("round %d: somebody is still at it", round)
			}
			st.running = true
		}
	}
}
