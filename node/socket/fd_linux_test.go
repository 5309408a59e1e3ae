package socket

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// By itself the kernel sends again for a quarter of an hour what nobody acknowledges.
func TestTheKernelGivesEveryPeerUp(t *testing.T) {
	for name, secure := range fronts {
		t.Run(name, func(t *testing.T) {
			s := serveEchoes(t, secure)
			nc := s.dial(t, nil)
			c := <-s.conns
			ms, err := unix.GetsockoptInt(c.below, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
			if want := 10 * time.Second; err != nil || time.Duration(ms)*time.Millisecond != want {
				t.Errorf("after %d ms (%v), want %v", ms, err, want)
			}
			nc.Close()
			<-s.ended
		})
	}
}

// It is asked of each connection at each ping: of 100,000, some 4,000 times a second.
func TestAskingHowFarAPeerIsAllocatesNothing(t *testing.T) {
	s := serveEchoes(t, fronts["parked"])
	nc := s.dial(t, nil)
	c := <-s.conns
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := progressOf(c.below); !ok || isOver(c.below) {
			t.Fatal("the kernel does not tell")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	nc.Close()
	<-s.ended
}
