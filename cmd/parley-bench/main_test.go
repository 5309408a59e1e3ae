package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"parley-bench": main})
}

// The scripts say how the command behaves. Beside testscript's own commands they have "node NAME", which starts a node whose
// URL is $NAME, then, and whose process is $NAME_PID; and $PARLEY, the program that it is.
func TestScripts(t *testing.T) {
	program := filepath.Join(t.TempDir(), "parley")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "parley/cmd/parley")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PARLEY", program)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"node": scriptNode},
	})
}

func scriptNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: node NAME")
	}
	cmd := exec.Command(ts.Getenv("PARLEY"), "--listen", "127.0.0.1:0", "--drain", "100ms", "--log-level", "warn")
	cmd.Env = []string{}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	ts.Check(err)
	_, rest, _ := strings.Cut(line, "Parley is at ")
	url, _, _ := strings.Cut(rest, " ")
	ts.Setenv(args[0], url)
	ts.Setenv(args[0]+"_PID", fmt.Sprint(cmd.Process.Pid))
}

// A mistake in the command line has another status than what fails.
func TestStatuses(t *testing.T) {
	for _, tt := range []struct {
		want int
		args string
	}{
		{0, "--help"},
		{1, "suite --only nothing"},
		{1, ""},
		{2, "--pid 1,redis"},
		{2, "load --codec morse"},
		{2, "suite now"},
		{2, "load --room-size 0 ws://127.0.0.1:1"},
		{2, "load --rate=-1 ws://127.0.0.1:1"},
		{2, "load --connections 1500 ws://127.0.0.1:1"},
		{2, "load --duration=-1s ws://127.0.0.1:1"},
		{2, "load --workers=-1 ws://127.0.0.1:1"},
		{2, "load --settle=-1s ws://127.0.0.1:1"},
		{2, "ramp --bound=-1s ws://127.0.0.1:1"},
		{2, "idle --churn=-1 ws://127.0.0.1:1"},
		{2, "floor --batch 0"},
	} {
		cmd := exec.Command("parley-bench", strings.Fields(tt.args)...)
		cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != tt.want {
			t.Errorf("parley-bench %s ends with %d, not %d", tt.args, got, tt.want)
		}
	}
}

func TestProcessesShareTheNameBeforeThem(t *testing.T) {
	for _, tt := range []struct {
		flags []string
		want  string
	}{
		{[]string{"1,2"}, "servers=1,servers=2"},
		{[]string{"node=1,2,3"}, "node=1,node=2,node=3"},
		{[]string{"node=1,2,redis=3"}, "node=1,node=2,redis=3"},
		{[]string{"node=1,2", "3", "node=4"}, "node=1,node=2,servers=3,node=4"},
	} {
		var p processes
		for _, s := range tt.flags {
			if err := p.UnmarshalText([]byte(s)); err != nil {
				t.Error(err)
			}
		}
		if got, _ := p.MarshalText(); string(got) != tt.want {
			t.Errorf("%q is %s, not %s", tt.flags, got, tt.want)
		}
	}
	for _, s := range []string{"", "redis", "node=", "=1", "1,,2", "node=1,-2", "0"} {
		if err := new(processes).UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q is taken for processes", s)
		}
	}
}
