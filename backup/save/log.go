package save

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// keeper is a folder of segments that stay readable once they were opened, even
// if etcd purges them: an [fs.FS] of what is open and what is there.
type keeper struct {
	dir  string
	open map[string]*os.File
}

func newKeeper(dir string) *keeper {
	return &keeper{dir: dir, open: map[string]*os.File{}}
}

func (k *keeper) close() error {
	var errs []error
	for _, f := range k.open {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Open opens a segment, or gives the one that is open another reader.
func (k *keeper) Open(name string) (fs.File, error) {
	f := k.open[name]
	if f == nil {
		var err error
		if f, err = os.Open(filepath.Join(k.dir, name)); err != nil {
			return nil, err
		}
		k.open[name] = f
	}
	return segmentView{io.NewSectionReader(f, 0, math.MaxInt64), f}, nil
}

// ReadDir lists the open segments and those that are there.
func (k *keeper) ReadDir(string) ([]fs.DirEntry, error) {
	there, err := os.ReadDir(k.dir)
	if err != nil {
		return nil, err
	}
	entries := slices.DeleteFunc(there, func(e fs.DirEntry) bool { return k.open[e.Name()] != nil })
	for _, f := range k.open {
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

// segmentView reads a kept segment from its start. Its Close leaves it open.
type segmentView struct {
	*io.SectionReader
	file *os.File
}

func (v segmentView) Stat() (fs.FileInfo, error) { return v.file.Stat() }
func (segmentView) Close() error                 { return nil }

// hold opens the segments from the one on that holds index.
func (k *keeper) hold(index uint64) (*walcodec.Log, error) {
	log, err := walcodec.OpenLog(k, walcodec.LogOptions{FromIndex: index})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.dir, err)
	}
	return log, nil
}

// verify checks the log from the segment on that holds index, to its end as it
// is now. Damage is an error, a torn tail is in the report.
func (k *keeper) verify(ctx context.Context, index uint64) (*walcodec.Report, error) {
	log, err := k.hold(index)
	if err != nil {
		return nil, err
	}
	report, err := log.Verify(ctx, walcodec.VerifyOptions{})
	if err != nil {
		return nil, err
	}
	if err := report.Err(); err != nil && !errors.Is(err, walcodec.ErrTorn) {
		return nil, fmt.Errorf("%s: %w", k.dir, err)
	}
	return report, nil
}

// copySegment copies the good records of a segment byte for byte, and makes
// sure that they are those that were verified.
func (k *keeper) copySegment(ctx context.Context, s walcodec.SegmentReport, w io.Writer) error {
	src := &limited{ctx, io.NewSectionReader(k.open[s.Name], 0, s.Used)}
	r := walcodec.NewReader(io.TeeReader(src, w), walcodec.ReaderOptions{Segment: s.Name})
	for {
		if _, err := r.Next(); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("%s: %w", k.dir, err)
		}
	}
	if r.Offset() != s.Used || r.CRC() != s.EndCRC {
		return fmt.Errorf("%s: changed between two readings", filepath.Join(k.dir, s.Name))
	}
	return nil
}

// limited ends with the context.
type limited struct {
	ctx context.Context
	r   io.Reader
}

func (l *limited) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	return l.r.Read(p)
}
