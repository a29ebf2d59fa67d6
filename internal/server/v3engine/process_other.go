//go:build !linux

package v3engine

import (
	"os/exec"
	"syscall"
)

// endWithParent keeps ctrl-C to us. Here the built-in etcd alone ends with us,
// by its standard input.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
