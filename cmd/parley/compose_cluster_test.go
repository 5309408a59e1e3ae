package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// upEngine makes a Docker engine, Compose and stand-ins for the images, on a Debian that reaches no image registry.
// It is beside the repository.
const upEngine = "../shared/compose/up-engine"

// A composed is the cluster of docker-compose.yml, under a name of its own, on free ports of 127.0.0.1.
type composed struct {
	t        *testing.T // of the step
	whole    *testing.T
	env      []string // of the commands that the README names
	name     string   // of the Compose project
	standIns bool     // the images are Debian's programs, and Grafana is not among them
	lb       string   // host and port of the load balancer
	watch    string   // the URL of Prometheus
	work     string   // a directory to work in, with .env
	checkout string   // the directory of docker-compose.yml
	trouble  trouble
}

// compose makes the images and starts nothing. All that is started ends with the test.
func compose(t *testing.T) *composed {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes minutes")
	}
	c := &composed{t: t, whole: t, name: fmt.Sprintf("parley-test-%d", os.Getpid()), work: t.TempDir()}
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	upEngine := filepath.Join(top, upEngine)
	_, err = os.Stat(upEngine)
	c.standIns = err == nil
	answers := exec.Command("docker", "version").Run() == nil && exec.Command("docker", "compose", "version").Run() == nil
	switch {
	case c.standIns && (answers || canInstall()):
		c.run(10*time.Minute, upEngine, top)
	case !answers:
		t.Skip("no Docker engine with Compose answers")
	}

	c.lb = freeAddr(t)
	prometheus := freeAddr(t)
	c.watch = "http://" + prometheus
	c.checkout = c.work
	checkOut(t, top, c.checkout)
	c.env = append(os.Environ(),
		"COMPOSE_PROJECT_NAME="+c.name,
		"COMPOSE_FILE="+filepath.Join(c.checkout, "docker-compose.yml")+string(filepath.ListSeparator)+c.mistakes(),
		"COMPOSE_ENV_FILES="+filepath.Join(c.work, ".env"),
	)
	c.set(
		"PARLEY_PORT="+c.lb,
		"PROMETHEUS_PORT="+port(prometheus),
		"GRAFANA_PORT="+port(freeAddr(t)),
		"PARLEY_DRAIN=3s",
		"PARLEY_VERSION=v0-composed",
		"PARLEY_REVISION=composed",
		"REDIS_PASSWORD=composed",
	)
	if c.standIns {
		c.standInFor("redis_exporter", "prometheus-redis-exporter")
		c.standInFor("node-exporter", "prometheus-node-exporter")
		c.standInFor("alertmanager", "prometheus-alertmanager")
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := c.command("docker", "compose", "logs", "--tail", "40").CombinedOutput()
			t.Logf("%s", out)
		}
		c.run(2*time.Minute, "docker", "compose", "--profile", "*", "down", "--volumes", "--rmi", "local", "--timeout", "1")
	})
	c.run(10*time.Minute, "docker", "compose", "build", "node")
	return c
}

// checkOut copies what a checkout has of the cluster, and of the program's source.
func checkOut(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{".deploy", ".dockerignore", "Dockerfile", "bus", "cmd", "docker-compose.yml", "go.mod", "go.sum", "metrics", "node"} {
		source, copied := filepath.Join(from, name), filepath.Join(to, name)
		is, err := os.Stat(source)
		if err == nil && is.IsDir() {
			err = os.CopyFS(copied, os.DirFS(source))
		} else if err == nil {
			var text []byte
			if text, err = os.ReadFile(source); err == nil {
				err = os.WriteFile(copied, text, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// canInstall is whether a Docker engine may be installed: where nobody minds, on a machine that is there for tests.
func canInstall() bool {
	_, err := os.Stat("/etc/debian_version")
	return err == nil && os.Getuid() == 0 && os.Getenv("CI") == "true"
}

// standInFor makes an image of Debian's package, as up-engine does for others.
func (c *composed) standInFor(name, program string) {
	c.t.Helper()
	images := c.run(time.Minute, "docker", "compose", "--profile", "*", "config", "--images")
	image := regexp.MustCompile(`(?m)^.*` + name + `.*$`).FindString(images)
	if image == "" {
		c.t.Fatalf("no %s among the images:\n%s", name, images)
	}
	if exec.Command("docker", "image", "inspect", image).Run() == nil {
		return
	}
	cmd := c.command("docker", "build", "--quiet", "--network", "host", "--tag", image, "-")
	cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends %[1]s
USER nobody
ENTRYPOINT [%[1]q]
`, program))
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("%v: %s", err, out)
	}
}

// services are those that can be had.
func (c *composed) services() []string {
	all := []string{"redis", "node", "lb", "prometheus", "redis-exporter", "machine-exporter"}
	if !c.standIns {
		all = append(all, "grafana")
	}
	return all
}

func (c *composed) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = c.env
	return cmd
}

// run returns what a command wrote to its standard output. Its failure is the test's.
func (c *composed) run(within time.Duration, name string, args ...string) string {
	c.t.Helper()
	return c.runIn(c.checkout, within, name, args...)
}

func (c *composed) runIn(dir string, within time.Duration, name string, args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = c.env, dir
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		c.t.Errorf("%s %s: %v (of %s)\n%s%s", name, strings.Join(args, " "), err, within, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// documented runs what .deploy/README.md says to do about something: the shell commands below a heading.
func (c *composed) documented(heading string) {
	c.t.Helper()
	text, err := os.ReadFile(deployReadme)
	if err != nil {
		c.t.Fatal(err)
	}
	_, below, ok := strings.Cut(string(text), "### "+heading+"\n")
	if !ok {
		c.t.Fatalf("it has no heading %q", heading)
	}
	_, below, _ = strings.Cut(below, "```sh\n")
	commands, _, ok := strings.Cut(below, "```")
	if !ok {
		c.t.Fatalf("it has no commands below %q", heading)
	}
	c.runIn(c.work, 4*time.Minute, "sh", "-euc", commands)
}

// nodes are the ids of the containers of nodes.
func (c *composed) nodes() []string {
	c.t.Helper()
	return strings.Fields(c.run(time.Minute, "docker", "compose", "ps", "--quiet", "node"))
}

// await tries until what is expected is so.
func (c *composed) await(what string, try func() error) {
	c.t.Helper()
	c.awaitFor(patience, what, try)
}

func (c *composed) awaitFor(within time.Duration, what string, try func() error) {
	c.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(200 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: still %v", what, err)
		}
	}
}

// query asks Prometheus for an expression's values now.
func (c *composed) query(expr string) ([]float64, error) {
	_, body, err := get(c.watch + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error string
		Data  struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	var values []float64
	for _, r := range answer.Data.Result {
		v, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		if !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	return values, nil
}

// awaitValue waits for an expression to have one value, that will do.
func (c *composed) awaitValue(expr string, will func(float64) bool) {
	c.t.Helper()
	c.await(expr, func() error {
		values, err := c.query(expr)
		if err == nil && (len(values) != 1 || !will(values[0])) {
			err = fmt.Errorf("is %v", values)
		}
		return err
	})
}

// awaitNodes waits until Prometheus finds so many nodes, all well, and the load balancer finds as many ready.
func (c *composed) awaitNodes(n int) {
	c.t.Helper()
	c.await(fmt.Sprintf("%d nodes", n), func() error {
		_, body, err := get(c.watch + "/api/v1/targets?state=active")
		if err != nil {
			return err
		}
		found := make(map[string]int) // by health
		var answer struct {
			Data struct {
				ActiveTargets []struct{ ScrapePool, Health string }
			}
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return err
		}
		for _, target := range answer.Data.ActiveTargets {
			if target.ScrapePool == "node" {
				found[target.Health]++
			}
		}
		if len(found) != 1 || found["up"] != n {
			return fmt.Errorf("Prometheus finds %v", found)
		}
		return nil
	})
	c.awaitValue(`haproxy_backend_active_servers{proxy="nodes"}`, func(v float64) bool { return v == float64(n) })
}

// awaitEntry waits until new clients are answered so by the load balancer.
func (c *composed) awaitEntry(status int) {
	c.t.Helper()
	c.await("a new client", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		conn, res, err := websocket.Dial(ctx, "ws://"+c.lb, nil)
		if err == nil {
			conn.CloseNow()
		}
		if res == nil || res.StatusCode != status {
			return fmt.Errorf("is answered %+v, %v", res, err)
		}
		return nil
	})
}

// The nodes that can't start, each a service of its own.
const (
	wrongPassword         = "wrong-password"
	unreadableCertificate = "unreadable-certificate"
	mistypedFlag          = "mistyped-flag"
)

// receiver is a service that is told of alerts, and logs what it is told.
const receiver = "receiver"

// mistakes writes a compose file with nodes that can't start, and a receiver of alerts.
func (c *composed) mistakes() string {
	c.t.Helper()
	certificate := filepath.Join(c.work, "cert.pem")
	file := filepath.Join(c.work, "mistakes.yml")
	var y strings.Builder
	y.WriteString("services:\n")
	for name, wrong := range map[string]string{
		wrongPassword:         `environment: {PARLEY_REDIS: "redis://:pa55word@redis:6379/0"}`,
		unreadableCertificate: `environment: {PARLEY_TLS_CERT: /cert.pem, PARLEY_TLS_KEY: /cert.pem}`,
		mistypedFlag:          `command: [serve, --lisen, ":8765"]`,
	} {
		fmt.Fprintf(&y, `  %s:
    extends: {file: %q, service: node}
    build: !reset null
    image: %s-node
    scale: 1
    restart: "no"
    profiles: [mistakes]
    volumes: ["%s:/cert.pem:ro"]
    %s
`, name, filepath.Join(c.checkout, "docker-compose.yml"), c.name, certificate, wrong)
	}
	told := filepath.Join(c.work, "receiver.cfg")
	fmt.Fprintf(&y, `  %s:
    image: haproxy:3.2
    command: [haproxy, -db, -f, /receiver.cfg]
    volumes: ["%s:/receiver.cfg:ro"]
`, receiver, told)
	const logsWhatItIsTold = `global
  log stdout len 65535 format raw local0
defaults
  mode http
  timeout client 10s
frontend told
  bind :8080
  log global
  log-format "%[var(txn.told)]"
  option http-buffer-request
  http-request set-var(txn.told) req.body
  http-request return status 200
`
	for name, content := range map[string]struct {
		text string
		mode fs.FileMode
	}{certificate: {"secret", 0o600}, file: {y.String(), 0o644}, told: {logsWhatItIsTold, 0o644}} {
		if err := os.WriteFile(name, []byte(content.text), content.mode); err != nil {
			c.t.Fatal(err)
		}
	}
	return file
}

// freeAddr is an address of 127.0.0.1 that nothing listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// onOwnConnections leaves no idle connection, and so no goroutine, behind.
func onOwnConnections(transport *http.Transport) *http.Client {
	transport.DisableKeepAlives = true
	return &http.Client{Transport: transport}
}
