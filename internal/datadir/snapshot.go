package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Snapshot is one .snap file.
type Snapshot struct {
	Path    string
	Term    uint64
	Index   uint64
	Size    int64  // bytes
	Problem string // why it is not usable; empty for the base
}

// snapshots lists the .snap files of dir, newest first.
func snapshots(dir string) ([]Snapshot, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []Snapshot
	for _, entry := range entries {
		term, index, ok := snapcodec.ParseSnapName(entry.Name())
		if !ok {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return nil, err
		}
		found = append(found, Snapshot{Path: filepath.Join(dir, entry.Name()), Term: term, Index: index, Size: info.Size()})
	}
	slices.SortFunc(found, func(a, b Snapshot) int {
		return strings.Compare(filepath.Base(b.Path), filepath.Base(a.Path))
	})
	return found, nil
}

// OpenSnap opens a .snap file for reading; the caller closes the file.
func (s Snapshot) OpenSnap() (*snapcodec.Snap, *os.File, error) {
	f, err := os.Open(s.Path)
	if err != nil {
		return nil, nil, err
	}
	snap, err := snapcodec.OpenSnap(f, s.Size, snapcodec.SnapOptions{Name: s.Path})
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return snap, f, nil
}

// readable reads the whole file once and says what is wrong with it.
func (s Snapshot) readable() error {
	snap, f, err := s.OpenSnap()
	if err != nil {
		return err
	}
	defer f.Close()
	if snap.Term != s.Term || snap.Index != s.Index {
		return fmt.Errorf("its name says term %d index %d, its content term %d index %d", s.Term, s.Index, snap.Term, snap.Index)
	}
	return snap.Verify()
}

// usable says why etcd would not start from s, given the log from there on:
// there must be a snapshot record for it, at or below the commit index
// (wal.ValidSnapshotEntries, etcd 3.4.8).
func (s Snapshot) usable(log *walcodec.Report) error {
	recorded := slices.ContainsFunc(log.Snapshots, func(r walcodec.SnapshotRecord) bool {
		return r.Index == s.Index && r.Term == s.Term
	})
	switch {
	case !recorded:
		return errors.New("the log has no record of it")
	case log.HardState == nil || s.Index > log.HardState.Commit:
		return errors.New("the log does not commit up to it")
	}
	return s.readable()
}
