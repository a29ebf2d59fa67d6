//go:build !linux && !darwin

package fs

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameExclusive is not known here.
func renameExclusive(int, string, string) error { return unix.ENOTSUP }

// startWriteback has no equal outside Linux; the sync at the end does it all.
func startWriteback(*os.File, int64, int64) {}
