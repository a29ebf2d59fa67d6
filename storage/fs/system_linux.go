package fs

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameExclusive renames a file in a folder unless the new name is taken.
func renameExclusive(folder int, from, to string) error {
	return unix.Renameat2(folder, from, folder, to, unix.RENAME_NOREPLACE)
}

// startWriteback asks the kernel to begin writing a range of f to the disk, so
// that the sync at the end finds little left. It is a hint: errors don't matter.
func startWriteback(f *os.File, off, n int64) {
	unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
