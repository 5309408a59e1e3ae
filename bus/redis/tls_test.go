package redis_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// An authority vouches for certificates of 127.0.0.1. Its own is in ca.pem of its directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.make("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue makes a certificate and its key, in NAME.pem and NAME.key.
func (a *authority) issue(name string) {
	a.make(name, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
}

func (a *authority) make(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject.CommonName = name
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err1 := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	pkcs8, err2 := x509.MarshalPKCS8PrivateKey(key)
	cert, err3 := x509.ParseCertificate(der)
	err = errors.Join(
		err1, err2, err3,
		os.WriteFile(a.file(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(a.file(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600),
	)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// server is redis.conf of a server that speaks TLS on a port of 127.0.0.1, and whom it speaks with must have a certificate.
func (a *authority) server() (addr string, config []string) {
	a.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	defer l.Close()
	addr = l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	return addr, []string{
		"bind 127.0.0.1", "tls-port " + port, "tls-auth-clients yes", "tls-replication yes",
		"tls-ca-cert-file " + a.file("ca.pem"), "tls-cert-file " + a.file("server.pem"), "tls-key-file " + a.file("server.key"),
	}
}

// config is that of a node that shows its certificate.
func (a *authority) config(url string) redis.Config {
	return redis.Config{
		URL: url, CAFile: a.file("ca.pem"), CertFile: a.file("node.pem"), KeyFile: a.file("node.key"),
		Timeout: 20 * time.Second, // handshakes on a busy machine
	}
}

func TestRedisOverTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue("server")
	addr, config := a.server()
	bustest.StartRedis(t, append(config, "tls-auth-clients no")...)
	const slow = 20 * time.Second // handshakes on a busy machine
	if _, err := redis.Open(t.Context(), redis.Config{URL: "rediss://" + addr, Timeout: slow}); !errors.Is(err, redis.ErrMisconfigured) {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	r := openRedis(t, redis.Config{URL: "rediss://" + addr + "?skip_verify=true", CompareInterval: time.Hour, Timeout: slow})
	_, told := subscribe(t, r, "lobby")
	appendTo(t, r, "lobby", "m0", "")
	told.expect("m0")
	r.Reconnect()
	eventually(t, "another connection", func() bool { return r.Sessions() > 2 })
	appendTo(t, r, "lobby", "m1", "")
	told.expect("m0", "m1")
}

// Servers that want to see a certificate see it: one alone, what sentinels lead to, and the sentinels, and a Redis Cluster.
func TestRedisShowsItsCertificate(t *testing.T) {
	a := newAuthority(t)
	a.issue("server")
	a.issue("node")
	for kind, start := range map[string]func(t *testing.T) (url string){
		"rediss": func(t *testing.T) string {
			addr, config := a.server()
			bustest.StartRedis(t, config...)
			return "rediss://" + addr
		},
		"rediss+sentinel": func(t *testing.T) string {
			addr, config := a.server()
			bustest.StartRedis(t, config...)
			sentinel, config := a.server()
			bustest.StartSentinel(t, append(config, "sentinel monitor rooms "+strings.Replace(addr, ":", " ", 1)+" 1")...)
			return "rediss+sentinel://" + sentinel + "/rooms"
		},
		"rediss+cluster": func(t *testing.T) string {
			addr, config := a.server()
			bus, _ := a.server()
			_, busPort, _ := net.SplitHostPort(bus)
			s := bustest.StartRedis(t, append(config, "tls-cluster yes", "cluster-enabled yes", "cluster-port "+busPort)...)
			c := s.Client()
			if err := c.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it to have all slots", func() bool {
				return strings.Contains(c.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
			})
			return "rediss+cluster://" + addr
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url := start(t)
			open := func(cfg redis.Config) (bus.Bus, error) {
				if cfg.IsCluster() {
					return redis.OpenCluster(t.Context(), cfg)
				}
				return redis.Open(t.Context(), cfg)
			}
			b, err := open(a.config(url))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			_, told := subscribe(t, b, "lobby")
			appendTo(t, b, "lobby", "m0", "")
			told.expect("m0")

			eventually(t, "who has no certificate to be refused for good", func() bool { // the end of the connection may come first
				b, err := open(redis.Config{URL: url, CAFile: a.file("ca.pem")})
				if err == nil {
					b.Close()
					t.Fatal("opened without a certificate")
				}
				return errors.Is(err, redis.ErrMisconfigured)
			})
		})
	}
}

// Files that are replaced are read for the next connection.
func TestRedisReadsItsCertificateAgain(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue("server")
	a.issue("node")
	addr, config := a.server()
	s := bustest.StartRedis(t, config...)
	r := openRedis(t, a.config("rediss://"+addr))
	appendTo(t, r, "lobby", "m0", "")
	mine := *a // an authority that nobody knows
	mine.cert, mine.key = nil, nil
	for _, name := range []string{"node.pem", "node.key"} {
		if err := os.Rename(a.file(name), a.file("good "+name)); err != nil {
			t.Fatal(err)
		}
	}
	mine.issue("node")
	if err := s.Client().ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the certificate to be refused", func() bool {
		_, err := tryAppend(t, r, "lobby", "m1", "m1")
		return errors.Is(err, bus.ErrUnavailable)
	})
	for _, name := range []string{"node.pem", "node.key"} {
		if err := os.Rename(a.file("good "+name), a.file(name)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the certificate to be taken", func() bool { _, err := tryAppend(t, r, "lobby", "m1", "m1"); return err == nil })
}
