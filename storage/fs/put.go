package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/storage"
)

const (
	copyBuffer = 256 << 10 // bytes
	// writebackEvery is how much is written before the disk is set to work.
	writebackEvery = 8 << 20 // bytes
)

// Put implements [storage.Store].
func (s *Store) Put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	obj, err := s.put(ctx, key, body, o)
	if err != nil {
		return storage.Object{}, s.failed("put", key, err)
	}
	return obj, nil
}

func (s *Store) put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	if err := s.mayPut(ctx, key, o); err != nil {
		return storage.Object{}, err
	}
	t, err := s.createTemp(key)
	if err != nil {
		return storage.Object{}, explain(err)
	}
	defer t.discard()
	if err := t.fill(ctx, body); err != nil {
		return storage.Object{}, err
	}
	info, err := t.publish(o)
	if err != nil {
		return storage.Object{}, explain(err)
	}
	return describe(key, info), nil
}

// mayPut finds out early what can't succeed.
func (s *Store) mayPut(ctx context.Context, key string, o storage.PutOptions) error {
	_, err := s.stat(ctx, key)
	switch {
	case ofNFS(key):
		return errors.New("such names are those of NFS for files that were removed while open")
	case err == nil && o.CreateOnly:
		return storage.ErrExist
	case errors.Is(err, storage.ErrNotExist):
		return nil
	}
	return err
}

// fill writes and makes durable what body holds.
func (t *temp) fill(ctx context.Context, body io.Reader) error {
	buf := make([]byte, copyBuffer)
	for {
		n, end := readFull(ctx, body, buf)
		if end != nil && end != io.EOF {
			return fmt.Errorf("read what is to be stored: %w", end)
		}
		if err := t.write(buf[:n]); err != nil {
			return explain(err)
		}
		if end == io.EOF {
			return explain(t.sync())
		}
	}
}

// readFull reads until buf is full, r fails or ctx ends. Other than
// [io.ReadFull] it returns r's own error also after some bytes.
func readFull(ctx context.Context, r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var more int
		more, err = r.Read(buf[n:])
		n += more
		if ended := ctx.Err(); ended != nil {
			return n, ended
		}
	}
	return n, err
}

func (t *temp) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := t.store.before(atomicfile.OpWrite, t.name); err != nil {
		return err
	}
	n, err := t.file.Write(p)
	t.written += int64(n)
	if t.written-t.flushed >= writebackEvery {
		startWriteback(t.file, t.flushed, t.written-t.flushed)
		t.flushed = t.written
	}
	return err
}

func (t *temp) sync() error {
	if err := t.store.before(atomicfile.OpSync, t.name); err != nil {
		return err
	}
	return t.file.Sync()
}

// publish gives the file its name.
func (t *temp) publish(o storage.PutOptions) (fs.FileInfo, error) {
	if err := t.store.removeEmpty(t.key); err != nil {
		return nil, err
	}
	name := t.replace
	if o.CreateOnly {
		name = t.create
	}
	if err := name(); err != nil {
		return nil, err
	}
	info, err := t.file.Stat()
	if err != nil {
		return nil, err
	}
	t.discard() // its entry goes in the same sync
	return info, t.store.syncUp(path.Dir(t.key))
}

// removeEmpty removes a folder where an object is to stand, if nothing is in it:
// a crash may leave such.
func (s *Store) removeEmpty(key string) error {
	info, err := s.root.Lstat(key)
	if err != nil || !info.IsDir() {
		return nil
	}
	if err := s.removeDir(key); err != nil {
		return errors.New("there are objects below it, and a directory can't hold both")
	}
	return nil
}

func (t *temp) replace() error {
	if err := t.store.before(atomicfile.OpRename, t.key); err != nil {
		return err
	}
	return t.store.root.Rename(t.name, t.key)
}

// create gives the file its name if that is not taken.
func (t *temp) create() error {
	err := t.link()
	if lacksLinks(err) {
		err = t.renameExclusive()
	}
	if errors.Is(err, fs.ErrExist) && !t.published() {
		return storage.ErrExist
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (t *temp) link() error {
	if err := t.store.before(opLink, t.key); err != nil {
		return err
	}
	return t.store.root.Link(t.name, t.key)
}

// lacksLinks tells whether a file system may know no hard links. EPERM has
// other causes too, which the next operation then meets.
func lacksLinks(err error) bool {
	for _, errno := range []error{unix.EPERM, unix.ENOSYS, unix.ENOTSUP, unix.EOPNOTSUPP, unix.EMLINK} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (t *temp) renameExclusive() error {
	if err := t.store.before(atomicfile.OpRename, t.key); err != nil {
		return err
	}
	folder, err := t.store.root.Open(path.Dir(t.key))
	if err != nil {
		return err
	}
	defer folder.Close()
	err = renameExclusive(int(folder.Fd()), path.Base(t.name), path.Base(t.key))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("this file system has neither hard links nor an exclusive rename, so nothing keeps two writers apart: %w", err)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: t.name, New: t.key, Err: err}
	}
	return nil
}

// published tells whether the name is this file's already: a file server that
// was asked twice, because its first answer was lost, says that it is taken.
func (t *temp) published() bool {
	named, err := t.store.root.Lstat(t.key)
	if err != nil {
		return false
	}
	own, err := t.file.Stat()
	return err == nil && os.SameFile(named, own)
}
