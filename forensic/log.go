package forensic

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Log is a write-ahead log, opened to be looked at. Every segment is opened at
// once, so that a purge by a running member loses nothing.
type Log struct {
	Path   string        // as asked for
	Files  datadir.Files // where it was found
	Others []string      // names in the folder that are not segments, sorted
	Live   datadir.Liveness

	segments []segment // by sequence number
}

// segment is one open file of a log.
type segment struct {
	walcodec.Segment
	named bool // the name is SEQ-INDEX.wal
	last  bool // of its log
	f     *os.File
}

// ErrNoLog says that a path holds no write-ahead log.
var ErrNoLog = errors.New("holds no write-ahead log")

// OpenLog opens the log at path: a data dir, a backup, a folder of segments, or
// one segment file of any name. A walDir that is not empty is where the
// segments are instead, as etcd's --wal-dir says; path may then be empty.
func OpenLog(path, walDir string) (*Log, error) {
	if path == "" {
		path, walDir = walDir, ""
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() && walDir == "" {
		return openSegment(path)
	}
	files, err := datadir.Find(path, walDir)
	if err != nil {
		return nil, err
	}
	if files.WAL == "" {
		return nil, fmt.Errorf("%s: %w: it is a %s without segments", path, ErrNoLog, files.Layout)
	}
	return openDir(path, files)
}

// openTries bounds how often a purge may get in the way of opening: etcd
// purges every 30 s.
const openTries = 10

func openDir(path string, files datadir.Files) (l *Log, err error) {
	for range openTries {
		l = &Log{Path: path, Files: files}
		if err = l.openAll(); err == nil {
			break
		}
		err = errors.Join(err, l.Close())
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	if len(l.segments) == 0 {
		return nil, fmt.Errorf("%s: %w: no file in it is named as a segment (SEQ-INDEX.wal)", files.WAL, ErrNoLog)
	}
	l.Live, err = files.Live()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Log) openAll() error {
	entries, err := os.ReadDir(l.Files.WAL)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		seq, index, ok := walcodec.ParseSegmentName(entry.Name())
		if !ok || entry.IsDir() {
			l.Others = append(l.Others, entry.Name())
			continue
		}
		if err := l.open(walcodec.Segment{Name: entry.Name(), Seq: seq, Index: index}, true); err != nil {
			return err
		}
	}
	slices.SortFunc(l.segments, func(a, b segment) int { return strings.Compare(a.Name, b.Name) })
	if n := len(l.segments); n > 0 {
		l.segments[n-1].last = true
	}
	return nil
}

func (l *Log) open(s walcodec.Segment, named bool) error {
	f, err := os.Open(filepath.Join(l.Files.WAL, s.Name))
	if err != nil {
		return err
	}
	l.segments = append(l.segments, segment{Segment: s, named: named, f: f})
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: is not a regular file", f.Name())
	}
	if err != nil {
		return err
	}
	l.segments[len(l.segments)-1].Size = info.Size()
	return nil
}

// openSegment opens one segment as a log of its own. A file named otherwise (a
// .wal.broken, a copy) is taken when it starts as a segment does.
func openSegment(path string) (*Log, error) {
	dir, name := filepath.Split(path)
	files := datadir.Files{Root: path, Layout: datadir.LayoutSegment, WAL: filepath.Clean(dir), Segment: name}
	if dir == "" {
		files.WAL = "."
	}
	l := &Log{Path: path, Files: files}
	seq, index, named := walcodec.ParseSegmentName(name)
	if err := l.open(walcodec.Segment{Name: name, Seq: seq, Index: index}, named); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s := &l.segments[0]
	s.last = !named || !followed(files.WAL, seq)
	if err := s.sniff(); !named && err != nil {
		return nil, errors.Join(fmt.Errorf("%s: is not a WAL segment: %w", path, err), l.Close())
	}
	return l, nil
}

// followed tells whether dir has a segment after seq.
func followed(dir string, seq uint64) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		next, _, ok := walcodec.ParseSegmentName(e.Name())
		return ok && next > seq
	})
}

// sniff reads the first record.
func (s *segment) sniff() error {
	_, err := s.reader(s.Size).Next()
	var damage *walcodec.CorruptError
	if errors.As(err, &damage) {
		return damage.Cause
	}
	if errors.Is(err, walcodec.ErrTorn) || err == io.EOF {
		return errors.New("it holds no record")
	}
	return err
}

// reader reads the segment's first end bytes.
func (s *segment) reader(end int64) *walcodec.Reader {
	return walcodec.NewReader(io.NewSectionReader(s.f, 0, end), walcodec.ReaderOptions{Segment: s.Name, Last: s.last})
}

// Close closes the files.
func (l *Log) Close() error {
	var errs []error
	for _, s := range l.segments {
		errs = append(errs, s.f.Close())
	}
	return errors.Join(errs...)
}
