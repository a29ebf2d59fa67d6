package fs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Delete implements [storage.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.delete(ctx, key); err != nil && !errors.Is(err, storage.ErrNotExist) {
		return s.failed("delete", key, err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, key string) error {
	if _, err := s.stat(ctx, key); err != nil {
		return err
	}
	if err := s.before(opRemove, key); err != nil {
		return explain(err)
	}
	if err := s.removeFile(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explain(err)
	}
	return explain(s.syncRemoval(s.removeEmptyFolders(path.Dir(key))))
}

// syncRemoval makes durable that something is no longer in a folder, or that
// this is no longer there either.
func (s *Store) syncRemoval(folder string) error {
	for {
		err := s.syncDir(folder)
		if !errors.Is(err, fs.ErrNotExist) || folder == "." {
			return err
		}
		folder = path.Dir(folder)
	}
}

// removeEmptyFolders removes folder and those above it as far as nothing is in
// them, and returns the first that stays. A Put that has no file in them yet
// makes them anew.
func (s *Store) removeEmptyFolders(folder string) string {
	for folder != "." {
		if err := s.removeDir(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return folder
		}
		folder = path.Dir(folder)
	}
	return folder
}

// removeFile removes what is no directory.
func (s *Store) removeFile(name string) error { return s.unlink(name, 0) }

// removeDir removes an empty directory, never a file that took its place, as
// [os.Root.Remove] might.
func (s *Store) removeDir(name string) error { return s.unlink(name, unix.AT_REMOVEDIR) }

func (s *Store) unlink(name string, flags int) error {
	folder, err := s.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer folder.Close()
	for {
		err := unix.Unlinkat(int(folder.Fd()), path.Base(name), flags)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.PathError{Op: "remove", Path: name, Err: err}
		}
	}
}
