package main

import (
	"context"
	"io"
	"net"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/bus/bustest"
	"parley/node/api"
)

func TestMessagesPassBetweenProcesses(t *testing.T) {
	redis := bustest.StartRedis(t)
	one, two := startNode(t, "--redis", redis.URL()), startNode(t, "--redis", redis.URL())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	alice, bob := dial(t, ctx, one, "/?name=Alice"), dial(t, ctx, two, "/", "parley.v1")
	join(t, ctx, bob)
	say(t, ctx, alice, "hello from one")
	hear(t, ctx, bob, `"text":"hello from one"`)
	say(t, ctx, bob, `{"op":"send","room":"lobby","text":"hello from two"}`)
	hear(t, ctx, alice, "hello from two")

	alice.CloseNow()
	bob.CloseNow()
	for _, n := range []*process{one, two} {
		if err := n.terminate(); err != nil {
			t.Errorf("%v: %s", err, n.stderr.Bytes())
		}
	}
}

// Clients are told which node they reached, and what it is, by the names that operators know.
func TestANodeTellsItsNameAndVersion(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--node-id", "ada")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, welcome, err := dial(t, ctx, n, "/", "parley.v1").Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	version, revision := build()
	if !strings.Contains(string(welcome), `"node":"ada","version":"`+version+`"`) {
		t.Errorf("it says %s, want the version %s", welcome, version)
	}
	_, scraped, err := get(n.url + "/metrics")
	for _, label := range []string{`node="ada"`, `version="` + version + `"`, `revision="` + revision + `"`} {
		if err != nil || !strings.Contains(string(scraped), label) {
			t.Errorf("the metrics lack %s, %v", label, err)
		}
	}
}

func TestWrongRedisPasswordEndsAtOnceAndIsNotTold(t *testing.T) {
	redis := bustest.StartRedisTCP(t, "user parley on >right ~* &* +@all")
	start := func(password string) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var out, errw strings.Builder
		err := run(ctx, []string{
			"--listen", "nowhere", // ends it after Redis
			"--redis", "redis://parley:" + password + "@" + redis.Addr(), "--redis-wait-start", "1h",
		}, nil, &out, &errw)
		if said := out.String() + errw.String(); strings.Contains(said, password) {
			t.Errorf("the password was told: %s", said)
		}
		if ctx.Err() != nil {
			t.Error("it waited")
		}
		return err
	}
	if err := start("pa55word"); err == nil || !strings.Contains(err.Error(), "WRONGPASS") || strings.Contains(err.Error(), "pa55word") {
		t.Errorf("with a wrong password: %v", err)
	}
	if err := start("right"); err == nil || !strings.Contains(err.Error(), "--listen nowhere") {
		t.Errorf("with the right password: %v", err)
	}
}

// A log is kept for as long as the flag says, and what was revoked for as long as a token may be good.
func TestWhatIsKeptIsKeptForAsLongAsTheFlagsSay(t *testing.T) {
	const key = "0123456789abcdef0123456789abcdef"
	redis := bustest.StartRedis(t)
	cmd := parley("--redis", redis.URL(), "--token-life", "2000h", "--history-ttl", "50h")
	cmd.Env = append(cmd.Env, "PARLEY_API_KEYS=backend "+key)
	n, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	endAfter(t, n)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	app, err := api.New(n.url, key, api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.Publish(ctx, "lobby", api.Draft{Text: "hello"}); err != nil {
		t.Fatal(err)
	}
	if err := app.Revoke(ctx, "ada", time.Time{}); err != nil {
		t.Fatal(err)
	}
	notices, err := redis.Client().ZRangeWithScores(ctx, "parley:{%board}:texts", 0, -1).Result()
	if err != nil || len(notices) != 1 {
		t.Fatalf("the board has %v, %v", notices, err)
	}
	if kept := time.Until(time.UnixMilli(int64(notices[0].Score))); kept > 2000*time.Hour || kept < 2000*time.Hour-patience {
		t.Errorf("what was revoked is kept for %v", kept)
	}
	if kept := redis.Client().TTL(ctx, "parley:{lobby}:log").Val(); kept < 50*time.Hour-patience || kept > 52*time.Hour {
		t.Errorf("the log is kept for %v", kept)
	}
}

// A Redis that comes while the node waits for it is joined.
func TestRedisMayComeLater(t *testing.T) {
	redis := bustest.StartRedisTCP(t)
	redis.Kill()
	var n *process
	started := make(chan error)
	go func() {
		var err error
		n, err = startProcess(parley("--redis", redis.URL(), "--redis-wait-start", "1m"))
		started <- err
	}()
	redis.Restart()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	endAfter(t, n)
	if status, body, err := get(n.url + "/readyz"); err != nil || status != 200 {
		t.Errorf("/readyz: %d %s %v", status, body, err)
	}
}

// A Redis that refuses connections is asked again about once a second: soon enough, and not without end.
func TestRedisIsAskedAgainWithinSeconds(t *testing.T) {
	redis := bustest.StartRedisTCP(t)
	redis.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var asked []time.Time
	log := writerFunc(func(b []byte) (int, error) {
		if strings.Contains(string(b), "waiting for Redis") {
			if asked = append(asked, time.Now()); len(asked) == 2 {
				cancel()
			}
		}
		return len(b), nil
	})
	err := run(ctx, []string{"--listen", "127.0.0.1:0", "--redis", redis.URL(), "--redis-wait-start", "1h"}, nil, io.Discard, log)
	if len(asked) != 2 || err != nil { // who ends it meanwhile sees no failure
		t.Fatalf("it asked %d times, and ended with %v", len(asked), err)
	}
	if between := asked[1].Sub(asked[0]); between < 500*time.Millisecond || between > 5*time.Second {
		t.Errorf("it asked again after %s", between)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// A Redis that is there but silent makes the node unready, until it speaks again.
func TestReadinessFollowsRedis(t *testing.T) {
	redis := bustest.StartRedis(t)
	n := startNode(t, "--redis", redis.URL())
	await := func(want int, within time.Duration) {
		t.Helper()
		for began := time.Now(); ; {
			status, body, err := get(n.url + "/readyz")
			if err != nil {
				t.Fatal(err)
			}
			if status == want {
				return
			}
			if time.Since(began) > within {
				t.Fatalf("/readyz still answers %d after %s: %s", status, within, body)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	await(200, patience)
	redis.Pause()
	await(503, 10*time.Second)
	if _, scraped, err := get(n.url + "/metrics"); err != nil || !strings.Contains(string(scraped), "\nparley_ready 0\n") {
		t.Errorf("the metrics say otherwise, %v", err)
	}
	if status, _, err := get(n.url + "/healthz"); err != nil || status != 200 {
		t.Errorf("/healthz answers %d, %v", status, err)
	}
	redis.Resume()
	await(200, patience)
}

func TestShutdownSaysGoodbye(t *testing.T) {
	n := startNode(t, "--drain", "100ms")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := dial(t, ctx, n, "/")
	left := make(chan error, 1)
	go func() {
		_, _, err := c.Read(ctx)
		left <- err
	}()
	if err := n.terminate(); err != nil {
		t.Errorf("%v: %s", err, n.stderr.Bytes())
	}
	if code := websocket.CloseStatus(<-left); code != websocket.StatusServiceRestart {
		t.Errorf("the client was closed with %d", code)
	}
}

// What was asked for before a shutdown is answered to its end, on the operators' address as on that of the clients.
func TestShutdownFinishesTheRequestsUnderWay(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--admin", "127.0.0.1:0")
	type answer struct {
		status int
		body   []byte
		err    error
	}
	answered := make(chan answer)
	go func() {
		status, body, err := get(n.adminURL + "/debug/pprof/profile?seconds=1")
		answered <- answer{status, body, err}
	}()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		_, now, err := get(n.adminURL + "/debug/pprof/goroutine?debug=1")
		if err != nil || time.Since(began) > patience {
			t.Fatal("it is not under way: ", err)
		}
		if strings.Contains(string(now), "pprof.Profile") {
			break
		}
	}
	if err := n.terminate(); err != nil {
		t.Errorf("%v: %s", err, n.stderr.Bytes())
	}
	if a := <-answered; a.err != nil || a.status != 200 || len(a.body) == 0 {
		t.Errorf("it was answered %d, %d bytes, %v", a.status, len(a.body), a.err)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	n := startNode(t, "--drain", "1h")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range 3 { // whose goodbyes are an hour apart
		dial(t, ctx, n, "/")
	}
	n.cmd.Process.Signal(syscall.SIGTERM)
	for !strings.Contains(string(n.stderr.Bytes()), "shutting down") {
		select {
		case <-n.stderr.written:
		case <-ctx.Done():
			t.Fatal("SIGTERM changed nothing")
		}
	}
	if status, _, err := get(n.url + "/healthz"); err != nil || status != 200 {
		t.Errorf("while draining, /healthz: %d %v", status, err)
	}
	n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.ended:
	case <-ctx.Done():
		t.Fatal("the second signal changed nothing")
	}
	if status := n.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
		t.Errorf("it ended by itself, %v, and not by the second signal", n.cmd.ProcessState)
	}
}

// A terminal that is closed, or whoever takes SIGHUP for a reload, cuts nobody off.
func TestAHangupSaysGoodbye(t *testing.T) {
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("the tests run under nohup: so would the node")
	}
	n := startNode(t, "--drain", "10ms")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := dial(t, ctx, n, "/")
	n.cmd.Process.Signal(syscall.SIGHUP)
	var err error
	for err == nil {
		_, _, err = c.Read(ctx)
	}
	if code := websocket.CloseStatus(err); code != websocket.StatusServiceRestart {
		t.Errorf("the client's connection ended with %v", err)
	}
	<-n.ended
	if !n.cmd.ProcessState.Success() {
		t.Errorf("the node ended with %v", n.cmd.ProcessState)
	}
}

func TestBrowserURL(t *testing.T) {
	for _, tt := range []struct {
		ip   string
		tls  bool
		want string
	}{
		{"0.0.0.0", false, "http://localhost:8765"},
		{"::", true, "https://localhost:8765"},
		{"127.0.0.1", false, "http://127.0.0.1:8765"},
		{"::1", false, "http://[::1]:8765"},
	} {
		addr := &net.TCPAddr{IP: net.ParseIP(tt.ip), Port: 8765}
		if got := browserURL(addr, tt.tls); got != tt.want {
			t.Errorf("%s is shown as %s, not %s", tt.ip, got, tt.want)
		}
	}
}

func dial(t *testing.T, ctx context.Context, n *process, path string, protocols ...string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(ctx, "ws://"+n.addr()+path, &websocket.DialOptions{Subprotocols: protocols})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return c
}

// join makes a client that speaks parley.v1 a member of the lobby. What is said from then on reaches it.
func join(t *testing.T, ctx context.Context, c *websocket.Conn) {
	t.Helper()
	say(t, ctx, c, `{"op":"join","room":"lobby"}`)
	hear(t, ctx, c, `"op":"live"`)
}

func say(t *testing.T, ctx context.Context, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// hear waits for what holds text.
func hear(t *testing.T, ctx context.Context, c *websocket.Conn, text string) {
	t.Helper()
	for {
		_, heard, err := c.Read(ctx)
		if err != nil {
			t.Fatalf("waiting for %q: %v", text, err)
		}
		if strings.Contains(string(heard), text) {
			return
		}
	}
}
