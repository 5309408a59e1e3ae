package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"parley/bus/bustest"
)

// A station is a node that is started again and again, as a process. Clients find it wherever it listens.
type station struct {
	testing.TB
	name   string
	parley string   // the program; a rollout changes it
	args   []string // its flags, but for those of listening and naming
	log    string   // file that it writes its log to

	starts int
	cmd    *exec.Cmd // nil while it is down
	ended  chan struct{}
	err    error // why it ended; read after ended

	addr   atomic.Pointer[string] // nil while it is down
	frozen atomic.Bool
}

var serving = regexp.MustCompile(`Parley is at https?://(\S+)`)

const startWithin = 60 * time.Second

// id is what the node is called in this life.
func (st *station) id() string { return fmt.Sprint(st.name, ".", st.starts) }

func (st *station) start() {
	st.Helper()
	if err := st.tryStart(); err != nil {
		st.Fatalf("%v\n%s", err, st.lastWords())
	}
}

func (st *station) tryStart() error {
	st.starts++
	log, err := os.OpenFile(st.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(st.parley, append([]string{"--listen", "127.0.0.1:0", "--node-id", st.id()}, st.args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	bustest.DieWithParent(cmd)
	ended, started, said := make(chan struct{}), make(chan error), make(chan string, 1)
	go func() { // ends with the process
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		r := bufio.NewReader(out)
		line, _ := r.ReadString('\n')
		said <- line
		io.Copy(io.Discard, r)
		st.err = cmd.Wait()
	}()
	if err := <-started; err != nil {
		return err
	}
	st.cmd, st.ended = cmd, ended
	select {
	case line := <-said:
		if m := serving.FindStringSubmatch(line); m != nil {
			st.frozen.Store(false)
			st.addr.Store(&m[1])
			return nil
		}
		<-ended
		st.cmd = nil
		return fmt.Errorf("%s ended: %w", st.id(), st.err)
	case <-time.After(startWithin):
		st.kill()
		return fmt.Errorf("%s does not serve within %s", st.id(), startWithin)
	}
}

// kill ends the node at once.
func (st *station) kill() {
	st.addr.Store(nil) // the port may be somebody else's at any time
	if st.cmd != nil {
		st.cmd.Process.Kill()
		<-st.ended
		st.cmd = nil
	}
}

// drain ends the node as an operator does.
func (st *station) drain() {
	st.Helper()
	if st.cmd == nil {
		return
	}
	st.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-st.ended:
		if st.err != nil {
			st.Errorf("%s ended with %v", st.id(), st.err)
		}
	case <-time.After(startWithin):
		st.Errorf("%s is still there %s after SIGTERM", st.id(), startWithin)
	}
	st.kill()
}

// freeze stops the node in its tracks; thawed, it goes on where it was.
func (st *station) freeze() {
	st.frozen.Store(true)
	st.cmd.Process.Signal(syscall.SIGSTOP)
}

func (st *station) thaw() {
	st.cmd.Process.Signal(syscall.SIGCONT)
	st.frozen.Store(false)
}

var httpClient = &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (st *station) get(path string) (status int, body []byte, err error) {
	addr := st.addr.Load()
	if addr == nil {
		return 0, nil, errNodeDown
	}
	res, err := httpClient.Get("http://" + *addr + path)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// ready is what /readyz says of a node that is up; otherwise it counts as ready.
func (st *station) ready() bool {
	if st.addr.Load() == nil || st.frozen.Load() {
		return true
	}
	status, _, err := st.get("/readyz")
	return err == nil && status == http.StatusOK || st.addr.Load() == nil || st.frozen.Load()
}

// members is who is in a room, as the node answers.
func (st *station) members(room string) (map[string]bool, error) {
	status, body, err := st.get("/v1/rooms/" + url.PathEscape(room) + "/members")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Members []struct{ ID string }
	}
	if err := json.Unmarshal(body, &answer); err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("%d %s", status, body)
	}
	users := make(map[string]bool)
	for _, m := range answer.Members {
		users[m.ID] = true
	}
	return users, nil
}

// lastWords is the end of what the node logged.
func (st *station) lastWords() string {
	said, _ := os.ReadFile(st.log)
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// checkLog fails the row if the node panicked.
func (st *station) checkLog() {
	said, _ := os.ReadFile(st.log)
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(string(said), bad) {
			st.Errorf("%s is broken: %s in %s", st.name, bad, filepath.Base(st.log))
		}
	}
}
