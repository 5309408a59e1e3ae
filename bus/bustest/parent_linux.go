package bustest

import (
	"os/exec"
	"syscall"
)

// DieWithParent ends cmd with the thread that starts it, which has to be locked for as long: a test that panics or is killed
// leaves no process behind.
func DieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
