package datadir

import (
	"os"
	"path/filepath"
)

// Liveness says whether an etcd has a folder open.
type Liveness int

// The answers of [Files.Live]. Unknown is not a no: where the system can't
// tell, etcd may be running.
const (
	LiveUnknown Liveness = iota
	Stopped
	Running
)

func (l Liveness) String() string {
	switch l {
	case Stopped:
		return "stopped"
	case Running:
		return "running"
	default:
		return "unknown"
	}
}

// Live tells whether a process holds etcd's lock on one of the segments or on
// the backend. It only looks: no lock is taken, nothing is written.
//
// etcd locks segments with flock (2.x) or open-file-description locks (3.0 and
// later, on Linux), and the backend with flock (bbolt).
func (f Files) Live() (Liveness, error) {
	var paths []string
	if f.WAL != "" {
		segments, err := filepath.Glob(filepath.Join(f.WAL, "*.wal"))
		if err != nil {
			return LiveUnknown, err
		}
		paths = segments
	}
	if f.Snap != "" {
		paths = append(paths, filepath.Join(f.Snap, "db"))
	}
	return probe(existing(paths))
}

func existing(paths []string) []string {
	var found []string
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	return found
}
