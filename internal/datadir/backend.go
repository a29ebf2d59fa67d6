package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Backend is the v3 backend that a start would use.
type Backend struct {
	Path            string
	Size            int64  // bytes
	ConsistentIndex uint64 // 0 if none was written
	HasTerm         bool   // keeps the term beside it: 3.5 and later
	StorageVersion  string // 3.6 and later; else empty
	ClusterVersion  string // 3.5 and later; else empty
	HasKeys         bool   // holds at least one key, of any revision
	Members         snapcodec.Membership
	// Unread is why it could not be read while an etcd was writing it; the
	// fields above are zero then.
	Unread error
}

// liveTries is how often a backend is read that changes under the reader.
const liveTries = 5

// readBackend reads member/snap/db; nil if there is none.
func readBackend(files Files, live Liveness) (*Backend, error) {
	if files.Snap == "" {
		return nil, nil
	}
	path := filepath.Join(files.Snap, "db")
	b, err := openBackend(path)
	for tries := 1; err != nil && live == Running && tries < liveTries; tries++ {
		b, err = openBackend(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil && live == Running:
		info, statErr := os.Stat(path)
		if statErr != nil {
			return nil, statErr
		}
		return &Backend{Path: path, Size: info.Size(), Unread: err}, nil
	}
	return b, err
}

// forBase is the backend that a start from a snapshot at index base would use:
// one received from a leader takes b's place if b is older than the snapshot
// (etcdserver.recoverSnapshotBackend, etcd 3.4).
func (b *Backend) forBase(base uint64, files Files, live Liveness) (*Backend, error) {
	if b == nil || b.ConsistentIndex >= base || live == Running {
		return b, nil
	}
	path := filepath.Join(files.Snap, fmt.Sprintf("%016x.snap.db", base))
	received, err := openBackend(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: it has applied up to index %d, the snapshot starts at %d, and there is no %s to take its place",
			b.Path, b.ConsistentIndex, base, filepath.Base(path))
	}
	return received, err
}

func openBackend(path string) (*Backend, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBackendFile(f, path)
}

// readBackendFile reads f, which is called path.
func readBackendFile(f *os.File, path string) (*Backend, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	db, err := snapcodec.OpenDB(f, info.Size(), snapcodec.DBOptions{Name: path})
	if err != nil {
		return nil, err
	}
	b := &Backend{Path: path, Size: info.Size()}
	if err := b.fill(db); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Backend) fill(db *snapcodec.DB) error {
	meta, err := db.Meta()
	if err != nil {
		return err
	}
	b.ConsistentIndex, b.HasTerm, b.StorageVersion = meta.ConsistentIndex, meta.Term != 0, meta.StorageVersion
	cluster, err := db.Cluster()
	if err != nil {
		return err
	}
	b.ClusterVersion = cluster.Version
	if b.Members, err = db.Membership(); err != nil {
		return err
	}
	err = db.Keys(snapcodec.Revision{}, func(*snapcodec.KeyRecord) error {
		b.HasKeys = true
		return fs.SkipAll
	})
	if errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

// holds tells whether the effect of a conf change that adds or removes a
// member is in the backend. Updates may be repeated and don't count.
func (b *Backend) holds(cc walcodec.ConfChange) bool {
	if b == nil {
		return false
	}
	member, there := b.Members.Member(cc.NodeID)
	switch cc.Type {
	case walcodec.ConfChangeAddNode:
		return there && !member.IsLearner
	case walcodec.ConfChangeAddLearnerNode:
		return there
	case walcodec.ConfChangeRemoveNode:
		return slices.Contains(b.Members.Removed, cc.NodeID)
	default:
		return false
	}
}
