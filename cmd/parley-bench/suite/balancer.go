package suite

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"parley/cmd/internal/selfsigned"
)

// mostBehind is how many clients a load balancer is given: it takes two files for each, and few systems let a process open more than
// 20,000.
const mostBehind = 6000

// balancerProcess is the name of the load balancer's process.
const balancerProcess = "balancer"

// behind starts two nodes behind HAProxy, with a configuration such as those of .deploy. With TLS it ends at the load balancer, unless
// that looks into nothing.
func (l Local) behind(ctx context.Context, config string) (*servers, error) {
	haproxy := cmp.Or(l.HAProxy, "haproxy")
	if _, err := exec.LookPath(haproxy); err != nil {
		return nil, fmt.Errorf("the nodes need a load balancer: %w (apt install haproxy)", err)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	blind := bytes.Contains(text, []byte("send-proxy"))
	flags := []string{"--trusted-proxies", "127.0.0.0/8"}
	if blind {
		flags = append(flags, "--proxy-protocol")
	}
	sv, err := l.startNodes(ctx, 2, l.TLS && blind, flags...)
	if err != nil {
		return nil, err
	}
	return sv.ready(l.startBalancer(ctx, sv, haproxy, string(text), l.TLS && !blind))
}

// startBalancer puts HAProxy before servers, and takes their place in the URLs.
func (l Local) startBalancer(ctx context.Context, sv *servers, haproxy, text string, tls bool) error {
	dir, err := os.MkdirTemp("", "parley-bench-")
	if err != nil {
		return err
	}
	sv.dirs = append(sv.dirs, dir)
	front, err := freeAddress()
	if err != nil {
		return err
	}
	watch, err := freeAddress()
	if err != nil {
		return err
	}
	certificates := ""
	scheme := sv.urls[0][:strings.Index(sv.urls[0], "://")+3]
	if tls {
		scheme, certificates = "wss://", filepath.Join(dir, "certs")+"/"
		if err := writeTogether(certificates); err != nil {
			return err
		}
	}
	if strings.HasPrefix(scheme, "wss") {
		text = strings.Replace(text, " check check-send-proxy ", " check check-ssl verify none check-send-proxy ", 1)
	}
	var nodes []string
	for _, u := range sv.urls {
		nodes = append(nodes, u[strings.Index(u, "://")+3:])
	}
	if text, err = besideNodes(text, front, watch, certificates, nodes); err != nil {
		return err
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	sv.urls = []string{scheme + front}
	sv.environment = []string{
		fmt.Sprint("PARLEY_CLIENTS=", mostBehind), fmt.Sprint("MOST_CHAT=", mostBehind+500), fmt.Sprint("MOST_ALL=", mostBehind+700),
		"PARLEY_CERTS=" + certificates,
	}
	return sv.start(ctx, balancerProcess, front, haproxy, "-db", "-f", file)
}

// writeTogether writes a certificate and its key into the one file that HAProxy wants.
func writeTogether(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	cert, key, both := filepath.Join(dir, "cert"), filepath.Join(dir, "key"), filepath.Join(dir, "site.pem")
	if _, err := selfsigned.Write(cert, key, 1); err != nil {
		return err
	}
	var text []byte
	for _, file := range []string{cert, key} {
		part, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text = append(text, part...)
		os.Remove(file)
	}
	return os.WriteFile(both, text, 0o600)
}

// besideNodes is a configuration for nodes of this machine: no name is looked up, the ports are free ones, and nothing is logged.
func besideNodes(text, front, watch, certificates string, nodes []string) (string, error) {
	var lines strings.Builder
	for i, addr := range nodes {
		fmt.Fprintf(&lines, "  server node%d %s\n", i+1, addr)
	}
	servers := regexp.MustCompile(`(?m)^  server(-template)? node.*\n`)
	if !servers.MatchString(text) || !strings.Contains(text, "bind :8765") {
		return "", fmt.Errorf("the configuration of the load balancer has no nodes, or does not listen on :8765")
	}
	text = servers.ReplaceAllLiteralString(text, lines.String())
	text = regexp.MustCompile(`(?ms)^resolvers .*?\n\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(` resolvers \S+ resolve-prefer ipv4 init-addr none`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`(?m)^  (stats socket|log ).*\n`).ReplaceAllString(text, "")
	return strings.NewReplacer("bind :8765", "bind "+front, "bind :8404", "bind "+watch, "crt /certs/", "crt "+certificates, "  bind :8080\n", "").Replace(text), nil
}
