package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
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

// Whoever opens connections and asks for nothing can't have all of them: not under TLS either. Trusted proxies can.
func TestStrangersOfAnAddressAreBounded(t *testing.T) {
	t.Parallel()
	const most = 4
	pair := newPair(t)
	roots := x509.NewCertPool()
	roots.AddCert(pair.write(t, 1))
	secured := func(nc net.Conn) net.Conn {
		return tls.Client(nc, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
	}
	plain := func(nc net.Conn) net.Conn { return nc }
	for what, c := range map[string]struct {
		args  []string
		over  func(net.Conn) net.Conn
		bound bool
	}{
		"HTTP":                     {nil, plain, true},
		"HTTPS":                    {[]string{"--tls-cert", pair.cert, "--tls-key", pair.key}, secured, true},
		"a trusted proxy":          {[]string{"--trusted-proxies", "127.0.0.0/8"}, plain, false},
		"a trusted proxy's header": {[]string{"--trusted-proxies", "127.0.0.0/8", "--proxy-protocol"}, nil, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, append(c.args, "--address-connections", fmt.Sprint(most))...)
			dial := func(from string) net.Conn {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
				nc, err := d.Dial("tcp", n.addr())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { nc.Close() })
				nc.SetDeadline(time.Now().Add(patience))
				return nc
			}
			asks := func(from string) int {
				if c.over == nil {
					return ask(proxy(t, n, 2))
				}
				return ask(c.over(dial(from)))
			}
			var silent []net.Conn
			for range 2 * most {
				nc := dial("127.0.0.1")
				io.WriteString(nc, "G")
				silent = append(silent, nc)
			}
			if got := asks("127.0.0.1"); c.bound == (got == http.StatusOK) {
				t.Errorf("one more is answered %d", got)
			}
			if got := asks("127.0.0.2"); got != http.StatusOK {
				t.Errorf("another address is answered %d", got)
			}
			for _, nc := range silent {
				nc.Close()
			}
			for began := time.Now(); asks("127.0.0.1") != http.StatusOK; {
				if time.Since(began) > patience {
					t.Fatal("there is no space once they have gone")
				}
			}
		})
	}
}

// Who has gone before the node looks has no address any more.
func TestWhoResetsAConnectionAtOnceHarmsNobody(t *testing.T) {
	t.Parallel()
	for version, args := range [][]string{nil, {"--trusted-proxies", "127.0.0.0/8", "--proxy-protocol"}} {
		n := startNode(t, args...)
		for range 200 {
			nc, err := net.Dial("tcp", n.addr())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(nc, "G")
			nc.(*net.TCPConn).SetLinger(0)
			nc.Close()
		}
		if got := ask(proxy(t, n, byte(version))); got != http.StatusOK {
			t.Errorf("with %q another is answered %d", args, got)
		}
	}
}

func TestAHeadThatIsTooLargeIsRefused(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	for size, want := range map[int]string{8 << 10: "200", 40 << 10: "431"} {
		nc, err := net.Dial("tcp", n.addr())
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(nc, "GET /healthz HTTP/1.1\r\nHost: parley\r\nConnection: close\r\nX: %s\r\n\r\n", strings.Repeat("x", size))
		answer := make([]byte, len("HTTP/1.1 200"))
		if _, err := io.ReadFull(nc, answer); err != nil || !strings.HasSuffix(string(answer), want) {
			t.Errorf("a head of %d bytes is answered %q, %v, want %s", size, answer, err, want)
		}
		nc.Close()
	}
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

// Operators are answered in plain text, by whichever method they ask; clients are not, who find /metrics where there is no address for
// operators.
func TestWhatOperatorsAskWronglyIsAnsweredInPlainText(t *testing.T) {
	t.Parallel()
	own, apart := startNode(t), startNode(t, "--admin", "127.0.0.1:0")
	for _, tt := range []struct {
		method, url string
		status      int
		kind        string
	}{
		{"GET", own.url + "/metrics", 200, "text/plain"},
		{"HEAD", own.url + "/metrics", 200, "text/plain"},
		{"POST", own.url + "/metrics", 405, "text/plain"},
		{"GET", apart.url + "/metrics", 404, "application/problem+json"},
		{"GET", apart.adminURL + "/metrics", 200, "text/plain"},
		{"POST", apart.adminURL + "/metrics", 405, "text/plain"},
		{"GET", apart.adminURL + "/debug/pprof/symbol", 200, "text/plain"},
		{"GET", apart.adminURL + "/debug/pprof/trace?seconds=0.01", 200, "application/octet-stream"},
		{"GET", apart.adminURL + "/nothing", 404, "text/plain"},
		{"GET", apart.adminURL + "/debug/pprof/nothing", 404, "text/plain"},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), tt.method, tt.url, nil)
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if kind := resp.Header.Get("Content-Type"); resp.StatusCode != tt.status || !strings.HasPrefix(kind, tt.kind) {
			t.Errorf("%s %s: %s, %s, want %d, %s", tt.method, tt.url, resp.Status, kind, tt.status, tt.kind)
		}
		if resp.StatusCode == 405 && resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: %q is allowed", tt.method, tt.url, resp.Header.Get("Allow"))
		}
	}
}
