package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley/bus/bustest"
)

// program finds a program that a test needs. The test is skipped where it is missing, but fails in CI.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no %s: apt-get install %s", name, name)
		}
		t.Skipf("no %s: apt-get install %s", name, name)
	}
	return path
}

// background runs a program until the test ends, with all that it starts.
func background(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
}

// balance runs HAProxy before nodes, set up as .deploy has it, and gives its URL.
func balance(t *testing.T, haproxy string, nodes []string) string {
	t.Helper()
	addr := freeAddr(t)
	config := "defaults\n  mode http\n  timeout connect 1s\n  timeout client 75s\n  timeout server 75s\n" +
		"frontend chat\n  bind " + addr + "\n  http-request set-header X-Forwarded-For %[src]\n" +
		"  http-request disable-l7-retry if METH_POST\n  default_backend nodes\n" +
		"backend nodes\n  option httpchk GET /readyz\n  option redispatch 1\n  retries 3\n  retry-on conn-failure empty-response 503\n" +
		"  default-server check inter 500ms fall 2 rise 1\n"
	for i, node := range nodes {
		config += fmt.Sprintf("  server node%d %s\n", i, node)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	background(t, exec.Command(haproxy, "-q", "-db", "-f", file))
	return "http://" + addr
}

// A page is what a browser shows: an EventSource of a room for each front, and what they heard.
type page struct {
	*httptest.Server

	mu    sync.Mutex
	heard map[string][]string // guarded by mu; by front
}

func newPage(t *testing.T, fronts map[string]string) *page {
	p := &page{}
	where, _ := json.Marshal(fronts)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<script>
			const heard = {}
			for (const [front, url] of Object.entries(%s)) {
				heard[front] = []
				new EventSource(url + "/v1/rooms/a/events?since=0-0").onmessage = (e) => heard[front].push(JSON.parse(e.data).text)
			}
			setInterval(() => fetch("/heard", { method: "POST", body: JSON.stringify(heard) }), 200)
		</script>`, where)
	})
	mux.HandleFunc("POST /heard", func(_ http.ResponseWriter, r *http.Request) {
		heard := map[string][]string{}
		if json.NewDecoder(r.Body).Decode(&heard) == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.heard = heard
		}
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// until waits until every front has heard so many messages, and gives what they heard.
func (p *page) until(ctx context.Context, n int) map[string][]string {
	for {
		p.mu.Lock()
		heard := maps.Clone(p.heard)
		p.mu.Unlock()
		least := n
		for _, texts := range heard {
			least = min(least, len(texts))
		}
		if len(heard) > 0 && least >= n || ctx.Err() != nil {
			return heard
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// What a browser's EventSource and curl live through while three nodes are restarted, one after the other, straight to a node and,
// where there is one, behind HAProxy: nothing is missing, and nothing comes twice.
func TestABrowserAndCurlOutliveARollingRestart(t *testing.T) {
	t.Parallel()
	chromium, curl := program(t, "chromium"), program(t, "curl")
	redis := bustest.StartRedis(t)
	addrs := []string{freeAddr(t), freeAddr(t), freeAddr(t)}
	start := func(i int) *process {
		return startNode(t, "--redis", redis.URL(), "--drain", "300ms", "--listen", addrs[i], "--trusted-proxies", "127.0.0.0/8")
	}
	var nodes []*process
	for i := range addrs {
		nodes = append(nodes, start(i))
	}
	fronts := map[string]string{"a node": nodes[0].url}
	post := nodes[0].url
	if haproxy, err := exec.LookPath("haproxy"); err == nil {
		post = balance(t, haproxy, addrs)
		fronts["HAProxy"] = post
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	var said []string
	say := func() {
		t.Helper()
		text := fmt.Sprint("text ", len(said))
		out, err := exec.CommandContext(ctx, curl, "-sS", "--fail-with-body", "--retry", "60", "--retry-all-errors", "--retry-delay", "1",
			post+"/v1/rooms/a/messages", "-H", "Parley-Session: AAAAAAAAAAAAAAAAAAAAAA", "-H", "Idempotency-Key: "+text,
			"-d", `{"text":"`+text+`"}`).CombinedOutput()
		if err != nil {
			t.Fatalf("curl: %v: %s", err, out)
		}
		said = append(said, text)
	}
	p := newPage(t, fronts)
	profile, err := os.MkdirTemp("", "parley-browser")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(profile) }) // what it had begun may still be written
	background(t, exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-component-update", "--remote-debugging-port=0",
		"--user-data-dir="+profile, p.URL))
	say()
	p.until(ctx, 1) // they listen
	for i := range nodes {
		ended := make(chan error, 1)
		go func() { ended <- nodes[i].terminate() }()
		for going := true; going; {
			if post != nodes[i].url { // else curl would wait for the node, and the node for curl
				say()
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Fatal(err)
				}
				going = false
			case <-time.After(10 * time.Millisecond):
			}
		}
		nodes[i] = start(i)
		say()
	}
	heard := p.until(ctx, len(said))
	t.Logf("%d messages", len(said))
	for front := range fronts {
		if !slices.Equal(heard[front], said) {
			t.Errorf("over %s %d of %d were heard: %s", front, len(heard[front]), len(said), strings.Join(heard[front], ", "))
		}
	}
}
