package atomicfile

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tempPrefix starts the name of every temporary directory of ours.
const tempPrefix = "lifeboat-"

// tempLock is the file that the process holds locked as long as it lives.
const tempLock = ".lifeboat-lock"

// TempDir is a temporary directory for throw-away copies.
type TempDir struct {
	Path string
	lock *os.File
}

// NewTempDir makes a directory in parent (empty: TMPDIR) that only this user
// can enter. First it removes those that processes left there which were
// killed.
func NewTempDir(parent, kind string) (*TempDir, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	sweep(parent)
	path, err := os.MkdirTemp(parent, tempPrefix+kind+"-")
	if err != nil {
		return nil, err
	}
	lock, err := acquire(filepath.Join(path, tempLock))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	return &TempDir{path, lock}, nil
}

// Remove removes the directory and all that is in it. A second call does
// nothing.
func (t *TempDir) Remove() error {
	err := os.RemoveAll(t.Path)
	t.lock.Close()
	return err
}

// sweep removes what nobody holds. What it can't open or remove belongs to
// somebody else.
func sweep(parent string) {
	locks, err := filepath.Glob(filepath.Join(parent, tempPrefix+"*", tempLock))
	if err != nil {
		return
	}
	for _, path := range locks {
		lock, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			os.RemoveAll(filepath.Dir(path))
		}
		lock.Close()
	}
}

// CopyScratch copies a file for a throw-away copy: by the kernel where it can,
// and without waiting for the disk. dst must not be there.
func CopyScratch(ctx context.Context, src, dst string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
