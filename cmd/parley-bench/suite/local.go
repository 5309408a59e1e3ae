package suite

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"parley/cmd/internal/selfsigned"
	"parley/cmd/parley-bench/load"
)

// A Local says what to measure on this machine, and with what. Every server is a process of its own, and new for each
// measurement.
type Local struct {
	Quick  bool   // few nodes, short times and few connections: about a minute in all
	Only   string // part of the names of what to measure; default all
	Repeat int    // how often each measurement is made; the one with the median figure is reported

	Self     string       // the executable of this program, which is also the hub and the generator's processes
	Parley   string       // the executable of the node; default built from this module's source
	Redis    string       // the executable; default redis-server
	HAProxy  string       // the executable; default haproxy
	Behind   []string     // configurations of HAProxy: nodes behind it are measured too
	TLS      bool         // clients speak TLS to what is measured behind HAProxy
	Progress func(string) // is told what is being measured; default not at all
}

// worker is the command that starts a process of the generator.
func (l Local) worker() []string { return []string{l.Self, "worker"} }

// build builds the node, as the Dockerfile does, unless there is one. remove removes what was built.
func (l *Local) build(ctx context.Context) (remove func(), err error) {
	if l.Parley != "" {
		if l.Parley, err = exec.LookPath(l.Parley); err != nil {
			return nil, fmt.Errorf("--parley: %w", err)
		}
		return func() {}, nil
	}
	l.tell("building parley")
	dir, err := os.MkdirTemp("", "parley-bench-")
	if err != nil {
		return nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	l.Parley = filepath.Join(dir, "parley")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", l.Parley, "parley/cmd/parley")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		remove()
		return nil, fmt.Errorf("build the node: %w (--parley takes one that is there): %s", err, bytes.TrimSpace(out))
	}
	return remove, nil
}

func (l Local) tell(format string, args ...any) {
	if l.Progress != nil {
		l.Progress(fmt.Sprintf(format, args...))
	}
}

// servers are the processes of one contender.
type servers struct {
	urls        []string
	processes   []load.Process
	commands    []*exec.Cmd
	output      output   // of all
	dirs        []string // of certificates and configurations
	environment []string // of programs started from now on, besides this one's
	threads     int      // of Go programs started from now on, if GOMAXPROCS is not set; 0 is one for each core
}

// An output is what several processes say.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Names of the processes of a cluster.
const (
	nodeProcess  = "nodes" // or hubs
	redisProcess = "redis"
)

func (l Local) startHub(ctx context.Context) (*servers, error) {
	sv := new(servers)
	return sv.ready(sv.startEach(ctx, load.Together, "ws://", 1, l.Self, "hub"))
}

// startShared starts hubs that share a Redis.
func (l Local) startShared(ctx context.Context, count int) (*servers, error) {
	sv := new(servers)
	at, err := l.startRedis(ctx, sv)
	if err == nil {
		err = sv.startEach(ctx, nodeProcess, "ws://", count, l.Self, "hub", "--redis", at)
	}
	return sv.ready(err)
}

// startRedis starts a Redis that keeps nothing on disk, and returns its URL.
func (l Local) startRedis(ctx context.Context, sv *servers) (url string, err error) {
	redis := cmp.Or(l.Redis, "redis-server")
	if _, err := exec.LookPath(redis); err != nil {
		return "", fmt.Errorf("a cluster needs a Redis to share: %w (apt install redis-server)", err)
	}
	at, err := freeAddress()
	if err != nil {
		return "", err
	}
	_, port, _ := net.SplitHostPort(at)
	return "redis://" + at + "/0", sv.start(ctx, redisProcess, at, redis, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
}

// unlimited is what lets a load of one address through.
var unlimited = []string{
	"--max-connections=0", "--address-connections=0", "--address-attempts=0", "--address-requests=0", "--address-rooms=0",
	"--message-rate=0", "--connection-rooms=0",
}

// startNodes starts count nodes that share a Redis. With TLS they have a certificate of their own making. more are flags of theirs.
func (l Local) startNodes(ctx context.Context, count int, tls bool, more ...string) (*servers, error) {
	sv := new(servers)
	at, err := l.startRedis(ctx, sv)
	if err != nil {
		return sv.ready(err)
	}
	scheme, flags := "ws://", []string{"--redis", at, "--drain", "100ms", "--log-level", "warn"}
	if tls {
		dir, err := os.MkdirTemp("", "parley-bench-")
		if err != nil {
			return sv.ready(err)
		}
		sv.dirs = append(sv.dirs, dir)
		cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		if _, err := selfsigned.Write(cert, key, 1); err != nil {
			return sv.ready(err)
		}
		scheme, flags = "wss://", append(flags, "--tls-cert", cert, "--tls-key", key)
	}
	flags = append(append(flags, unlimited...), more...)
	return sv.ready(sv.startEach(ctx, nodeProcess, scheme, count, l.Parley, append([]string{"serve"}, flags...)...))
}

// ready returns the servers, or stops them if one could not be started.
func (sv *servers) ready(err error) (*servers, error) {
	if err == nil {
		return sv, nil
	}
	sv.stop()
	if output := strings.TrimSpace(sv.output.String()); output != "" {
		err = fmt.Errorf("%w: %s", err, output)
	}
	return nil, err
}

// startEach starts count processes of a program that listens where its flag --listen says, each with its share of the cores if they are
// several, as who runs them on one machine should: README.md.
func (sv *servers) startEach(ctx context.Context, name, scheme string, count int, program string, args ...string) error {
	if count > 1 {
		sv.threads = max(1, runtime.NumCPU()/count)
	}
	for range count {
		addr, err := freeAddress()
		if err != nil {
			return err
		}
		sv.urls = append(sv.urls, scheme+addr)
		if err := sv.start(ctx, name, addr, program, append(slices.Clone(args), "--listen", addr)...); err != nil {
			return err
		}
	}
	return nil
}

// start starts a process and waits until it takes connections at addr.
func (sv *servers) start(ctx context.Context, name, addr, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(withoutSettings(os.Environ()), sv.environment...)
	if sv.threads > 0 && os.Getenv("GOMAXPROCS") == "" {
		cmd.Env = append(cmd.Env, fmt.Sprint("GOMAXPROCS=", sv.threads))
	}
	cmd.Stdout, cmd.Stderr = &sv.output, &sv.output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	sv.commands = append(sv.commands, cmd)
	sv.processes = append(sv.processes, load.Process{Name: name, PID: cmd.Process.Pid})
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%s does not listen on %s", program, addr)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// withoutSettings leaves out what would configure the servers otherwise.
func withoutSettings(environ []string) (kept []string) {
	for _, v := range environ {
		if !strings.HasPrefix(v, "PARLEY_") {
			kept = append(kept, v)
		}
	}
	return kept
}

// stop ends the processes, the last started first, waits for them, and removes what they were given.
func (sv *servers) stop() {
	for len(sv.commands) > 0 {
		cmd := sv.commands[len(sv.commands)-1]
		sv.commands = sv.commands[:len(sv.commands)-1]
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			cmd.Process.Kill()
		}
		late := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		late.Stop()
	}
	for _, dir := range sv.dirs {
		os.RemoveAll(dir)
	}
}

// freeAddress is an address of this machine that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
