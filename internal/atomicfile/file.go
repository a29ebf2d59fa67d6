package atomicfile

import (
	"errors"
	"os"
)

// File is a file in a staging directory. Close makes it durable.
type File struct {
	*os.File
	sys System
}

// Write writes p to the file.
func (f *File) Write(p []byte) (int, error) {
	if err := f.sys.before(OpWrite, f.Name()); err != nil {
		return 0, err
	}
	return f.File.Write(p)
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
