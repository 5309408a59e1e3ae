package node_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// vanish has a socket's kernel drop all that comes for it, unanswered (socket(7), SO_ATTACH_FILTER): to the peer it is as if the
// network were gone.
func vanish(t *testing.T, nc net.Conn) {
	t.Helper()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A client whose network vanished is no member any more after a ping and the time for its acknowledgement: with what a node has by
// default, within a minute.
func TestAClientWhoseNetworkVanishedLeaves(t *testing.T) {
	ways := map[string]string{
		"WebSocket": "GET / HTTP/1.1\r\nHost: parley\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		"event stream": "GET /v1/rooms/lobby/events HTTP/1.1\r\nHost: parley\r\n\r\n",
	}
	eachWay(t, func(t *testing.T, start starter) {
		for name, request := range ways {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				const ping, stall = 2 * time.Second, 2 * time.Second
				c := start(t, 1, func(cfg *node.Config) {
					cfg.PingInterval, cfg.StallTimeout, cfg.Grace = ping, stall, time.Millisecond
				})
				n := c.Nodes[0]
				below, err := net.Dial("tcp", n.Addr)
				if err != nil {
					t.Fatal(err)
				}
				defer below.Close()
				nc := below
				if strings.HasPrefix(n.URL(""), "wss") {
					nc = tls.Client(below, &tls.Config{InsecureSkipVerify: true})
				}
				fmt.Fprint(nc, request)
				nc.SetReadDeadline(time.Now().Add(time.Minute))
				if _, err := http.ReadResponse(bufio.NewReader(nc), nil); err != nil {
					t.Fatal(err)
				}
				watcher := nodetest.Dial(t, n.URL("/"))
				joined, _ := watcher.Join("lobby")
				for joined.Count < 2 { // its join is under way
					joined = watcher.Until("presence")
				}
				began := time.Now()
				vanish(t, below)
				for f := watcher.Until("presence"); f.Event != wire.EventLeave; { // which answers pings meanwhile
					f = watcher.Until("presence")
				}
				if took := time.Since(began); took > ping*11/10+stall+slack {
					t.Errorf("it left after %v", took)
				}
			})
		}
	})
}
