package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"parley": main})
}

// leakChecked fails if tests leave goroutines behind.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// The scripts say how the command behaves. Beside testscript's own commands they have
//
//	node NAME [ARG...]      starts parley with ARGs and waits for it to serve; $NAME is its URL then, $NAME_ADDR host and
//	                        port of it, and $NAME_ADMIN the URL for operators, if any
//	end NAME                sends SIGTERM, waits for an exit status of 0, and gives what the process wrote
//	get STATUS URL          asks for URL, expects STATUS, and gives the body
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Values[nodesKey{}] = make(map[string]*process)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"node": scriptNode,
			"end":  scriptEnd,
			"get":  scriptGet,
		},
	})
}

// A mistake in the command line has another status than what fails.
func TestStatuses(t *testing.T) {
	for _, tt := range []struct {
		want int
		args string
	}{
		{0, "version"},
		{0, "serve --version"},
		{1, "serve --listen nowhere"},
		{2, "--bogus"},
		{2, "health --timeout soon"},
		{2, "chat one two"},
		{2, "--ping 10ms"},
		{0, "serve --check"},
		{2, "serve --check --listen nowhere"},
		{2, "health --timeout 0s"},
		{2, "health --url 127.0.0.1:8765"},
		{2, "health --url ftp://127.0.0.1/"},
		{2, "chat --timeout=-1s"},
		{2, "chat --history=-1"},
		{2, "chat --history 201"},
		{2, "chat --name \x1b"},
		{2, "chat --room " + strings.Repeat("r", 129)},
	} {
		cmd := exec.Command("parley", strings.Fields(tt.args)...)
		cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != tt.want {
			t.Errorf("parley %s ends with %d, not %d", tt.args, got, tt.want)
		}
	}
}

type nodesKey struct{}

func scriptNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: node NAME [ARG...]")
	}
	name := args[0]
	cmd := exec.Command("parley", args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, v := range []string{"PATH", "HOME", "TMPDIR", "GOGC", "PARLEY_LISTEN", "PARLEY_LOG_LEVEL", "PARLEY_ADMIN"} {
		if value := ts.Getenv(v); value != "" {
			cmd.Env = append(cmd.Env, v+"="+value)
		}
	}
	p, err := startProcess(cmd)
	ts.Check(err)
	ts.Defer(p.kill)
	ts.Value(nodesKey{}).(map[string]*process)[name] = p
	ts.Setenv(name, p.url)
	ts.Setenv(name+"_ADDR", p.addr())
	ts.Setenv(name+"_ADMIN", p.adminURL)
}

func scriptEnd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: end NAME")
	}
	p := ts.Value(nodesKey{}).(map[string]*process)[args[0]]
	if p == nil {
		ts.Fatalf("no node %s was started", args[0])
	}
	err := p.terminate()
	ts.Stdout().Write(p.stdout.Bytes())
	ts.Stderr().Write(p.stderr.Bytes())
	if err != nil {
		ts.Fatalf("node %s: %v\n%s", args[0], err, p.stderr.Bytes())
	}
}

func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: get STATUS URL")
	}
	status, body, err := get(args[1])
	ts.Check(err)
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("%s answered %d: %s", args[1], status, body)
	}
	ts.Stdout().Write(body)
}

func get(url string) (status int, body []byte, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	res, err := client.Get(url)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// patience is how long a test waits for what has to come, on a busy machine.
const patience = 60 * time.Second

// A process is a parley that serves.
type process struct {
	url            string // such as http://127.0.0.1:12345
	adminURL       string // with --admin
	cmd            *exec.Cmd
	stdout, stderr *output
	ended          chan struct{} // closed once err is set
	err            error
}

var (
	servingLine = regexp.MustCompile(`(?:Parley is at |"msg":"serving","node":"[^"]+","url":")(https?://[^ "]+)`)
	adminLine   = regexp.MustCompile(`msg="serving operators" node=\S+ url=(http://\S+)`)
)

// startNode starts a parley on a free port of 127.0.0.1. It ends with the test.
func startNode(t testing.TB, args ...string) *process {
	t.Helper()
	p, err := startProcess(parley(args...))
	if err != nil {
		t.Fatal(err)
	}
	endAfter(t, p)
	return p
}

// endAfter ends a process with the test, which fails if it has ended by itself, other than well.
func endAfter(t testing.TB, p *process) {
	t.Cleanup(func() {
		p.kill()
		if p.cmd.ProcessState.ExitCode() > 0 {
			t.Errorf("%s ended with %v", p.url, p.err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", p.url, p.stderr.Bytes())
		}
	})
}

// parley is a command that serves on a free port of 127.0.0.1.
func parley(args ...string) *exec.Cmd {
	cmd := exec.Command("parley", append([]string{"--listen", "127.0.0.1:0"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	return cmd
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, stdout: newOutput(), stderr: newOutput(), ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.stdout, p.stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		p.url = cmp.Or(find(servingLine, p.stdout), find(servingLine, p.stderr))
		p.adminURL = find(adminLine, p.stderr)
		if p.url != "" && (p.adminURL != "" || !slices.Contains(cmd.Args, "--admin")) {
			return p, nil
		}
		select {
		case <-p.stdout.written:
		case <-p.stderr.written:
		case <-p.ended:
			return nil, fmt.Errorf("%s ended: %w: %s", strings.Join(cmd.Args, " "), p.err, p.stderr.Bytes())
		case <-ctx.Done():
			p.kill()
			return nil, fmt.Errorf("%s does not serve: %s", strings.Join(cmd.Args, " "), p.stderr.Bytes())
		}
	}
}

// find gives the first group of re in what was written, or "".
func find(re *regexp.Regexp, o *output) string {
	if m := re.FindSubmatch(o.Bytes()); m != nil {
		return string(m[1])
	}
	return ""
}

// addr is host and port.
func (p *process) addr() string {
	_, addr, _ := strings.Cut(p.url, "://")
	return addr
}

// terminate sends SIGTERM and waits for the process to end as it should.
func (p *process) terminate() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		return fmt.Errorf("still there %s after SIGTERM", patience)
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// output is what a process wrote.
type output struct {
	written chan struct{} // has an element after a Write

	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func newOutput() *output { return &output{written: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.written <- struct{}{}:
	default:
	}
	return o.buf.Write(p)
}

func (o *output) Bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.buf.Bytes())
}
