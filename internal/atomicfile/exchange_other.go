//go:build !linux && !darwin

package atomicfile

import "golang.org/x/sys/unix"

// exchange is not to be had.
func exchange(string, string) error { return unix.ENOSYS }
