package scheduler

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
)

// stateFormat is the number of the format of state files.
const stateFormat = 1

// maxRuns is how many records are kept of a job, and of its drill.
const maxRuns = 100

// jobState is what outlives the daemon of a job, or of its drill.
type jobState struct {
	Format int     `json:"format"`
	Job    string  `json:"job"`
	Kind   RunKind `json:"kind"`

	Progress      Progress        `json:"progress"`
	FailuresInRow int             `json:"failures_in_row"`
	Elsewhere     int64           `json:"elsewhere"`
	Successes     int64           `json:"successes"`
	Failures      map[Cause]int64 `json:"failures"`

	Running     *RunRecord `json:"running,omitempty"`
	LastSuccess *RunRecord `json:"last_success,omitempty"`

	// Runs are kept in a file of their own, which is written when one ends.
	Runs []RunRecord `json:"-"` // the oldest first
}

// jobHistory is what that file holds.
type jobHistory struct {
	Format int         `json:"format"`
	Job    string      `json:"job"`
	Kind   RunKind     `json:"kind"`
	Runs   []RunRecord `json:"runs"` // the oldest first
}

func newJobState(kind RunKind, job string, p Progress) jobState {
	return jobState{Format: stateFormat, Job: job, Kind: kind, Progress: p, Failures: map[Cause]int64{}}
}

// decodeState reads a state file's content.
func decodeState(data []byte, kind RunKind, job string) (jobState, error) {
	var s jobState
	if err := json.Unmarshal(data, &s); err != nil {
		return s, err
	}
	switch {
	case s.Format != stateFormat:
		return s, fmt.Errorf("format %d, want %d", s.Format, stateFormat)
	case s.Kind != kind || s.Job != job:
		return s, fmt.Errorf("is of %s %q", s.Kind, s.Job)
	case s.Progress.Last.IsZero():
		return s, errors.New("does not say how far the job came")
	}
	if s.Failures == nil {
		s.Failures = map[Cause]int64{}
	}
	return s, nil
}

// decodeHistory reads the content of a file of runs.
func decodeHistory(data []byte, kind RunKind, job string) ([]RunRecord, error) {
	var h jobHistory
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, err
	}
	if h.Format != stateFormat || h.Kind != kind || h.Job != job {
		return nil, fmt.Errorf("format %d of %s %q", h.Format, h.Kind, h.Job)
	}
	return h.Runs, nil
}

// begin notes that a run starts.
func (s *jobState) begin(rec RunRecord) { s.Running = &rec }

// finish notes that a run has ended.
func (s *jobState) finish(rec RunRecord) {
	s.Running = nil
	s.Runs = append(s.Runs, rec)
	if surplus := len(s.Runs) - maxRuns; surplus > 0 {
		s.Runs = slices.Delete(s.Runs, 0, surplus)
	}
	switch {
	case rec.Result == Succeeded:
		s.Successes++
		s.FailuresInRow = 0
		s.LastSuccess = &rec
	default:
		s.Failures[rec.Cause]++
		if rec.Cause != CauseStopped {
			s.FailuresInRow++
		}
	}
}

// restart notes that the daemon starts: a run that was under way has died.
func (s *jobState) restart(now time.Time) {
	s.Progress.Restart()
	if s.Running == nil {
		return
	}
	rec := *s.Running
	rec.Result, rec.Cause, rec.Finished = Failed, CauseStopped, now.Round(0)
	rec.Error = "the daemon died meanwhile; when is not known"
	s.finish(rec)
}

// stateKey is a file of state: of a track's progress, or of its last runs.
type stateKey struct {
	trackKey
	history bool
}

// stateStore keeps what outlives the daemon.
type stateStore interface {
	read(key stateKey) ([]byte, error) // fs.ErrNotExist: there is none
	write(key stateKey, data []byte) error
	close() error
}

// stateDir is a folder with a file for each job and each drill.
type stateDir struct {
	dir  string
	lock *os.File
}

// LockedError says that another daemon uses a state dir.
type LockedError struct {
	Dir string
	Who string // what the other one wrote of itself
}

// Error names the dir and who has it.
func (e *LockedError) Error() string {
	return fmt.Sprintf("state dir %s: in use by another daemon (%s)", e.Dir, e.Who)
}

// openStateDir makes the folder if it is not there, and locks it.
func openStateDir(dir, who string) (*stateDir, error) {
	for _, kind := range []RunKind{BackupRun, DrillRun} {
		if err := os.MkdirAll(filepath.Join(dir, string(kind), historyFolder), 0o700); err != nil {
			return nil, fmt.Errorf("state dir: %w", err)
		}
	}
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state dir: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(lockError(dir, f, err), f.Close())
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteString(who + "\n")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("state dir: %w", err), f.Close())
	}
	return &stateDir{dir, f}, nil
}

func lockError(dir string, f *os.File, err error) error {
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("state dir: lock %s: %w", f.Name(), err)
	}
	who := make([]byte, 200)
	n, _ := f.ReadAt(who, 0)
	return &LockedError{dir, strings.TrimSpace(string(who[:n]))}
}

// historyFolder is below the folder of the states; no job has its name, which
// is without a suffix.
const historyFolder = "runs"

func (s *stateDir) path(key stateKey) string {
	dir := filepath.Join(s.dir, string(key.kind))
	if key.history {
		dir = filepath.Join(dir, historyFolder)
	}
	return filepath.Join(dir, key.job+".json")
}

// maxState is how large a state file may be, in bytes.
const maxState = 16 << 20

func (s *stateDir) read(key stateKey) ([]byte, error) {
	name := s.path(key)
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxState {
		return nil, fmt.Errorf("%s: has %d bytes, which is no state of a job", name, info.Size())
	}
	return os.ReadFile(name)
}

func (s *stateDir) write(key stateKey, data []byte) error {
	f, err := atomicfile.CreateFile(s.path(key), atomicfile.Options{})
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// close lets another daemon use the folder.
func (s *stateDir) close() error { return s.lock.Close() }

// noState keeps nothing: for a run while a daemon has the state dir.
type noState struct{}

func (noState) read(stateKey) ([]byte, error) { return nil, fs.ErrNotExist }
func (noState) write(stateKey, []byte) error  { return nil }
func (noState) close() error                  { return nil }
