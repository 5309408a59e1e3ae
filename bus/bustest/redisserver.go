package bustest

import (
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
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// startWithin bounds how long a redis-server may take to answer, on a busy machine.
const startWithin = 20 * time.Second

// A RedisServer is a redis-server process of one test. It ends with the test, paused or not, and with the test's process.
// Its methods are for the test's goroutine.
type RedisServer struct {
	t       testing.TB
	network string // "unix" or "tcp"
	addr    string // the socket's path, or 127.0.0.1:PORT
	dir     string // holds redis.conf, redis.log and what persists
	flags   []string
	busPort string // for the other servers of a Redis Cluster

	cmd  *exec.Cmd     // nil while killed
	done chan struct{} // closed once cmd has ended
}

// StartRedis starts a redis-server on a unix socket, with nothing kept on disk. Each of config is a line of redis.conf and
// overrides the defaults, such as "appendonly yes". Without a redis-server the test is skipped, in CI it fails.
func StartRedis(t testing.TB, config ...string) *RedisServer {
	t.Helper()
	return startUnix(t, nil, config)
}

func startUnix(t testing.TB, flags, config []string) *RedisServer {
	t.Helper()
	s := newRedis(t)
	s.network, s.addr, s.flags = "unix", s.path("s"), flags
	s.configure(append([]string{"port 0", "unixsocket " + s.addr}, config...))
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// StartRedisTCP is StartRedis on a free port of 127.0.0.1, for what speaks TCP only.
func StartRedisTCP(t testing.TB, config ...string) *RedisServer {
	t.Helper()
	return startTCP(t, nil, config)
}

func startTCP(t testing.TB, flags, config []string) *RedisServer {
	t.Helper()
	s := newRedis(t)
	s.network, s.flags = "tcp", flags
	var err error
	for range 5 { // another process may take the port first
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			break
		}
		other, err := net.Listen("tcp", "127.0.0.1:0")
		s.addr = l.Addr().String()
		l.Close()
		_, port, _ := net.SplitHostPort(s.addr)
		lines := []string{"bind 127.0.0.1", "port " + port, "unixsocket " + s.path("s")}
		if err == nil {
			_, s.busPort, _ = net.SplitHostPort(other.Addr().String())
			other.Close()
			lines = append(lines, "cluster-port "+s.busPort) // by default it may be past the last port
		}
		s.configure(append(lines, config...))
		if err = s.start(); err == nil {
			return s
		}
		if !errors.Is(err, errEnded) {
			break
		}
	}
	t.Fatal(err)
	return nil
}

func newRedis(t testing.TB) *RedisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		const missing = "no redis-server found; install it with: apt-get install redis-server"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir, err := os.MkdirTemp("", "pb") // t.TempDir is too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &RedisServer{t: t, dir: dir}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("redis-server said:\n%s", s.log())
		}
		os.RemoveAll(dir)
	})
	return s
}

// URL is what redis.Open and go-redis take.
func (s *RedisServer) URL() string {
	if s.network == "unix" {
		return "unix://" + s.addr
	}
	return "redis://" + s.addr + "/0"
}

// Addr is the path of the socket, or host and port.
func (s *RedisServer) Addr() string { return s.addr }

// Pause stops the process as SIGSTOP does: connections stay open, nothing answers.
func (s *RedisServer) Pause() { s.signal(syscall.SIGSTOP) }

// Resume continues a paused process.
func (s *RedisServer) Resume() { s.signal(syscall.SIGCONT) }

func (s *RedisServer) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("%v to redis-server: %v", sig, err)
	}
}

// Kill ends the process at once. What persistence has not written is lost.
func (s *RedisServer) Kill() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	<-s.done
	s.cmd = nil
}

// Restart starts the server at the same address again, after killing it if it runs. Without persistence it is empty.
func (s *RedisServer) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Reload is Restart without waiting until the server has loaded what it has on disk.
func (s *RedisServer) Reload() {
	s.t.Helper()
	s.Kill()
	if err := s.startLoading(); err != nil {
		s.t.Fatal(err)
	}
}

// Client gives a plain client to poke the server with. It is closed with the test.
func (s *RedisServer) Client() *redis.Client {
	s.t.Helper()
	o, err := redis.ParseURL(s.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	c := redis.NewClient(o)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// Calls counts the commands that a server has carried out since it started, or its counts were reset: by scripts, too.
func Calls(t testing.TB, c *redis.Client) map[string]int {
	t.Helper()
	info, err := c.Info(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for line := range strings.Lines(info) {
		var n int
		name, stats, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":")
		if _, err := fmt.Sscanf(stats, "calls=%d,", &n); ok && err == nil {
			calls[name] = n
		}
	}
	return calls
}

func (s *RedisServer) configure(lines []string) {
	lines = append([]string{
		"dir " + s.dir,
		"logfile redis.log",
		"daemonize no",
		`save ""`,
		"appendonly no",
		"maxclients 4000",
	}, lines...)
	if err := os.WriteFile(s.path("redis.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// start runs the process and waits until it is ready: asking for a password is an answer too.
func (s *RedisServer) start() error { return s.startUntil("+PONG", "-NOAUTH") }

func (s *RedisServer) startLoading() error { return s.startUntil("-LOADING") }

// startUntil runs the process and waits for one of these answers to a PING.
func (s *RedisServer) startUntil(answers ...string) error {
	os.Remove(s.path("s"))
	cmd := exec.Command("redis-server", append([]string{s.path("redis.conf")}, s.flags...)...)
	DieWithParent(cmd)
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the parent that DieWithParent watches is this thread
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	s.cmd, s.done = cmd, done
	if err := s.awaitAnswer(answers); err != nil {
		said := s.log()
		s.Kill()
		return fmt.Errorf("start redis-server at %s: %w; it said:\n%s", s.addr, err, said)
	}
	return nil
}

var errEnded = errors.New("it ended")

func (s *RedisServer) awaitAnswer(answers []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	var err error
	for {
		select {
		case <-s.done:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", err)
		case <-time.After(2 * time.Millisecond):
		}
		if err = ping(ctx, s.path("s"), answers); err == nil { // at the port another server may answer, which took it first
			return nil
		}
	}
}

// ping asks whether a server is ready, and expects one of the answers: while it loads a dump, that is an error, which may take
// seconds to come.
func ping(ctx context.Context, socket string, answers []string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer := make([]byte, 64)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	said := string(answer[:n])
	if !slices.ContainsFunc(answers, func(a string) bool { return strings.HasPrefix(said, a) }) {
		return errors.New(said)
	}
	return nil
}

func (s *RedisServer) path(name string) string { return filepath.Join(s.dir, name) }

func (s *RedisServer) log() []byte {
	b, err := os.ReadFile(s.path("redis.log"))
	if err != nil {
		return []byte(err.Error())
	}
	return b
}
