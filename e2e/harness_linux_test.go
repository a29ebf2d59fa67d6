//go:build e2e

package e2e

import (
	"os/exec"
	"syscall"
)

// dieWithTest makes the kernel end the child when the test process dies.
func dieWithTest(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
