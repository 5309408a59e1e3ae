package node

import (
	"testing"
	"testing/synctest"
	"time"
)

// A token waits for the first reading of the board, but not for long.
func TestATokenIsRefusedSoonWhereTheBoardIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b board
		b.begin()
		began := time.Now()
		if b.await(t.Context()) {
			t.Error("the board counts as read")
		}
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("it took %v", d)
		}
		time.AfterFunc(time.Millisecond, func() { close(b.first) })
		if !b.await(t.Context()) {
			t.Error("it is not found read")
		}
	})
}
