package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"parley/node/wire"
)

// proxy connects to a node as a proxy does, and says who the client is, in a version of the PROXY protocol; 0 says nothing.
func proxy(t *testing.T, n *process, version byte) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", n.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	if version > 0 {
		client := &net.TCPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 40000}
		if _, err := proxyproto.HeaderProxyFromAddrs(version, client, nc.RemoteAddr()).WriteTo(nc); err != nil {
			t.Fatal(err)
		}
	}
	return nc
}

// ask makes a request over a connection, and returns the status, 0 if it is cut off.
func ask(nc net.Conn) int {
	io.WriteString(nc, "GET /readyz HTTP/1.1\r\nHost: parley\r\nX-Forwarded-For: 198.51.100.9\r\nConnection: close\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

// awaitLog waits for what a node logs.
func awaitLog(t *testing.T, n *process, re string) {
	t.Helper()
	for deadline := time.After(patience); !regexp.MustCompile(re).Match(n.stderr.Bytes()); {
		select {
		case <-n.stderr.written:
		case <-deadline:
			t.Fatalf("it logs nothing like %q:\n%s", re, n.stderr.Bytes())
		}
	}
}

func TestThePROXYProtocolIsBelievedOfTrustedProxies(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--proxy-protocol", "--trusted-proxies", "127.0.0.0/8", "--log-level", "debug")
	for version := range byte(3) {
		want := http.StatusOK
		if version == 0 {
			want = 0
		}
		if got := ask(proxy(t, n, version)); got != want {
			t.Errorf("with version %d it answers %d, want %d", version, got, want)
		}
	}
	awaitLog(t, n, `(?s)(path=/readyz from=203\.0\.113\.7:40000 .*){2}`)

	// A conversation, of which the beginning comes with the header.
	nc := proxy(t, n, 2)
	io.WriteString(nc, "GET /?name="+strings.Repeat("a", 60)+" HTTP/1.1\r\nHost: parley\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: parley.v1\r\n\r\n"+masked(`{"op":"ping","req":1}`))
	r := bufio.NewReader(nc)
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", res, err)
	}
	untilFrame(t, r, `"req":1`)
	io.WriteString(nc, masked(`{"op":"ping","req":2}`))
	untilFrame(t, r, `"req":2`)
	awaitLog(t, n, `msg=connected .*from=203\.0\.113\.7:40000 `)
}

func TestThePROXYProtocolIsBelievedOfNobodyElse(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--proxy-protocol", "--trusted-proxies", "192.0.2.0/24", "--log-level", "debug")
	for version, want := range map[byte]int{0: http.StatusOK, 1: http.StatusBadRequest, 2: http.StatusBadRequest} {
		if got := ask(proxy(t, n, version)); got != want {
			t.Errorf("with version %d it answers %d, want %d", version, got, want)
		}
	}
	awaitLog(t, n, `path=/readyz from=127\.0\.0\.1:`)
}

func TestThePROXYProtocolComesBeforeTLS(t *testing.T) {
	t.Parallel()
	pair := newPair(t)
	trusted := x509.NewCertPool()
	trusted.AddCert(pair.write(t, 1))
	n := startNode(t, "--proxy-protocol", "--trusted-proxies", "127.0.0.1", "--log-level", "debug", "--tls-cert", pair.cert, "--tls-key", pair.key)
	if got := ask(tls.Client(proxy(t, n, 2), &tls.Config{RootCAs: trusted, ServerName: "127.0.0.1"})); got != http.StatusOK {
		t.Errorf("it answers %d", got)
	}
	awaitLog(t, n, `path=/readyz from=203\.0\.113\.7:40000 `)
}

// The load balancer's variant that looks into nothing gives nodes their clients' addresses, and finds those that are ready.
func TestHAProxySpeaksThePROXYProtocol(t *testing.T) {
	t.Parallel()
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("no haproxy: apt-get install haproxy")
	}
	n := startNode(t, "--proxy-protocol", "--trusted-proxies", "127.0.0.1", "--log-level", "debug")
	text, err := os.ReadFile(root + "/.deploy/haproxy-tcp/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	start := func() (front string, lb *process) { // on a port that was free
		front = freeAddr(t)
		config := strings.NewReplacer("bind :8765", "bind "+front, "node1 10.0.0.1:8765", "node1 "+n.addr()).Replace(string(text))
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		lb = &process{cmd: exec.Command(haproxy, "-db", "-f", file), stderr: newOutput(), ended: make(chan struct{})}
		lb.cmd.Stdout, lb.cmd.Stderr = lb.stderr, lb.stderr
		if err := lb.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			lb.err = lb.cmd.Wait()
			close(lb.ended)
		}()
		return front, lb
	}
	front, lb := start()
	defer func() { lb.kill() }()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		client := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		nc, err := client.Dial("tcp", front)
		if err == nil {
			nc.SetDeadline(time.Now().Add(patience))
			from, got := nc.LocalAddr().String(), ask(nc)
			nc.Close()
			if got == http.StatusOK && bytes.Contains(n.stderr.Bytes(), []byte("path=/readyz from="+from+" ")) {
				return
			}
			err = fmt.Errorf("it answers %d to %s", got, from)
		}
		select {
		case <-lb.ended: // the port was taken meanwhile
			t.Logf("HAProxy ended: %v, %s", lb.err, lb.stderr.Bytes())
			front, lb = start()
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v; HAProxy says %s", err, lb.stderr.Bytes())
		}
	}
}

// masked is a text frame of a client.
func masked(text string) string { return string(wire.AppendMasked(nil, wire.OpText, text)) }

// untilFrame reads frames until one has what is wanted.
func untilFrame(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	for {
		_, payload, err := wire.ReadRaw(r)
		if err != nil {
			t.Fatalf("instead of %s: %v", want, err)
		}
		if strings.Contains(string(payload), want) {
			return
		}
	}
}

// A proxy that speaks no PROXY protocol, or a program on its network that comes by itself, is cut off, whatever it asks for, and keeps
// nobody waiting.
func TestAConnectionWithoutAPROXYHeaderKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--proxy-protocol", "--trusted-proxies", "127.0.0.0/8")
	silent := proxy(t, n, 0)
	io.WriteString(silent, "GET / HTTP/1.1\r\nHost: parley\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	other := proxy(t, n, 1)
	other.SetDeadline(time.Now().Add(proxyproto.DefaultReadHeaderTimeout / 2))
	if got := ask(other); got != http.StatusOK {
		t.Errorf("another is answered %d", got)
	}
	if b, err := io.ReadAll(silent); len(b) > 0 {
		t.Errorf("it is answered %q, %v", b, err)
	}
}
