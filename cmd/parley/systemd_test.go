package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// systemd hears that the node serves, that it lives, and that it stops, as the unit in .deploy has it.
func TestSystemdIsTold(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no systemd")
	}
	t.Parallel()
	unit, err := os.ReadFile(root + "/.deploy/systemd/parley.service")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?s)\nType=notify\n.*WatchdogSec=\d+\n`).Match(unit) {
		t.Error("the unit does not listen")
	}
	dir, err := os.MkdirTemp("", "parley") // t.TempDir's name may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	hear := func(want string) {
		t.Helper()
		socket.SetReadDeadline(time.Now().Add(patience))
		said := make([]byte, 256)
		n, err := socket.Read(said)
		if err != nil {
			t.Fatalf("instead of %s: %v", want, err)
		}
		if got := string(said[:n]); got != want {
			t.Fatalf("systemd is told %q, want %q", got, want)
		}
	}

	cmd := parley("--drain", "20s")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+socket.LocalAddr().String(), "WATCHDOG_USEC=300000")
	began := make(chan *process, 1)
	failed := make(chan error, 1)
	go func() {
		p, err := startProcess(cmd)
		began <- p
		failed <- err
	}()
	hear("READY=1")
	p, err := <-began, <-failed
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	if status, _, err := get(p.url + "/healthz"); status != 200 {
		t.Errorf("once it is ready: %d, %v", status, err)
	}
	for range 3 {
		hear("WATCHDOG=1")
	}
	stays := dial(t, t.Context(), p, "/") // it does not read, so it does not answer a goodbye
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for stopping := false; !stopping; {
		socket.SetReadDeadline(time.Now().Add(patience))
		said := make([]byte, 256)
		n, err := socket.Read(said)
		if err != nil {
			t.Fatal(err)
		}
		state, rest, _ := strings.Cut(string(said[:n]), "\n")
		if stopping = state == "STOPPING=1"; stopping && rest != "EXTEND_TIMEOUT_USEC=40000000" {
			t.Errorf("that it stops is told with %q: a drain of 20 s is to have 40 s", rest)
		}
	}
	go func() {
		<-p.ended
		socket.Close() // nothing more is said
	}()
	for range 3 { // it lives, as long as it says goodbye
		hear("WATCHDOG=1")
	}
	stays.CloseNow()
	if <-p.ended; p.err != nil {
		t.Error(p.err)
	}
}

// systemd is told twice at least in the time after which it ends the node.
func TestTheWatchdogIsToldLongBeforeItBites(t *testing.T) {
	const limit, long = 30 * time.Second, 10 * time.Minute
	t.Setenv("WATCHDOG_USEC", fmt.Sprint(limit.Microseconds()))
	t.Setenv("WATCHDOG_PID", "")
	t.Setenv("NOTIFY_SOCKET", "")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), long)
		defer cancel()
		last, told := time.Now(), 0
		keepWatchdog(ctx, slog.New(slog.DiscardHandler), func() {
			if pause := time.Since(last); pause > limit/2 {
				t.Errorf("it is told after %v, of %v", pause, limit)
			}
			last = time.Now()
			told++
		})
		if told < int(long/limit) {
			t.Errorf("it is told %d times in %v", told, long)
		}
	})
}
