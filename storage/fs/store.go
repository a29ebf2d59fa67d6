package fs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Store keeps objects in a directory. It implements [storage.Store] and
// [storage.Sweeper].
type Store struct {
	dir  string
	root *os.Root
	sys  atomicfile.System
}

// Open opens the store in a directory, which must be there: a backup must not
// go to the empty place where a file system should be mounted.
func Open(dir string) (*Store, error) {
	info, err := os.Stat(dir) // first, since opening a pipe would wait
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open store %s: there is no such directory (is its file system mounted?)", dir)
	case err == nil && !info.IsDir(), errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("open store %s: it is not a directory", dir)
	case err != nil:
		return nil, fmt.Errorf("open store %s: %w", dir, explain(err))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, explain(err))
	}
	return &Store{dir: dir, root: root}, nil
}

// Create opens the store in a directory, and makes that and its parents if need
// be.
func Create(dir string) (*Store, error) {
	if dir == "" {
		return Open(dir)
	}
	dir = filepath.Clean(dir)
	if err := makeDurable(dir); err != nil {
		return nil, fmt.Errorf("create store %s: %w", dir, explain(err))
	}
	return Open(dir)
}

// makeDurable makes a directory and its parents, so that they outlive a crash.
func makeDurable(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := makeDurable(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(parent)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// String implements [storage.Store].
func (s *Store) String() string { return s.dir }

// Close releases the directory. The store is of no use afterwards.
func (s *Store) Close() error { return s.root.Close() }

// The operations that atomicfile does not know.
const (
	opLink   atomicfile.Op = "link"
	opRemove atomicfile.Op = "remove"
)

// before lets tests make an operation fail.
func (s *Store) before(op atomicfile.Op, name string) error {
	if s.sys.Before == nil {
		return nil
	}
	if err := s.sys.Before(op, name); err != nil {
		return &fs.PathError{Op: string(op), Path: name, Err: err}
	}
	return nil
}

// lookup describes the file of a key.
func (s *Store) lookup(key string) (fs.FileInfo, error) {
	info, err := s.root.Lstat(key)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, s.notThere()
	case err != nil:
		return nil, explain(err)
	case info.IsDir():
		return nil, storage.ErrNotExist
	case !info.Mode().IsRegular():
		return nil, notAFile(info.Mode())
	}
	return info, nil
}

// notThere is the error for a key that has no file, unless nothing is there any
// more.
func (s *Store) notThere() error {
	if info, err := s.root.Stat("."); err != nil || links(info) == 0 {
		return errGone
	}
	return storage.ErrNotExist
}

var errGone = fmt.Errorf("%w: its directory was removed", storage.ErrUnreachable)

func notAFile(mode fs.FileMode) error {
	if mode&fs.ModeSymlink != 0 {
		return errors.New("it is a symbolic link, which a store does not follow")
	}
	return fmt.Errorf("it is neither a file nor a directory (%v)", mode.Type())
}

func describe(key string, info fs.FileInfo) storage.Object {
	return storage.Object{Key: key, Size: info.Size(), Modified: info.ModTime()}
}

// Stat implements [storage.Store].
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	info, err := s.stat(ctx, key)
	if err != nil {
		return storage.Object{}, s.failed("stat", key, err)
	}
	return describe(key, info), nil
}

func (s *Store) stat(ctx context.Context, key string) (fs.FileInfo, error) {
	if err := errors.Join(ctx.Err(), storage.CheckKey(key)); err != nil {
		return nil, err
	}
	return s.lookup(key)
}

// failed says what was attempted, on what and where.
func (s *Store) failed(what, key string, err error) error {
	return fmt.Errorf("%s %s in %s: %w", what, key, s.dir, err)
}

// explain adds what an error of the operating system means for a store.
func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %w", storage.ErrDenied, err)
	case errors.Is(err, unix.ESTALE), errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.EHOSTDOWN), errors.Is(err, unix.ETIMEDOUT):
		return fmt.Errorf("%w: %w", storage.ErrUnreachable, err)
	}
	return err
}

// syncUp makes the entries of a folder and of those above it durable. One that
// is gone holds nothing any more.
func (s *Store) syncUp(folder string) error {
	for ; ; folder = path.Dir(folder) {
		if err := s.syncDir(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if folder == "." {
			return nil
		}
	}
}

func (s *Store) syncDir(folder string) error {
	if err := s.before(atomicfile.OpSync, folder); err != nil {
		return err
	}
	f, err := s.root.Open(folder)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
