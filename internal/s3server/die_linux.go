package s3server

import (
	"os/exec"
	"syscall"
)

// dieWithTest makes the kernel end the child when the test process dies.
func dieWithTest(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
