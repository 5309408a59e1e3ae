package socket

import (
	"net"
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

func TestAConnectionIsProbedAsItsListenerSays(t *testing.T) {
	probes := net.KeepAliveConfig{Enable: true, Idle: 47 * time.Second, Interval: 13 * time.Second, Count: 3}
	ln, err := Listen(t.Context(), "127.0.0.1:0", probes)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for name, o := range map[string]struct{ level, option, want int }{
		"SO_KEEPALIVE":  {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":  {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 47},
		"TCP_KEEPINTVL": {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 13},
		"TCP_KEEPCNT":   {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
	} {
		if got, err := unix.GetsockoptInt(socketOf(nc), o.level, o.option); err != nil || got != o.want {
			t.Errorf("%s is %d (%v), want %d", name, got, err, o.want)
		}
	}
}
