package datadir

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// probe looks for a lock on any of the paths.
func probe(paths []string) (Liveness, error) {
	locked, err := lockedFiles()
	if err != nil {
		return LiveUnknown, nil
	}
	for _, path := range paths {
		held, err := isLocked(path, locked)
		if err != nil {
			return LiveUnknown, err
		}
		if held {
			return Running, nil
		}
	}
	return Stopped, nil
}

// isLocked asks twice: the kernel's list names flocks, but hides those of
// other pid namespaces; the record-lock query sees across namespaces, but not flocks.
func isLocked(path string, locked map[string]bool) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if locked[lockKey(uint64(st.Dev), st.Ino)] {
		return true, nil
	}
	query := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &query); err != nil {
		return false, nil
	}
	return query.Type != unix.F_UNLCK, nil
}

// lockedFiles reads the files that /proc/locks names, as device and inode.
func lockedFiles() (map[string]bool, error) {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	locked := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 fe:00:263188 0 EOF
		for _, field := range strings.Fields(lines.Text()) {
			if strings.Count(field, ":") == 2 {
				locked[field] = true
			}
		}
	}
	return locked, nil
}

// lockKey is a file as /proc/locks writes it.
func lockKey(dev, ino uint64) string {
	return fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), ino)
}
