package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"parley/node/client"
)

// openTerminal makes a terminal (pty(7)): what is written to user was typed, what is read from it is shown.
func openTerminal(t *testing.T) (user, tty *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal to test with: %v", err)
	}
	t.Cleanup(func() { user.Close() })
	number := 0
	raw, err := user.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return user, tty
}

func TestChatAtATerminal(t *testing.T) {
	n := startChatNode(t)
	bob, heard := joinChat(t, n, "Bob")
	sayIn(t, bob, client.Draft{Text: "before"})
	hearOf(t, heard)
	user, tty := openTerminal(t)
	shown := newTranscript()
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			k, err := user.Read(buf)
			if err != nil {
				return
			}
			shown.Write(buf[:k])
		}
	}()
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	in, err := unix.Dup(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	stdin := os.NewFile(uintptr(in), "stdin")
	c := ChatCmd{URL: n.addr, Name: "Ada", Timeout: patience}
	go func() { ended <- c.run(t.Context(), stdin, tty, tty) }()

	shown.wait(t, "* in lobby as Ada, 2 here: ")
	shown.wait(t, "Bob:\x1b[0m before")
	fmt.Fprint(user, "hello, Bob\r")
	if m := hearOf(t, heard); m.Text != "hello, Bob" || m.From.Name != "Ada" {
		t.Errorf("heard %+v", m)
	}
	sayIn(t, bob, client.Draft{Text: "\x1b]0;title\x07 hello"})
	all := shown.wait(t, "␛]0;title␇ hello")
	if strings.Contains(all, "\x1b]") || strings.Contains(all, "\x07") || !strings.Contains(all, time.Now().Format("15:")) {
		t.Errorf("shown: %q", all)
	}
	n.cut()
	shown.wait(t, "trying again…")
	shown.wait(t, "* connected")

	fmt.Fprint(user, "\x04") // Ctrl-D
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it did not end")
	}
	if after, err := term.GetState(int(tty.Fd())); err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %v", err)
	}
	tty.Close()
	<-read
}
