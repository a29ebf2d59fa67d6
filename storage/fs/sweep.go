package fs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Sweep implements [storage.Sweeper]: it removes temporary files that nobody
// holds locked and nobody wrote to since that time, by the clock of the file
// system, and the folders that are empty without them.
func (s *Store) Sweep(ctx context.Context, prefix string, before time.Time) (int, error) {
	if err := storage.CheckPrefix(prefix); err != nil {
		return 0, s.failed("sweep", prefix, err)
	}
	removed := 0
	var failed error
	s.walk(ctx, prefix, func(name string, info fs.FileInfo, err error) bool {
		if key, ok := tempKey(name); err == nil && ok && strings.HasPrefix(key, prefix) && info.ModTime().Before(before) {
			var dead bool
			if dead, err = s.sweepFile(name); dead {
				removed++
			}
		}
		failed = err
		return err == nil
	})
	if failed != nil {
		return removed, s.failed("sweep", prefix, failed)
	}
	return removed, nil
}

// sweepFile removes a temporary file if its writer is dead.
func (s *Store) sweepFile(name string) (removed bool, err error) {
	removed, err = s.removeDead(name)
	if removed {
		s.removeEmptyFolders(path.Dir(name))
	}
	return removed, err
}

// removeDead removes a temporary file that it can lock. It does so while it has
// the lock: else a writer that has just made the file could still get it.
func (s *Store) removeDead(name string) (removed bool, err error) {
	f, err := s.root.OpenFile(name, os.O_RDWR|unix.O_NONBLOCK, 0) // to lock it, NFS wants write access
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, explain(err)
	}
	defer f.Close()
	switch err := flock(f); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, nil
	case err != nil && !lacksLocks(err): // where there are no locks, its age must do
		return false, &os.PathError{Op: "lock", Path: name, Err: err}
	}
	err = s.removeFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, explain(err)
}
