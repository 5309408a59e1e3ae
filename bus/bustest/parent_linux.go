package bustest

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends cmd with the thread that starts it, so that a test that panics or is killed leaves no server behind.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
