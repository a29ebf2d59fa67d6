package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// File is a file in a staging directory. Close makes it durable.
type File struct {
	*os.File
	sys     System
	written int64 // bytes, by Write
	flushed int64 // of those, on their way to the disk
}

// writebackEvery is how much is written before the disk is set to work on it.
const writebackEvery = 8 << 20

// Write writes p to the file.
func (f *File) Write(p []byte) (int, error) {
	if err := f.sys.before(OpWrite, f.Name()); err != nil {
		return 0, err
	}
	n, err := f.File.Write(p)
	f.written += int64(n)
	if f.written-f.flushed >= writebackEvery {
		startWriteback(f.File, f.flushed, f.written-f.flushed)
		f.flushed = f.written
	}
	return n, err
}

// Sync makes what was written durable.
func (f *File) Sync() error {
	if err := f.sys.before(OpSync, f.Name()); err != nil {
		return err
	}
	return f.File.Sync()
}

// Close makes the file durable and closes it.
func (f *File) Close() error {
	return errors.Join(f.Sync(), f.File.Close())
}

// copyChunk bounds one copy call, so that progress is seen and holes are kept.
const copyChunk = 16 << 20

// CopyFrom appends the whole of src, holes as holes, and calls progress after
// each part with its bytes.
func (f *File) CopyFrom(src *os.File, progress func(int64)) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		data, end := nextData(src, at, info.Size())
		progress(data - at)
		if at, err = f.copyRange(src, data, end, progress); err != nil {
			return err
		}
	}
	return f.Truncate(info.Size())
}

// nextData finds the next range of src at or after at that is not a hole; a
// file system that knows no holes has only data.
func nextData(src *os.File, at, size int64) (data, end int64) {
	data, err := src.Seek(at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size
	}
	if err != nil {
		return at, size
	}
	if end, err = src.Seek(data, unix.SEEK_HOLE); err != nil {
		return data, size
	}
	return data, min(end, size)
}

// copyRange copies src from offset at to end, to the same place in f.
func (f *File) copyRange(src *os.File, at, end int64, progress func(int64)) (int64, error) {
	if _, err := src.Seek(at, io.SeekStart); err != nil {
		return at, err
	}
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return at, err
	}
	for at < end {
		if err := f.sys.before(OpWrite, f.Name()); err != nil {
			return at, err
		}
		n, err := f.ReadFrom(io.LimitReader(src, min(copyChunk, end-at)))
		if err == nil && n == 0 {
			err = fmt.Errorf("%s: %w", src.Name(), io.ErrUnexpectedEOF)
		}
		if err != nil {
			return at, err
		}
		startWriteback(f.File, at, n)
		at += n
		progress(n)
	}
	return at, nil
}
