package restore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// Kind says what a source is.
type Kind string

// The kinds of source.
const (
	// KindSnapshot is a file made by "snapshot save", a SHA-256 at its end.
	KindSnapshot Kind = "snapshot"
	// KindBackend is a copied member/snap/db. Nothing proves that it is whole.
	KindBackend Kind = "copied backend"
	// KindDataDir is a data dir or a backup of one: backend and the log after it.
	KindDataDir Kind = "data dir"
)

// Source is what is restored. Close it.
type Source struct {
	Path string
	Kind Kind
	Size int64 // of the backend, bytes, without the SHA-256
	DB   *snapcodec.DB
	Meta snapcodec.BackendMeta

	file *os.File
	info os.FileInfo // as it was opened
	log  *logSource  // of a data dir
}

// OpenFile opens a snapshot or a copied backend. Only its first pages are read.
func OpenFile(path string) (*Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s := &Source{Path: path, file: f, Kind: KindBackend}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func (s *Source) open() error {
	var err error
	if s.info, err = s.file.Stat(); err != nil {
		return err
	}
	if s.info.IsDir() {
		return fmt.Errorf("%s: is a folder, not a snapshot file", s.Path)
	}
	if !s.info.Mode().IsRegular() {
		return fmt.Errorf("%s: is not a regular file", s.Path)
	}
	s.Size = s.info.Size()
	if snapcodec.HasTrailer(s.Size) {
		s.Kind, s.Size = KindSnapshot, s.Size-snapcodec.TrailerSize
	}
	return s.openDB()
}

func (s *Source) openDB() error {
	var err error
	if s.DB, err = snapcodec.OpenDB(s.file, s.Size, snapcodec.DBOptions{Name: s.Path}); err != nil {
		return notSnapshot(s.file, s.info.Size(), err)
	}
	s.Meta, err = s.DB.Meta()
	return err
}

// Close closes the files.
func (s *Source) Close() error {
	var errs []error
	if s.file != nil {
		errs = append(errs, s.file.Close())
	}
	if s.log != nil {
		errs = append(errs, s.log.close())
	}
	return errors.Join(errs...)
}

// ErrLive says that a running etcd stands in the way.
var ErrLive = errors.New("etcd is running on it")

// checkStopped refuses a backend that an etcd has open: its pages change while
// they are copied.
func (s *Source) checkStopped() error {
	files := datadir.Files{Snap: filepath.Dir(s.Path)}
	if s.log != nil {
		files = s.log.dir.Files
	} else if filepath.Base(s.Path) != "db" {
		return nil
	}
	live, err := files.Live()
	if err != nil {
		return err
	}
	if live == datadir.Running {
		return fmt.Errorf("%s: %w, and a backend in use can't be copied as a file: take a snapshot (lifeboat snapshot save)", s.Path, ErrLive)
	}
	return nil
}

// checkUnchanged makes sure that nobody wrote the source while it was copied.
func (s *Source) checkUnchanged() error {
	now, err := s.file.Stat()
	if err != nil {
		return err
	}
	if now.Size() != s.info.Size() || !now.ModTime().Equal(s.info.ModTime()) {
		return fmt.Errorf("%s: changed while it was copied", s.Path)
	}
	return s.checkStopped()
}

// verify proves the source as far as it can be proved: by its SHA-256, or by
// its structure.
func (s *Source) verify(check HashCheck) error {
	if s.Kind == KindSnapshot && check == HashRequired {
		return s.VerifyHash()
	}
	report, err := s.DB.Check()
	if err != nil {
		return err
	}
	if report.Total > 0 {
		return fmt.Errorf("%d problems in its pages, the first: %w", report.Total, report.Problems[0])
	}
	return nil
}

// VerifyHash compares the SHA-256 at the end of a snapshot with its content.
func (s *Source) VerifyHash() error {
	return snapcodec.VerifyTrailer(s.file, s.info.Size(), snapcodec.DBOptions{Name: s.Path})
}

// kubernetes is where Kubernetes keeps its objects.
const kubernetes = "/registry/"

// Kubernetes tells whether the backend holds objects of Kubernetes. It may read
// all keys.
func (s *Source) Kubernetes() (bool, error) {
	found := false
	err := s.DB.Keys(snapcodec.Revision{}, func(r *snapcodec.KeyRecord) error {
		kv, err := r.KeyValue()
		if err != nil {
			return err
		}
		if found = bytes.HasPrefix(kv.Key, []byte(kubernetes)); found {
			return fs.SkipAll
		}
		return nil
	})
	if errors.Is(err, fs.SkipAll) {
		err = nil
	}
	return found, err
}

// LogBeside finds the log that belongs to a copied backend that lies in a data
// dir still; empty if there is none.
func (s *Source) LogBeside() string {
	if s.Kind != KindBackend {
		return ""
	}
	wal := filepath.Join(filepath.Dir(filepath.Dir(s.Path)), "wal")
	if segments, err := filepath.Glob(filepath.Join(wal, "*.wal")); err != nil || len(segments) == 0 {
		return ""
	}
	return wal
}
