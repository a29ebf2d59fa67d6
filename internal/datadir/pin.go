package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// pinned is a folder's files, all opened at once: what etcd purges or renames
// afterwards stays readable. It is an [fs.FS]; each Open reads from the start.
type pinned struct {
	dir   string
	files map[string]*os.File
}

// pinTries bounds how often a purge may get in the way of opening: etcd
// purges every 30 s.
const pinTries = 10

// pinSegments opens every segment of dir, or the one named. A segment that
// was purged between listing and opening starts the listing anew.
func pinSegments(dir, only string) (p *pinned, err error) {
	for range pinTries {
		var names []string
		if names, err = segmentNames(dir, only); err != nil {
			return nil, err
		}
		if p, err = pin(dir, names); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return p, err
}

func segmentNames(dir, only string) ([]string, error) {
	if only != "" {
		return []string{only}, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".wal") {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

func pin(dir string, names []string) (*pinned, error) {
	p := &pinned{dir: dir, files: map[string]*os.File{}}
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.files[name] = f
	}
	return p, nil
}

// Close closes the files.
func (p *pinned) Close() error {
	var errs []error
	for _, f := range p.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Open returns a reader of the file from its start; "." lists the files.
func (p *pinned) Open(name string) (fs.File, error) {
	if name == "." {
		return nil, &fs.PathError{Op: "open", Path: p.dir, Err: fs.ErrInvalid}
	}
	f, ok := p.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(p.dir, name), Err: fs.ErrNotExist}
	}
	return pinnedFile{SectionReader: io.NewSectionReader(f, 0, math.MaxInt64), f: f}, nil
}

// ReadDir lists the files.
func (p *pinned) ReadDir(name string) ([]fs.DirEntry, error) {
	if name != "." {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var entries []fs.DirEntry
	for _, f := range p.files {
		info, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

type pinnedFile struct {
	*io.SectionReader
	f *os.File
}

func (p pinnedFile) Stat() (fs.FileInfo, error) { return p.f.Stat() }

// Close leaves the file to its [pinned].
func (p pinnedFile) Close() error { return nil }
