package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Op names an operation on the file system.
type Op string

// The operations, as [System.Before] sees them.
const (
	OpMkdir  Op = "mkdir"
	OpCreate Op = "create"
	OpWrite  Op = "write"
	OpSync   Op = "sync"
	OpRename Op = "rename"
)

// System is the file system that a [Dir] works on: the operating system's,
// with a chance to fail before each operation. Its zero value never fails.
type System struct {
	// Before, if set, runs before each operation; its error replaces it.
	Before func(op Op, path string) error
}

// FailAt is a System whose nth operation (from 1) fails with err, for tests
// that let each one fail in turn.
func FailAt(n int64, err error) System {
	var count atomic.Int64
	return System{Before: func(Op, string) error {
		if count.Add(1) == n {
			return err
		}
		return nil
	}}
}

func (s System) before(op Op, path string) error {
	if s.Before == nil {
		return nil
	}
	if err := s.Before(op, path); err != nil {
		return &fs.PathError{Op: string(op), Path: path, Err: err}
	}
	return nil
}

func (s System) mkdir(path string, perm fs.FileMode) error {
	if err := s.before(OpMkdir, path); err != nil {
		return err
	}
	return os.Mkdir(path, perm)
}

func (s System) rename(from, to string) error {
	if err := s.before(OpRename, to); err != nil {
		return err
	}
	// Not os.Rename: that one refuses an empty directory as target.
	if err := unix.Rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// exchange lets two directories change places: at once where the file system
// can, else one after the other.
func (s System) exchange(a, b string) error {
	if err := s.before(OpRename, b); err != nil {
		return err
	}
	err := exchange(a, b)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	aside := a + stageSuffix
	if err := os.Rename(a, aside); err != nil {
		return err
	}
	if err := os.Rename(b, a); err != nil {
		return errors.Join(err, os.Rename(aside, a))
	}
	return os.Rename(aside, b)
}

func (s System) syncDir(path string) error {
	if err := s.before(OpSync, path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// syncTree makes the directories below and at root durable.
func (s System) syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return s.syncDir(path)
	})
}
