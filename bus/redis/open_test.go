package redis_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/bus/bustest"
	"parley/bus/redis"
)

func TestRedisOpenTellsWhatIsWrongAndNeverThePassword(t *testing.T) {
	server := bustest.StartRedisTCP(t)
	if err := server.Client().ConfigSet(t.Context(), "requirepass", "right").Err(); err != nil {
		t.Fatal(err)
	}
	guarded := server.Addr()
	open := bustest.StartRedisTCP(t).Addr()
	for _, c := range []struct {
		name, url, says string
		permanent       bool
	}{
		{"wrong password", "redis://:s3cret@" + guarded, "WRONGPASS", true},
		{"no password", "redis://" + guarded, "NOAUTH", true},
		{"no such database", "redis://" + open + "/99", "DB index", true},
		{"no URL", "s3cret", "redis://", true},
		{"another scheme", "http://:s3cret@localhost", "redis://", true},
		{"not a port", "redis://:s3cret@localhost:s3cret", "redis://", true},
		{"nobody listens", "redis://:s3cret@127.0.0.1:1", "127.0.0.1:1", false},
		{"no such socket", "unix://:s3cret@/nowhere/s", "/nowhere/s", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := redis.Open(t.Context(), redis.Config{URL: c.url})
			if err == nil {
				r.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("says %q, not %q", err, c.says)
			}
			if errors.Is(err, redis.ErrMisconfigured) != c.permanent {
				t.Errorf("%v: permanent is %v", err, !c.permanent)
			}
		})
	}
	openRedis(t, redis.Config{URL: "redis://:right@" + guarded + "/3"})
}

func TestRedisOpenEndsWithItsContext(t *testing.T) {
	s := bustest.StartRedis(t)
	s.Pause()
	defer s.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := redis.Open(ctx, redis.Config{URL: s.URL(), Timeout: time.Minute}); err == nil {
		t.Error("opened on a server that stands still")
	}
}

func TestRedisWarnsOfAServerThatEvicts(t *testing.T) {
	for policy, warns := range map[string]bool{"noeviction": false, "allkeys-lru": true} {
		var log bytes.Buffer
		s := bustest.StartRedis(t, "maxmemory 100mb", "maxmemory-policy "+policy)
		r, err := redis.Open(t.Context(), redis.Config{URL: s.URL(), Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		if strings.Contains(log.String(), policy) != warns {
			t.Errorf("%s: logged %q", policy, log.String())
		}
	}
}

func TestRedisOverTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	bustest.StartRedis(t, "tls-port "+port, "tls-auth-clients no", "tls-ca-cert-file "+filepath.Join(dir, "cert.pem"),
		"tls-cert-file "+filepath.Join(dir, "cert.pem"), "tls-key-file "+filepath.Join(dir, "key.pem"))

	if _, err := redis.Open(t.Context(), redis.Config{URL: "rediss://" + addr}); !errors.Is(err, redis.ErrMisconfigured) {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	r := openRedis(t, redis.Config{URL: "rediss://" + addr + "?skip_verify=true", CompareInterval: time.Hour})
	_, told := subscribe(t, r, "lobby")
	appendTo(t, r, "lobby", "m0", "")
	told.expect("m0")
	r.Reconnect()
	eventually(t, "another connection", func() bool { return r.Sessions() > 2 })
	appendTo(t, r, "lobby", "m1", "")
	told.expect("m0", "m1")
}
