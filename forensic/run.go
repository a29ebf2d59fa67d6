package forensic

import (
	"fmt"
	"io"
	"io/fs"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// run is a part of a log without a missing segment, as the file system that
// walcodec reads. Its files are open already and stay so.
type run struct {
	segments []segment
	from     int // position in the log of the first one
}

// runs cuts the log where segments are missing or there twice.
func (l *Log) runs() []run {
	var runs []run
	start := 0
	for i := 1; i <= len(l.segments); i++ {
		if i < len(l.segments) && l.segments[i].Seq == l.segments[i-1].Seq+1 {
			continue
		}
		runs = append(runs, run{l.segments[start:i], start})
		start = i
	}
	return runs
}

// name is what walcodec knows the segment i as. A file named otherwise than
// SEQ-INDEX.wal gets a name from the middle of a log: a first segment would
// have to start with checksum 0.
func (r run) name(i int) string {
	s := r.segments[i]
	if s.named {
		return s.Name
	}
	return walcodec.SegmentName(1, 1)
}

// Open opens "." or a segment, from its start.
func (r run) Open(name string) (fs.File, error) {
	for i := range r.segments {
		if r.name(i) == name {
			s := &r.segments[i]
			return openFile{io.NewSectionReader(s.f, 0, s.Size), s}, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// ReadDir lists the segments.
func (r run) ReadDir(name string) ([]fs.DirEntry, error) {
	if name != "." {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var entries []fs.DirEntry
	for i := range r.segments {
		info, err := r.segments[i].f.Stat()
		if err != nil {
			return nil, fmt.Errorf("list segments: %w", err)
		}
		entries = append(entries, dirEntry{fs.FileInfoToDirEntry(info), r.name(i)})
	}
	return entries, nil
}

type dirEntry struct {
	fs.DirEntry
	name string
}

func (e dirEntry) Name() string { return e.name }

// openFile reads a segment as far as it reached when the log was opened.
type openFile struct {
	*io.SectionReader
	s *segment
}

func (f openFile) Stat() (fs.FileInfo, error) { return f.s.f.Stat() }

// Close leaves the file to its [Log].
func (f openFile) Close() error { return nil }
