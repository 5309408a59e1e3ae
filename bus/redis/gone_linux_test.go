package redis_test

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// vanish has nothing answer at an address any more, as where a machine is gone: who connects is not even refused.
func vanish(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) }) // it has room for one
	if err != nil {
		t.Fatal(err)
	}
	for range 16 {
		c, err := net.DialTimeout("tcp", addr, 500*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("it still takes connections")
}

func TestRedisSentinelsReplaceAPrimaryWhoseMachineIsGone(t *testing.T) {
	t.Parallel()
	w, a, b := openPair(t, 1)
	w.Servers[0].Kill()
	vanish(t, w.Servers[0].Addr())
	w.Succeeds(w.Servers[0])
	goesOn(t, time.Now(), a, b)
}
