package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A target is what a URL names: one server, what sentinels watch over, or a Redis Cluster.
type target struct {
	options *redis.Options // of a connection
	kind    targetKind
	addrs   []string // of sentinels, or of some nodes of a Cluster

	name                               string // of the primary, as sentinels have it
	sentinelUsername, sentinelPassword string
}

type targetKind byte

const (
	oneServer targetKind = iota
	bySentinel
	aCluster
)

var errURL = errors.New("the Redis URL is none of redis://[user:password@]host[:port][/db], " +
	"unix://[user:password@]/path, redis+sentinel://[user:password@]host:port[,host:port...]/name and " +
	"redis+cluster://[user:password@]host:port[,host:port...], each but unix with rediss in place of redis for TLS")

// Check reports what is wrong with the URL and the files, in words that hold no password. It connects to nothing.
func (c Config) Check() error {
	_, err := c.parse()
	return err
}

// parseURL reads a URL. Its errors hold no part of it, which may be a password.
func parseURL(given string) (t target, err error) {
	scheme, rest, _ := strings.Cut(given, "://")
	scheme, kind, several := strings.Cut(scheme, "+")
	switch {
	case !several:
		if t.options, err = redis.ParseURL(given); err == nil {
			_, query, _ := strings.Cut(given, "?")
			_, err = url.ParseQuery(query) // or what is wrong in it would be left out
		}
		if err != nil {
			return t, misconfigured{errURL}
		}
		return t, nil
	case kind == "sentinel":
		t.kind = bySentinel
	case kind == "cluster":
		t.kind = aCluster
	default:
		return t, misconfigured{errURL}
	}
	rest, query, _ := strings.Cut(rest, "?")
	user, rest := cutLast(rest, "@")
	hosts, path, _ := strings.Cut(rest, "/")
	for host := range strings.SplitSeq(hosts, ",") {
		if h, port, err := net.SplitHostPort(host); err != nil || h == "" || port == "" {
			return t, misconfigured{errURL}
		}
		t.addrs = append(t.addrs, host)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return t, misconfigured{errURL}
	}
	if t.kind == bySentinel {
		t.name, err = url.PathUnescape(path)
		t.sentinelUsername, t.sentinelPassword = values.Get("sentinel_username"), values.Get("sentinel_password")
		values.Del("sentinel_username")
		values.Del("sentinel_password")
	}
	if err != nil || (t.kind == bySentinel) != (path != "") {
		return t, misconfigured{errURL}
	}
	if t.options, err = redis.ParseURL(scheme + "://" + user + t.addrs[0] + "?" + values.Encode()); err != nil {
		return t, misconfigured{errURL}
	}
	if t.kind == aCluster && t.options.DB != 0 {
		return t, misconfigured{errors.New("a Redis Cluster has no other database than 0")}
	}
	if t.options.TLSConfig != nil {
		t.options.TLSConfig.ServerName = "" // each server has its own
	}
	return t, nil
}

// cutLast cuts s behind the last sep; before is "" without one.
func cutLast(s, sep string) (before, after string) {
	i := strings.LastIndex(s, sep) + 1
	return s[:i], s[i:]
}

// parse gives what the configuration names.
func (c Config) parse() (target, error) {
	t, err := parseURL(c.URL)
	if err != nil {
		return t, err
	}
	if c.Password != "" {
		t.options.Password = c.Password
	}
	if err := c.useFiles(t.options.TLSConfig); err != nil {
		return t, misconfigured{err}
	}
	return t, nil
}

// useFiles has TLS use the configuration's files.
func (c Config) useFiles(t *tls.Config) error {
	switch {
	case c.CAFile == "" && c.CertFile == "" && c.KeyFile == "":
		return nil
	case t == nil:
		return errors.New("certificates are for TLS: the Redis URL must begin with rediss")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("a certificate and its key go together")
	}
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("%s holds no certificate (PEM)", c.CAFile)
		}
	}
	if c.CertFile == "" {
		return nil
	}
	load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		return &cert, err
	}
	t.GetClientCertificate = load // at each handshake: files may be replaced
	_, err := load(nil)
	return err
}

// String names it, without passwords.
func (t target) String() string {
	switch t.kind {
	case bySentinel:
		return t.name + " of the sentinels at " + strings.Join(t.addrs, ", ")
	case aCluster:
		return strings.Join(t.addrs, ", ")
	}
	return t.options.Addr
}
