package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// Who does not finish the head of a request, a byte at a time or not at all, is cut off.
func TestAHeadThatIsNotFinishedEndsTheConnection(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--admin", "127.0.0.1:0")
	for what, url := range map[string]string{"clients": n.url, "operators": n.adminURL} {
		for how, every := range map[string]time.Duration{"silent": 0, "dripping": 500 * time.Millisecond} {
			t.Run(what+"/"+how, func(t *testing.T) {
				t.Parallel()
				nc, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				io.WriteString(nc, "GET / HTTP/1.1\r\nHost: parley\r\nX-Filler: ")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if every > 0 {
					go func() {
						for ctx.Err() == nil {
							io.WriteString(nc, "x")
							time.Sleep(every)
						}
					}()
				}
				began := time.Now()
				nc.SetReadDeadline(began.Add(30 * time.Second))
				_, err = io.Copy(io.Discard, nc)
				if took := time.Since(began); took < 5*time.Second || took > 25*time.Second {
					t.Errorf("it was ended after %v (%v), want some 10 s", took, err)
				}
			})
		}
	}
}

func TestAHeadThatIsTooLargeIsRefused(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	for range 3 {
		nc, err := net.Dial("tcp", n.addr())
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(patience))
		io.WriteString(nc, "GET / HTTP/1.1\r\nHost: parley\r\n")
		sent := 0
		for err == nil && sent < 16<<20 {
			var more int
			more, err = fmt.Fprintf(nc, "X-%d: %s\r\n", sent, strings.Repeat("x", 1000))
			sent += more
		}
		if err == nil {
			t.Errorf("a head of %d bytes was taken", sent)
		}
		nc.Close()
		if status, _, err := get(n.url + "/healthz"); err != nil || status != 200 {
			t.Errorf("/healthz: %d, %v", status, err)
		}
	}
}

func TestDrainSpreadsTheGoodbyes(t *testing.T) {
	t.Parallel()
	const drain, clients = 2 * time.Second, 10
	n := startNode(t, "--drain", drain.String())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	closed := make(chan time.Time, clients)
	for range clients {
		c := dial(t, ctx, n, "/")
		go func() {
			c.Read(ctx) // the close, which it answers
			closed <- time.Now()
		}()
	}
	began := time.Now()
	if err := n.terminate(); err != nil {
		t.Errorf("%v: %s", err, n.stderr.Bytes())
	}
	for i := range clients { // none before its time
		if after, due := (<-closed).Sub(began), drain*time.Duration(i)/clients; after < due-20*time.Millisecond {
			t.Errorf("client %d of %d was closed after %v, want %v", i+1, clients, after, due)
		}
	}
}
