package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/node/client"
)

// The cluster of docker-compose.yml, on a real engine, does what .deploy/README.md says. Each step finds three nodes and leaves three.
func TestCompose(t *testing.T) {
	c := compose(t)
	began := time.Now()
	c.run(3*time.Minute, "docker", slices.Concat([]string{"compose", "up", "--detach", "--wait"}, c.services())...)
	if t.Failed() {
		return
	}
	t.Logf("all healthy after %s", time.Since(began).Round(100*time.Millisecond))

	for _, step := range []struct {
		name string
		run  func(*composed)
	}{
		{"the image is small and may do nothing", (*composed).testImage},
		{"clients of different nodes talk", (*composed).testTalk},
		{"the public sees nothing but the service", (*composed).testPublic},
		{"scaling up and down", (*composed).testScaling},
		{"a rolling restart", (*composed).testRollingRestart},
		{"an upgrade, and back", (*composed).testUpgrade},
		{"an upgrade that can't start", (*composed).testFailedUpgrade},
		{"a node dies", (*composed).testNodeDies},
		{"Redis dies", (*composed).testRedisDies},
		{"a backup", (*composed).testBackup},
		{"the dashboard answers", (*composed).testDashboard},
		{"alerts", (*composed).testAlerts},
		{"files that are replaced", (*composed).testFilesReplaced},
		{"a certificate makes it TLS", (*composed).testTLS},
		{"mistakes end with one line", (*composed).testMistakes},
		{"settings that can't be taken", (*composed).testRefusedSettings},
		{"another checkout", (*composed).testAnotherCheckout},
		{"trouble, while more is tried", (*composed).testTrouble},
		{"more than one Redis", (*composed).testMoreThanOneRedis},
		{"trouble is told", (*composed).testTold},
		{"every setting", (*composed).testSettings}, // the last: it leaves them changed
	} {
		t.Run(step.name, func(t *testing.T) {
			defer func(outer *testing.T) { c.t = outer }(c.t)
			c.t = t
			step.run(c)
		})
	}
}

func (c *composed) testImage() {
	image := c.name + "-node"
	history := c.run(time.Minute, "docker", "history", "--human=false", "--no-trunc", "--format", "{{.Size}} {{.CreatedBy}}", image)
	layer := regexp.MustCompile(`(?m)^(\d+) .*COPY.* /parley`).FindStringSubmatch(history)
	if layer == nil {
		c.t.Fatalf("no layer of the program in\n%s", history)
	}
	size, _ := strconv.Atoi(layer[1])
	c.t.Logf("the program's layer has %.1f MB", float64(size)/1e6)
	if size > mostProgram {
		c.t.Error("that is too much")
	}
	node := c.nodes()[0]
	const may = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}"
	if got := c.run(time.Minute, "docker", "inspect", "--format", may, node); got != "65532:65532 true [ALL] [no-new-privileges:true]" {
		c.t.Errorf("user, read-only root, capabilities, options: %s", got)
	}
	if got := c.run(time.Minute, "docker", "exec", node, "/parley", "version"); !strings.HasPrefix(got, "parley v0-composed (composed) ") {
		c.t.Errorf("the version is %s", got)
	}
	const labels = `{{index .Config.Labels "org.opencontainers.image.version"}} {{index .Config.Labels "org.opencontainers.image.revision"}}`
	if got := c.run(time.Minute, "docker", "image", "inspect", "--format", labels, image); got != "v0-composed composed" {
		c.t.Errorf("the image's version and revision are %s", got)
	}
}

func (c *composed) testTalk() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	crowd := gather(c.t, 6, "ws://"+c.lb)
	crowd.awaitNodes(3)
	plain, _, err := websocket.Dial(ctx, "ws://"+c.lb+"?room=crowd", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer plain.CloseNow()
	crowd.awaitTalk()
	for range crowd.members {
		hear(c.t, ctx, plain, " at ")
	}
	say(c.t, ctx, plain, "a text")
	crowd.await("a text", func() bool {
		return !slices.ContainsFunc(crowd.members, func(m *talker) bool {
			return !slices.ContainsFunc(m.heard, func(h heard) bool { return h.text == "a text" })
		})
	})
	crowd.settle()

	c.awaitNodes(3)
	c.awaitValue(`sum(parley_messages_published_total{outcome="ok"})`, func(v float64) bool { return v >= 7 })
	c.awaitValue(`redis_up`, func(v float64) bool { return v == 1 })
}

func (c *composed) testPublic() {
	for _, path := range []string{"/metrics", "//metrics", "/%6Detrics", "/metrics/", "/x/../metrics", "/debug/pprof/", "/debug/pprof/heap"} {
		if status, body, err := get("http://" + c.lb + path); err != nil || status != http.StatusNotFound {
			c.t.Errorf("%s answers %d, %v: %.100s", path, status, err, body)
		}
	}
	published := c.run(time.Minute, "docker", "compose", "ps", "--format", "{{range .Publishers}}{{if .PublishedPort}}{{$.Service}} {{.URL}}\n{{end}}{{end}}")
	for line := range strings.Lines(published) {
		service, ip, _ := strings.Cut(strings.TrimSpace(line), " ")
		if service != "" && (!slices.Contains([]string{"lb", "prometheus", "grafana"}, service) || ip != "127.0.0.1") {
			c.t.Errorf("%s listens on %s", service, ip)
		}
	}
}

func (c *composed) testScaling() {
	crowd := gather(c.t, 12, "ws://"+c.lb)
	crowd.talk(200 * time.Millisecond)
	c.documented("Scaling")
	c.awaitNodes(5)
	more := gather(c.t, 8, "ws://"+c.lb)
	nodes := crowd.nodes()
	maps.Copy(nodes, more.nodes())
	if len(nodes) != 5 {
		c.t.Errorf("clients are on %v, not on 5 nodes", nodes)
	}
	more.disperse()

	began := time.Now()
	before := c.nodes()
	c.set("PARLEY_NODES=2")
	c.run(time.Minute, "docker", slices.Concat([]string{"compose", "up", "--detach"}, c.services())...)
	c.awaitNodes(2)
	if slices.ContainsFunc(c.nodes(), func(id string) bool { return !slices.Contains(before, id) }) {
		c.t.Error("those that stay were made anew")
	}
	crowd.awaitNodes(2)
	crowd.awaitTalk()
	crowd.settle()
	c.t.Logf("from 5 nodes to 2: %s", crowd.returns(began))
	c.set("PARLEY_NODES=3")
	c.run(time.Minute, "docker", slices.Concat([]string{"compose", "up", "--detach"}, c.services())...)
	c.awaitNodes(3)
	c.awaitValue("parley_nodes_wanted", func(v float64) bool { return v == 3 })
}

func (c *composed) testNodeDies() {
	crowd := gather(c.t, 12, "ws://"+c.lb)
	crowd.awaitNodes(3)
	crowd.talk(200 * time.Millisecond)
	began := time.Now()
	noticed := c.changes("DOWN")
	c.run(time.Minute, "docker", "kill", c.nodes()[0])
	crowd.awaitNodes(2)
	c.awaitNodes(2)
	if n := c.changes("DOWN") - noticed; n != 1 {
		c.t.Errorf("the load balancer logs %d times that the node is gone", n)
	}
	crowd.awaitTalk()
	crowd.settle()
	c.t.Logf("%s", crowd.returns(began))
	c.documented("A node that died")
	c.awaitNodes(3)
}

// changes counts what the load balancer's log says of nodes that come ("UP") or go ("DOWN").
func (c *composed) changes(to string) int {
	c.t.Helper()
	logs := c.run(time.Minute, "docker", "compose", "logs", "--no-log-prefix", "lb")
	return len(regexp.MustCompile(`(?m)Server nodes/node\d+ is (?:going )?`+to).FindAllString(logs, -1))
}

func (c *composed) testRedisDies() {
	crowd := gather(c.t, 12, "ws://"+c.lb)
	crowd.awaitNodes(3)
	crowd.talk(200 * time.Millisecond)
	crowd.awaitTalk()
	c.run(time.Minute, "docker", "compose", "kill", "redis")

	// Nobody new is let in, and nobody is sent away.
	c.awaitEntry(http.StatusServiceUnavailable)
	c.run(time.Minute, "docker", "compose", "start", "redis")
	c.awaitEntry(http.StatusSwitchingProtocols)
	crowd.awaitTalk()
	crowd.settle()
	if n := crowd.absences(); n > 0 {
		c.t.Errorf("%d connections were lost", n)
	}
	c.awaitNodes(3)
}

func (c *composed) testTLS() {
	certificates := c.t.TempDir()
	file := filepath.Join(certificates, "site.pem")
	trusted := writeCertificate(c.t, file)
	plainPort := freeAddr(c.t)
	missing := filepath.Join(certificates, "missing")
	c.set("PARLEY_CERTS=" + missing)
	if out, err := c.command("docker", "compose", "up", "--detach", "--no-deps", "lb").CombinedOutput(); err == nil {
		c.t.Errorf("it starts without its certificates: %s", out)
	}
	if _, err := os.Stat(missing); err == nil {
		c.t.Error("the directory that was missing is made")
	}
	defer func() {
		c.set("PARLEY_CERTS=", "PARLEY_HTTP_PORT=")
		c.run(time.Minute, "docker", "compose", "up", "--detach", "--wait", "--no-deps", "lb")
	}()
	c.set("PARLEY_CERTS="+certificates, "PARLEY_HTTP_PORT="+plainPort)
	for range 2 { // the second one changes nothing
		c.run(time.Minute, "docker", "compose", "up", "--detach", "--wait", "--no-deps", "lb")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	safe := onOwnConnections(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}})
	losses := 0
	one, err := client.Dial(ctx, "wss://"+c.lb, client.Options{HTTPClient: safe, Status: func(s client.Status) {
		if !s.Up {
			losses++
		}
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	room, err := one.Join(ctx, "crowd", client.JoinOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	if _, _, err := websocket.Dial(ctx, "ws://"+c.lb, nil); err == nil {
		c.t.Error("it still speaks without TLS")
	}
	old := onOwnConnections(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, MaxVersion: tls.VersionTLS11}})
	if _, err := old.Get("https://" + c.lb + "/readyz"); err == nil {
		c.t.Error("it speaks TLS 1.1")
	}

	c.testHTTPS(trusted, plainPort)

	trusted = writeCertificate(c.t, file)
	renewed := onOwnConnections(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}})
	c.documented("Renewing certificates")
	c.await("the new certificate", func() error {
		res, err := renewed.Get("https://" + c.lb + "/readyz")
		if err == nil {
			res.Body.Close()
		}
		return err
	})
	if _, err := room.Send(ctx, "in confidence"); err != nil {
		c.t.Error(err)
	}
	if one.Close(); losses > 0 {
		c.t.Error("who was connected was sent away")
	}
}

// testHTTPS holds what pages get on top of TLS: HTTP/2, HSTS, the way from http, and how long the certificate is good for.
func (c *composed) testHTTPS(trusted *x509.CertPool, plainPort string) {
	two := onOwnConnections(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, ForceAttemptHTTP2: true})
	two.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := two.Get("https://" + c.lb + "/readyz")
	if err != nil {
		c.t.Fatal(err)
	}
	res.Body.Close()
	if res.ProtoMajor != 2 || res.StatusCode != http.StatusOK || res.Header.Get("Strict-Transport-Security") == "" {
		c.t.Errorf("https answers %s %s, %v", res.Proto, res.Status, res.Header)
	}
	if res, err = two.Get("http://" + plainPort + "/v1/rooms/lobby/members?limit=1"); err != nil {
		c.t.Fatal(err)
	}
	res.Body.Close()
	if to := res.Header.Get("Location"); res.StatusCode != http.StatusPermanentRedirect || to != "https://"+c.lb+"/v1/rooms/lobby/members?limit=1" {
		c.t.Errorf("http answers %s, to %s", res.Status, to)
	}
	c.awaitValue(`parley_certificate_ends / 1e10 - parley_certificate_now / 1e10`, func(v float64) bool { return v != 0 })
	c.awaitValue(`parley_certificate_ends > bool 2e11`, func(v float64) bool { return v == 1 })
}

func (c *composed) testMistakes() {
	for service, want := range map[string]string{
		wrongPassword:         `redis at redis:6379: .*WRONGPASS`,
		unreadableCertificate: `--tls-cert: open /cert.pem: permission denied`,
		mistypedFlag:          `unknown flag --lisen`,
	} {
		c.run(time.Minute, "docker", "compose", "--profile", "mistakes", "up", "--detach", "--no-deps", service)
		c.await(service, func() error {
			shown := c.run(time.Minute, "docker", "compose", "--profile", "mistakes", "ps", "--all", "--format", "{{.State}} {{.ExitCode}}", service)
			if !regexp.MustCompile(`^exited [1-9]`).MatchString(shown) {
				return fmt.Errorf("%q", shown)
			}
			return nil
		})
		log := c.run(time.Minute, "docker", "compose", "--profile", "mistakes", "logs", "--no-log-prefix", service)
		if !regexp.MustCompile(`^parley: .*`+want+`.*$`).MatchString(log) || strings.Contains(log, "pa55word") {
			c.t.Errorf("%s said, instead of %q:\n%s", service, want, log)
		}
	}
}

// writeCertificate makes one for 127.0.0.1, with its key, in the one file that HAProxy wants.
func writeCertificate(t *testing.T, file string) (trusted *x509.CertPool) {
	t.Helper()
	p := newPair(t)
	trusted = x509.NewCertPool()
	trusted.AddCert(p.write(t, 1))
	var both []byte
	for _, part := range []string{p.cert, p.key} {
		text, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, text...)
	}
	if err := os.WriteFile(file, both, 0o644); err != nil { // HAProxy is another user
		t.Fatal(err)
	}
	return trusted
}
