package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const deployReadme = root + "/.deploy/README.md"

// setVariables are those that the settings' table lists.
func setVariables(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(deployReadme)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "<!-- settings -->\n")
	table, _, ok := strings.Cut(table, "<!-- end of settings -->")
	if !ok {
		t.Fatalf("%s has no table of settings", deployReadme)
	}
	var variables []string
	for line := range strings.Lines(table) {
		first, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		for _, v := range regexp.MustCompile("`([A-Z_]+)`").FindAllStringSubmatch(first, -1) {
			variables = append(variables, v[1])
		}
	}
	slices.Sort(variables)
	return variables
}

// Every variable that docker-compose.yml, or what is laid over it, reads stands in the table, and none else.
func TestDeployListsTheSettings(t *testing.T) {
	read := map[string]bool{"COMPOSE_FILE": true, "COMPOSE_PROFILES": true, "COMPOSE_PROJECT_NAME": true} // Compose itself reads these
	for _, file := range composeFiles {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range regexp.MustCompile(`[^$]\$\{([A-Z_]+)|(?m:^      ([A-Z_]+):$)`).FindAllStringSubmatch(string(text), -1) {
			read[v[1]+v[2]] = true
		}
	}
	if listed := setVariables(t); !slices.Equal(listed, slices.Sorted(maps.Keys(read))) {
		t.Errorf("listed: %v\nread:   %v", listed, slices.Sorted(maps.Keys(read)))
	}
}

// A setting that is changed in .env is the running part's, after what the README says to do. All of the table are changed, and read back,
// here or in the step that is named.
func (c *composed) testSettings() {
	elsewhere := map[string]string{
		"COMPOSE_FILE":             "testMoreThanOneRedis",
		"COMPOSE_PROJECT_NAME":     "testAnotherCheckout",
		"COMPOSE_PROFILES":         "testTold",
		"PARLEY_CERTS":             "testTLS",
		"PARLEY_DATA_NET":          "testMoreThanOneRedis",
		"PARLEY_HTTP_PORT":         "testTLS",
		"PARLEY_REDIS_REPLICAS":    "testMoreThanOneRedis",
		"PARLEY_REVISION":          "testImage",
		"PARLEY_TOKEN_SECRET_FILE": "TestWhatComposeHandsOnSaysWhoMayDoWhat", // not beside PARLEY_TOKEN_SECRET
	}
	secrets := c.t.TempDir()
	for name, text := range map[string]string{"keys": "reporter fedcba9876543210fedcba9876543210\n", "key.pem": publicKey(c.t)} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(text), 0o644); err != nil { // user 65532 reads it
			c.t.Fatal(err)
		}
	}
	lb, prometheus, grafana := freeAddr(c.t), freeAddr(c.t), freeAddr(c.t)
	values := map[string]string{
		"GOMAXPROCS":            "3",
		"GOMEMLIMIT":            "700MiB",
		"GRAFANA_PASSWORD":      "other",
		"GRAFANA_PORT":          port(grafana),
		"PARLEY_API_KEYS":       "backend 0123456789abcdef0123456789abcdef",
		"PARLEY_API_KEYS_FILE":  "/run/secrets/keys",
		"PARLEY_CLIENTS":        "20",
		"PARLEY_DRAIN":          "2s",
		"PARLEY_GUESTS":         "true",
		"PARLEY_GUEST_RIGHTS":   "*:*",
		"PARLEY_HISTORY_BYTES":  "20MiB",
		"PARLEY_HISTORY_SIZE":   "4000",
		"PARLEY_HISTORY_TTL":    "23h",
		"PARLEY_LB_NOFILE":      "9000",
		"PARLEY_LOG_FORMAT":     "json",
		"PARLEY_LOG_LEVEL":      "debug",
		"PARLEY_MAX_TEXT":       "2KiB",
		"PARLEY_MEMORY":         "800m",
		"PARLEY_NODES":          "4",
		"PARLEY_NOFILE":         "10000",
		"PARLEY_ORIGINS":        "https://chat.example",
		"PARLEY_PORT":           lb,
		"PARLEY_PRESENCE_LIMIT": "100",
		"PARLEY_PROXIES":        "192.0.2.0/24 198.51.100.1",
		"PARLEY_PROXY_PROTOCOL": "1",
		"PARLEY_QUEUE":          "300KiB",
		"PARLEY_SECRETS":        secrets,
		"PARLEY_TOKEN_AUDIENCE": "chat",
		"PARLEY_TOKEN_ISSUER":   "https://id.example",
		"PARLEY_TOKEN_JWKS":     "http://127.0.0.1:9/keys",
		"PARLEY_TOKEN_KEY_FILE": "/run/secrets/key.pem",
		"PARLEY_TOKEN_LIFE":     "24h",
		"PARLEY_TOKEN_SECRET":   "0123456789abcdef0123456789abcdef",
		"PARLEY_USER_RIGHTS":    "*:read",
		"PARLEY_VERSION":        "v3-composed",
		"PROMETHEUS_PORT":       port(prometheus),
		"REDIS_MAXMEMORY":       "300mb",
		"REDIS_MEMORY":          "700m",
		"REDIS_PASSWORD":        "changed",
	}
	all := slices.Sorted(maps.Keys(values))
	all = slices.AppendSeq(all, maps.Keys(elsewhere))
	slices.Sort(all)
	if listed := setVariables(c.t); !slices.Equal(all, listed) {
		c.t.Fatalf("changed here: %v\nlisted:       %v", all, listed)
	}

	// Redis is told its new password first; those who are connected stay.
	c.run(time.Minute, "docker", "compose", "exec", "-T", "redis", "redis-cli", "config", "set", "requirepass", values["REDIS_PASSWORD"])
	for name, value := range values {
		c.set(name + "=" + value)
	}
	c.run(4*time.Minute, "./.deploy/rollout", "--build")
	nodes := c.nodes()
	c.run(3*time.Minute, "docker", slices.Concat([]string{"compose", "up", "--detach", "--wait"}, c.services())...)
	if after := c.nodes(); !slices.Equal(nodes, after) || len(after) != 4 {
		c.t.Errorf("after a rollout, docker compose up made other nodes: %v, %v", nodes, after)
	}
	c.lb, c.watch = lb, "http://"+prometheus

	used := c.run(time.Minute, "docker", "exec", nodes[0], "/parley", "serve", "--check")
	for _, name := range append(handedOn(c.t), "PARLEY_DRAIN") {
		if values[name] == "" {
			continue
		}
		line := regexp.MustCompile(`(?m)^--\S+ +(.*?) +\$` + name + `$`).FindStringSubmatch(used)
		if line == nil || !slices.Contains([]string{values[name], values[name] + "0m0s", "(not shown)"}, line[1]) {
			c.t.Errorf("%s is %q, not %q, in\n%s", name, line, values[name], used)
		}
	}
	for key, want := range map[string]int{"fedcba9876543210fedcba9876543210": 200, "no such key, though it is as long": 401} {
		if got := c.askWithKey(key); got != want {
			c.t.Errorf("who says the key %q is answered %d", key, got)
		}
	}
	if v := c.version(); v != values["PARLEY_VERSION"] {
		c.t.Errorf("the nodes are %s", v)
	}
	c.awaitNodes(4)
	// What was scraped of late: Prometheus, started anew, still answers for nodes that went while it was away.
	for expr, want := range map[string]float64{
		`max(parley_nodes_wanted)`:                                               4,
		`min(min_over_time(process_max_fds{job="node"}[40s]))`:                   10000,
		`min(min_over_time(go_sched_gomaxprocs_threads{job="node"}[40s]))`:       3,
		`min(min_over_time(go_gc_gomemlimit_bytes{job="node"}[40s]))`:            700 << 20,
		`min(min_over_time(redis_memory_max_bytes[40s]))`:                        300 << 20,
		`min(min_over_time(haproxy_frontend_limit_sessions{proxy="chat"}[40s]))`: 21,
		`min(min_over_time(parley_ready[40s]))`:                                  1,
		`count(last_over_time(parley_build_info[40s]))`:                          4,
		`count(last_over_time(parley_build_info{version="v3-composed"}[40s]))`:   4,
		`count(ALERTS{alertname="ParleyNodesMissing"}) or vector(0)`:             0,
	} {
		c.awaitValue(expr, func(v float64) bool { return v == want })
	}
	for service, want := range map[string]string{"node": "838860800", "redis": "734003200"} {
		id := strings.Fields(c.run(time.Minute, "docker", "compose", "ps", "--quiet", service))[0]
		if got := c.run(time.Minute, "docker", "inspect", "--format", "{{.HostConfig.Memory}}", id); got != want {
			c.t.Errorf("%s may have %s bytes", service, got)
		}
	}
	if got := c.run(time.Minute, "docker", "compose", "exec", "-T", "lb", "sh", "-c", "ulimit -n"); got != "9000" {
		c.t.Errorf("lb may open %s files", got)
	}
	config := c.run(time.Minute, "docker", "compose", "config", "grafana")
	for _, want := range []string{"GF_SECURITY_ADMIN_PASSWORD: other", `published: "` + port(grafana) + `"`} {
		if !strings.Contains(config, want) {
			c.t.Errorf("Grafana is not given %s", want)
		}
	}
	c.testProxied()
	c.testFound()
	c.testFull()
}

// proxied dials the load balancer as a proxy does that speaks the PROXY protocol.
func (c *composed) proxied(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.lb)
	if err == nil {
		_, err = io.WriteString(conn, "PROXY TCP4 192.0.2.7 203.0.113.1 40000 443\r\n")
	}
	return conn, err
}

// The client's address comes through two proxies: one that speaks the PROXY protocol, and one before it that is trusted.
func (c *composed) testProxied() {
	plain := onOwnConnections(&http.Transport{DialContext: c.proxied})
	req, err := http.NewRequest(http.MethodGet, "http://"+c.lb+"/v1/rooms/proxied/members", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", "192.0.2.99, 203.0.113.9")
	req.Header.Set("X-Request-Id", "from-the-first-proxy")
	res, err := plain.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	res.Body.Close()
	if id := res.Header.Get("X-Request-Id"); id != "from-the-first-proxy" {
		c.t.Errorf("what a trusted proxy calls from-the-first-proxy is %q", id)
	}
	c.awaitLine("node", "/v1/rooms/proxied/members", `"203.0.113.9:0"`, `"from-the-first-proxy"`, `"node":"`)
	c.awaitLine("lb", "/v1/rooms/proxied/members", "203.0.113.9:", "from-the-first-proxy")
	if direct, err := http.Get("http://" + c.lb + "/readyz"); err == nil { //nolint:noctx // it is refused at once
		direct.Body.Close()
		if direct.StatusCode == http.StatusOK {
			c.t.Error("who does not speak the PROXY protocol is let in")
		}
	}
}

// askWithKey asks as an application for the rooms, and returns the status.
func (c *composed) askWithKey(key string) (status int) {
	c.t.Helper()
	plain := onOwnConnections(&http.Transport{DialContext: c.proxied})
	c.await("an answer", func() error { // the node may not know yet what is revoked
		req, err := http.NewRequest(http.MethodGet, "http://"+c.lb+"/v1/rooms", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+key)
		res, err := plain.Do(req)
		if err != nil {
			return err
		}
		res.Body.Close()
		if status = res.StatusCode; status == http.StatusServiceUnavailable {
			return errors.New(res.Status)
		}
		return nil
	})
	return status
}

// publicKey is one in PEM, whose other half nobody has.
func publicKey(t *testing.T) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// Who came, went, was refused and flooded is found in the logs of the nodes, and in the load balancer's, by what the client was told.
func (c *composed) testFound() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	options := &websocket.DialOptions{HTTPClient: onOwnConnections(&http.Transport{DialContext: c.proxied})}
	conn, res, err := websocket.Dial(ctx, "ws://"+c.lb+"?room=found", options)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.CloseNow()
	came := res.Header.Get("X-Request-Id")
	for range 600 { // --message-burst is 500
		if err := conn.Write(ctx, websocket.MessageText, []byte("again")); err != nil {
			break
		}
	}
	_, res, err = websocket.Dial(ctx, "ws://"+c.lb+"?token=forged", options)
	if err == nil || res == nil {
		c.t.Fatalf("a forged token is answered %+v", res)
	}
	refused := res.Header.Get("X-Request-Id")
	if came == "" || refused == "" || came == refused {
		c.t.Errorf("the requests are called %q and %q", came, refused)
	}
	c.awaitLine("lb", came)
	c.awaitLine("node", `"msg":"connected"`, `"request":"`+came+`"`, `"conn":"`)
	c.awaitLine("node", `"msg":"refused"`, `"request":"`+refused+`"`, `"code":"unauthorized"`)
	c.awaitLine("node", `"msg":"flooded"`, `"conn":"`)
	conn.CloseNow()
	c.awaitLine("node", `"msg":"closed"`, `"conn":"`)
}

// awaitLine waits until a service's log has a line with all parts.
func (c *composed) awaitLine(service string, parts ...string) {
	c.t.Helper()
	c.await(fmt.Sprintf("%s logs %q", service, parts), func() error {
		logs := c.run(time.Minute, "docker", "compose", "logs", "--no-log-prefix", service)
	lines:
		for line := range strings.Lines(logs) {
			for _, part := range parts {
				if !strings.Contains(line, part) {
					continue lines
				}
			}
			return nil
		}
		return fmt.Errorf("is not there")
	})
}

// A load balancer that is full says so, to clients and to who watches it.
func (c *composed) testFull() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	options := &websocket.DialOptions{HTTPClient: onOwnConnections(&http.Transport{DialContext: c.proxied})}
	var within []*websocket.Conn
	defer func() {
		for _, conn := range within {
			conn.CloseNow()
		}
	}()
	for range 20 {
		conn, _, err := websocket.Dial(ctx, "ws://"+c.lb, options)
		if err != nil {
			c.t.Fatalf("after %d clients: %v", len(within), err)
		}
		within = append(within, conn)
	}
	for range 3 {
		conn, res, err := websocket.Dial(ctx, "ws://"+c.lb, options)
		if err == nil {
			conn.CloseNow()
			c.t.Fatal("the load balancer takes more clients than it was told to")
		}
		if res == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || res.Header.Get("X-Request-Id") == "" {
			c.t.Fatalf("a client too many is answered %+v, %v", res, err)
		}
	}
	c.awaitValue(`haproxy_frontend_current_sessions{proxy="chat"} / haproxy_frontend_limit_sessions{proxy="chat"}`, func(v float64) bool { return v > 0.85 })
	c.awaitValue(`up{job="lb"}`, func(v float64) bool { return v == 1 })
	c.await("the alert", func() error {
		values, err := c.query(`ALERTS{alertname="ParleyBalancerFull"}`)
		if err == nil && len(values) == 0 {
			err = fmt.Errorf("is quiet")
		}
		return err
	})
	within[0].CloseNow()
	within = within[1:]
	c.await("room for one more", func() error {
		conn, _, err := websocket.Dial(ctx, "ws://"+c.lb, options)
		if err == nil {
			within = append(within, conn)
		}
		return err
	})
}
