package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// checkCertificate is how long a certificate may be served without looking whether its files have changed.
const checkCertificate = time.Second

// A certificate is read again when its files change. As long as what they hold is broken, the one before it is served.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	now               func() time.Time

	current atomic.Pointer[tls.Certificate]

	mu        sync.Mutex // guards what follows, and the reading of the files
	checked   time.Time
	cert, key []byte // what the files held when last read
	trouble   string // what was wrong then, if anything
}

// newCertificate reads the certificate for the first time, when it has to be whole.
func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, now: time.Now}
	if _, err := c.read(); err != nil {
		return nil, err
	}
	c.checked = c.now()
	return c, nil
}

// config is for a server that speaks TLS 1.2 at least, and HTTP/1.1 under it (see newServer).
func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"http/1.1"}}
}

// get implements tls.Config.GetCertificate. Handshakes that come while another looks at the files don't wait for it.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.mu.TryLock() {
		if now := c.now(); now.Sub(c.checked) >= checkCertificate {
			c.checked = now
			c.refreshLocked()
		}
		c.mu.Unlock()
	}
	return c.current.Load(), nil
}

// refreshLocked logs each change, for better or worse, once.
func (c *certificate) refreshLocked() {
	changed, err := c.read()
	switch {
	case err != nil && err.Error() != c.trouble:
		c.trouble = err.Error()
		c.log.Error("the TLS certificate can't be reloaded, the one before it is served on", "err", err)
	case err == nil && (changed || c.trouble != ""):
		c.trouble = ""
		c.log.Info("TLS certificate reloaded", "expires", c.current.Load().Leaf.NotAfter)
	}
}

// read makes what the files hold the current certificate, unless they hold what they held before.
func (c *certificate) read() (changed bool, err error) {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return false, fmt.Errorf("--tls-cert: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return false, fmt.Errorf("--tls-key: %w", err)
	}
	if bytes.Equal(cert, c.cert) && bytes.Equal(key, c.key) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", c.certFile, c.keyFile, err)
	}
	c.cert, c.key = cert, key
	c.current.Store(&pair)
	return true, nil
}
