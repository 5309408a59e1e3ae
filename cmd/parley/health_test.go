package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A node that takes the connection and says nothing is unhealthy once the time is over.
func TestHealthDoesNotWaitForASilentNode(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = run(ctx, []string{"health", "--timeout", "50ms", "--url", "http://" + silent.Addr().String() + "/healthz"}, nil, io.Discard, io.Discard)
	if err == nil || !strings.HasPrefix(err.Error(), "unhealthy: ") || ctx.Err() != nil {
		t.Errorf("it ended with %v", err)
	}
}

// 0.0.0.0 leads to this machine as 127.0.0.1 does, but is no loopback address: there a certificate is checked.
func TestHealthChecksTheCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	health := func(host, roots string, c *x509.Certificate) (said string, ok bool) {
		t.Helper()
		c.SerialNumber = big.NewInt(2)
		leaf, err := x509.CreateCertificate(rand.Reader, c, authority, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf}, PrivateKey: key}}}
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		defer s.Close()
		_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
		cmd := exec.Command("parley", "health", "--timeout", "30s", "--url", "https://"+net.JoinHostPort(host, port)+"/healthz")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SSL_CERT_FILE=" + roots, "SSL_CERT_DIR=" + t.TempDir()}
		out, err := cmd.CombinedOutput()
		return string(out), err == nil
	}
	good := func() *x509.Certificate {
		return &x509.Certificate{NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4zero}}
	}
	expired := good()
	expired.NotAfter = time.Now().Add(-time.Hour)
	other := good()
	other.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)}
	for name, c := range map[string]struct {
		host, roots string
		cert        *x509.Certificate
		says        string // "" for healthy
	}{
		"good":              {"0.0.0.0", roots, good(), ""},
		"of another name":   {"0.0.0.0", roots, other, "certificate is valid for 10.0.0.1, not 0.0.0.0"},
		"expired":           {"0.0.0.0", roots, expired, "expired"},
		"of nobody known":   {"0.0.0.0", os.DevNull, good(), "unknown authority"},
		"any, for loopback": {"127.0.0.1", os.DevNull, expired, ""},
	} {
		said, ok := health(c.host, c.roots, c.cert)
		if ok != (c.says == "") || !strings.Contains(said, c.says) {
			t.Errorf("%s: healthy: %v, said %q, want %q", name, ok, said, c.says)
		}
	}
}
