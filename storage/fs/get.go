package fs

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Get implements [storage.Store]. A file that is replaced or deleted stays
// readable for who opened it before.
func (s *Store) Get(ctx context.Context, key string, r storage.Range) (io.ReadCloser, error) {
	body, err := s.get(ctx, key, r)
	if err != nil {
		return nil, s.failed("get", key, err)
	}
	return body, nil
}

func (s *Store) get(ctx context.Context, key string, r storage.Range) (*reader, error) {
	if _, err := s.stat(ctx, key); err != nil {
		return nil, err
	}
	// Should a pipe have come to stand there since, opening it must not wait.
	f, err := s.root.OpenFile(key, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, s.notThere()
	}
	if err != nil {
		return nil, explain(err)
	}
	body, err := newReader(ctx, f, r)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return body, nil
}

// reader reads a range of a file until its context ends.
type reader struct {
	ctx context.Context
	io.Reader
	file *os.File
}

func newReader(ctx context.Context, f *os.File, r storage.Range) (*reader, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, notAFile(info.Mode())
	}
	offset, length, err := r.Within(info.Size())
	if err != nil {
		return nil, err
	}
	return &reader{ctx, io.NewSectionReader(f, offset, length), f}, nil
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func (r *reader) Close() error { return r.file.Close() }
