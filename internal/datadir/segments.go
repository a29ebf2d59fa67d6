package datadir

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// segments is a folder of segments that stay readable once they were opened,
// even if etcd purges them: an [fs.FS] of what is open and what is there.
type segments struct {
	dir  string
	open map[string]*os.File
}

func newSegments(dir string) *segments {
	return &segments{dir: dir, open: map[string]*os.File{}}
}

func (s *segments) close() error {
	var errs []error
	for _, f := range s.open {
		errs = append(errs, f.Close())
	}
	clear(s.open)
	return errors.Join(errs...)
}

// Open opens a segment, or gives the one that is open another reader.
func (s *segments) Open(name string) (fs.File, error) {
	f := s.open[name]
	if f == nil {
		var err error
		if f, err = os.Open(filepath.Join(s.dir, name)); err != nil {
			return nil, err
		}
		s.open[name] = f
	}
	return segmentView{io.NewSectionReader(f, 0, math.MaxInt64), f}, nil
}

// ReadDir lists the open segments and those that are there.
func (s *segments) ReadDir(string) ([]fs.DirEntry, error) {
	there, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	entries := slices.DeleteFunc(there, func(e fs.DirEntry) bool { return s.open[e.Name()] != nil })
	for _, f := range s.open {
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

// segmentView reads an open segment from its start. Its Close leaves it open.
type segmentView struct {
	*io.SectionReader
	file *os.File
}

func (v segmentView) Stat() (fs.FileInfo, error) { return v.file.Stat() }
func (segmentView) Close() error                 { return nil }
