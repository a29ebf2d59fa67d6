package fs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
)

// tempMark stands in the name of a temporary file between the last part of the
// key and as much of [rand.Text] as tempRandom says.
const (
	tempMark   = "~lifeboat-"
	tempRandom = 16 // bytes
)

// errSwept says that somebody removed a temporary file, or its folder, before it
// was locked.
var errSwept = errors.New("other processes keep removing its folder or temporary file")

// maxTries bounds how often a Put begins anew because the folder that it made
// is removed as empty.
const maxTries = 1000

// temp is an object in the making.
type temp struct {
	store   *Store
	key     string
	name    string // of the file, from the root
	file    *os.File
	written int64 // bytes
	flushed int64 // of those, on their way to the disk
}

// createTemp makes and locks a temporary file for a key. While it is there,
// nobody can remove its folder.
func (s *Store) createTemp(key string) (*temp, error) {
	for try := 1; ; try++ {
		t, err := s.tryTemp(key)
		if err == nil {
			return t, nil
		}
		retry := errors.Is(err, errSwept) || errors.Is(err, fs.ErrNotExist) && s.notThere() != errGone
		if !retry || try == maxTries {
			s.removeEmptyFolders(path.Dir(key))
			return nil, err
		}
	}
}

func (s *Store) tryTemp(key string) (*temp, error) {
	if err := s.makeFolder(path.Dir(key)); err != nil {
		return nil, err
	}
	t := &temp{store: s, key: key, name: key + tempMark + rand.Text()[:tempRandom]}
	if err := s.before(atomicfile.OpCreate, t.name); err != nil {
		return nil, err
	}
	var err error
	if t.file, err = s.root.OpenFile(t.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	if err := t.lock(); err != nil {
		t.discard()
		return nil, err
	}
	return t, nil
}

func (s *Store) makeFolder(folder string) error {
	if folder == "." {
		return nil
	}
	if err := s.before(atomicfile.OpMkdir, folder); err != nil {
		return err
	}
	err := s.root.MkdirAll(folder, 0o700)
	if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for ; folder != "."; folder = path.Dir(folder) {
		if info, err := s.root.Lstat(folder); err == nil && !info.IsDir() {
			return fmt.Errorf("%s is an object itself, and a directory can't hold both", folder)
		}
	}
	return errSwept // one of them was there, but is no longer
}

// lock tells a sweep that the file's writer lives. On file systems without
// locks only the file's age does.
func (t *temp) lock() error {
	switch err := flock(t.file); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return errSwept
	case err != nil && !lacksLocks(err):
		return &os.PathError{Op: "lock", Path: t.name, Err: err}
	}
	named, err := t.store.root.Lstat(t.name)
	if errors.Is(err, fs.ErrNotExist) {
		return errSwept
	}
	if err != nil {
		return err
	}
	own, err := t.file.Stat()
	if err == nil && !os.SameFile(named, own) {
		err = errSwept
	}
	return err
}

// flock locks a file without waiting.
func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EINTR {
			return err
		}
	}
}

func lacksLocks(err error) bool {
	return errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL)
}

// discard removes the temporary name, and the folders that are then empty. What
// it can't remove, a sweep finds.
func (t *temp) discard() {
	if t.file == nil {
		return
	}
	t.file.Close() // first: NFS renames what is open to .nfs… instead of removing it
	t.file = nil
	if t.store.removeFile(t.name) == nil {
		t.store.removeEmptyFolders(path.Dir(t.name))
	}
}

// tempKey returns the key that a temporary file was made for.
func tempKey(name string) (key string, ok bool) {
	at := strings.LastIndex(name, tempMark)
	if at <= 0 || len(name) != at+len(tempMark)+tempRandom {
		return "", false
	}
	return name[:at], true
}

// ofNFS tells names that an NFS client gives to files that were removed while
// open: ".nfs", a file number and a counter, in hex.
func ofNFS(name string) bool {
	digits, ok := strings.CutPrefix(path.Base(name), ".nfs")
	return ok && len(digits) == 24 && strings.Trim(digits, "0123456789abcdef") == ""
}
