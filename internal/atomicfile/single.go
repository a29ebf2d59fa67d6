package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Single is one file in the making, outside of any [Dir]. What stood under its
// name stays there until Commit.
type Single struct {
	*File
	target string
	stage  string
	lock   *os.File
}

// CreateFile stages the file that will be target, mode 0600, beside it. It
// first removes what an earlier run for this target left behind. The error
// wraps [ErrBusy] where that applies.
func CreateFile(target string, o Options) (*Single, error) {
	abs, err := filepath.Abs(target)
	if err != nil {
		return nil, err
	}
	s := &Single{target: abs}
	if err := s.open(o.System); err != nil {
		return nil, fmt.Errorf("create %s: %w", target, err)
	}
	return s, nil
}

func (s *Single) open(sys System) error {
	if info, err := os.Stat(s.target); err == nil && !info.Mode().IsRegular() {
		return errors.New("it is there, and not a regular file")
	}
	hidden := filepath.Join(filepath.Dir(s.target), "."+filepath.Base(s.target))
	var err error
	if s.lock, err = acquire(hidden + lockSuffix); err != nil {
		return err
	}
	s.stage = hidden + stageSuffix
	if err := sys.before(OpCreate, s.stage); err != nil {
		s.release()
		return err
	}
	f, err := os.OpenFile(s.stage, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		s.release()
		return err
	}
	s.File = &File{File: f, sys: sys}
	return nil
}

// Restart throws away what was written.
func (s *Single) Restart() error {
	s.written, s.flushed = 0, 0
	if _, err := s.Seek(0, 0); err != nil {
		return err
	}
	return s.Truncate(0)
}

// Commit makes the file durable and gives it its name.
func (s *Single) Commit() error {
	if err := s.File.Close(); err != nil {
		return fmt.Errorf("commit %s: %w", s.target, err)
	}
	if err := s.sys.rename(s.stage, s.target); err != nil {
		return fmt.Errorf("commit %s: %w", s.target, err)
	}
	if err := s.sys.syncDir(filepath.Dir(s.target)); err != nil {
		return fmt.Errorf("commit %s: %w", s.target, err)
	}
	s.release()
	return nil
}

// Abort removes the staged file; after a Commit that succeeded it does nothing,
// so it can be deferred.
func (s *Single) Abort() error {
	if s.lock == nil {
		return nil
	}
	defer s.release()
	s.File.File.Close() // it may be closed already
	if err := os.Remove(s.stage); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (s *Single) release() {
	os.Remove(s.lock.Name())
	s.lock.Close()
	s.lock = nil
}
