package v3engine

import (
	"os/exec"
	"syscall"
)

// endWithParent makes the kernel end the process when we die.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
