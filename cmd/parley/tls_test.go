package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/cmd/internal/selfsigned"
)

func TestCertificateIsReadAgainWhenItsFilesChange(t *testing.T) {
	pair := newPair(t)
	pair.write(t, 1)
	var logged bytes.Buffer
	cert, err := newCertificate(pair.cert, pair.key, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	cert.now = func() time.Time { return now }
	serial := func() int64 {
		t.Helper()
		c, err := cert.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.Int64()
	}
	expect := func(want int64, lines int, why string) {
		t.Helper()
		if got := serial(); got != want {
			t.Errorf("%s: serves certificate %d, not %d", why, got, want)
		}
		if got := strings.Count(logged.String(), "\n"); got != lines {
			t.Errorf("%s: %d lines logged, not %d:\n%s", why, got, lines, &logged)
		}
	}

	pair.write(t, 2)
	expect(1, 0, "a moment later")
	now = now.Add(checkCertificate)
	expect(2, 1, "a check later")

	if err := os.WriteFile(pair.cert, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(checkCertificate)
	expect(2, 2, "with a broken file")
	now = now.Add(checkCertificate)
	expect(2, 2, "with the same broken file")

	if err := os.Remove(pair.key); err != nil {
		t.Fatal(err)
	}
	now = now.Add(checkCertificate)
	expect(2, 3, "without a key")

	pair.write(t, 3)
	now = now.Add(checkCertificate)
	expect(3, 4, "mended")
	now = now.Add(checkCertificate)
	expect(3, 4, "unchanged")

	other := newPair(t)
	other.write(t, 4)
	if err := os.Rename(other.key, pair.key); err != nil {
		t.Fatal(err)
	}
	now = now.Add(checkCertificate)
	expect(3, 5, "with another certificate's key, as midway in a renewal")
}

// A handshake that comes while another looks at the files, which may take its time, is served what there is.
func TestNoHandshakeWaitsForACertificateToBeRead(t *testing.T) {
	pair := newPair(t)
	pair.write(t, 1)
	cert, err := newCertificate(pair.cert, pair.key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cert.mu.Lock() // as who reads the files does
	defer cert.mu.Unlock()
	served := make(chan *tls.Certificate, 1)
	go func() {
		c, _ := cert.get(nil)
		served <- c
	}()
	select {
	case c := <-served:
		if c == nil {
			t.Error("it is served none")
		}
	case <-time.After(patience):
		t.Fatal("it waits")
	}
}

// Real clients over wss; then the certificate is renewed.
func TestServeTLS(t *testing.T) {
	pair := newPair(t)
	roots := x509.NewCertPool()
	roots.AddCert(pair.write(t, 1))
	n := startNode(t, "--tls-cert", pair.cert, "--tls-key", pair.key)
	if !strings.HasPrefix(n.url, "https://") {
		t.Errorf("told to look at %s", n.url)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	asBrowsers := &tls.Config{RootCAs: roots, NextProtos: []string{"h2", "http/1.1"}}
	c, err := tls.Dial("tcp", n.addr(), asBrowsers)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		t.Errorf("speaks %s, which has no upgrade to a WebSocket", got)
	}
	c.Close()

	transport := &http.Transport{TLSClientConfig: asBrowsers}
	defer transport.CloseIdleConnections()
	dial := func(protocols ...string) *websocket.Conn {
		c, _, err := websocket.Dial(ctx, "wss://"+n.addr(), &websocket.DialOptions{
			HTTPClient:   &http.Client{Transport: transport},
			Subprotocols: protocols,
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	alice, bob := dial(), dial("parley.v1")
	defer alice.CloseNow()
	defer bob.CloseNow()
	join(t, ctx, bob)
	say(t, ctx, alice, "over TLS")
	hear(t, ctx, bob, "over TLS")

	if err := run(ctx, []string{"health", "--url", n.url + "/healthz"}, nil, nil, nil); err != nil {
		t.Errorf("health over TLS: %v", err)
	}

	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if c, err := tls.Dial("tcp", n.addr(), config); err == nil {
		c.Close()
		t.Error("TLS 1.1 was accepted")
	}

	pair.write(t, 2)
	for served := int64(0); served != 2; {
		c, err := tls.Dial("tcp", n.addr(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		served = c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
		c.Close()
		select {
		case <-ctx.Done():
			t.Fatal("the renewed certificate is not served")
		case <-time.After(50 * time.Millisecond):
		}
	}
	say(t, ctx, alice, "still there")
	hear(t, ctx, bob, "still there")

	alice.CloseNow()
	bob.CloseNow()
	if err := n.terminate(); err != nil {
		t.Error(err)
	}
}

// A pair is where a certificate and its key are kept.
type pair struct{ cert, key string }

func newPair(t *testing.T) pair {
	dir := t.TempDir()
	return pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

// write makes a certificate for 127.0.0.1, signed by itself.
func (p pair) write(t *testing.T, serial int64) *x509.Certificate {
	t.Helper()
	cert, err := selfsigned.Write(p.cert, p.key, serial)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
