package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// openLog makes the log of a dir that was read ready for appending: a torn
// last write is cut off, and the member made to stand alone.
func openLog(b *booted) (*wal.WAL, error) {
	if err := repair(b); err != nil {
		return nil, err
	}
	w, err := openWAL(b)
	if err != nil {
		return nil, err
	}
	if err := standAlone(b, w); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// lockLog holds the newest segment as etcd does, so that no etcd works on the
// dir while it is read and repaired.
func lockLog(dir string) (*fileutil.LockedFile, error) {
	segments, err := walcodec.Segments(os.DirFS(dir))
	if err != nil || len(segments) == 0 {
		return nil, err // told again, and better, by who reads the log
	}
	name := segments[len(segments)-1].Name
	lock, err := fileutil.TryLockFile(filepath.Join(dir, name), os.O_RDWR, fileutil.PrivateFileMode)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("segment %s: %w: another server runs on this dir", name, err)
	}
	return lock, err
}

// repair cuts a torn last write off its segment, after a copy was kept.
func repair(b *booted) error {
	if b.torn == nil {
		return nil
	}
	name := filepath.Join(b.dirs.wal, b.torn.Segment)
	if err := keepBroken(name); err != nil {
		return fmt.Errorf("keep a copy of the torn segment: %w", err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(b.torn.Offset), f.Sync(), f.Close())
}

func keepBroken(name string) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(name+".broken", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileutil.PrivateFileMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// openWAL opens etcd's log after the last entry applied. Asking for that point
// rather than for the snapshot's makes it read the last segment only; it misses
// a snapshot record there, which does not matter in write mode.
func openWAL(b *booted) (*wal.WAL, error) {
	m := b.machine
	w, err := wal.Open(zap.NewNop(), b.dirs.wal, &walpb.Snapshot{Index: new(m.applied), Term: new(m.term)})
	if err != nil {
		return nil, fmt.Errorf("open the log for writing: %w", err)
	}
	_, _, entries, err := w.ReadAll()
	switch {
	case errors.Is(err, wal.ErrSnapshotNotFound):
	case err != nil:
		return nil, errors.Join(fmt.Errorf("open the log for writing: %w", err), w.Close())
	}
	if uint64(len(entries)) != b.found.Dropped {
		err := fmt.Errorf("the log grew while it was read: %d entries after %d", len(entries), m.applied)
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// standAlone does what etcd --force-new-cluster does to the dir of a member
// that is not alone (etcdserver/raft.go, createConfigChangeEnts): it writes
// over the entries that were not committed with conf changes that add the
// member if it is not there, and remove the others.
func standAlone(b *booted, w *wal.WAL) error {
	m, self := b.machine, b.meta.NodeID
	if m.alone(self) {
		return nil
	}
	changes, err := aloneChanges(m, self)
	if err != nil {
		return err
	}
	b.state.Term = max(b.state.Term, 1)
	var entries []walcodec.Entry
	for _, cc := range changes {
		b.state.Commit++
		entries = append(entries, walcodec.Entry{
			Type: walcodec.EntryConfChange, Term: b.state.Term, Index: b.state.Commit,
			Data: walcodec.AppendConfChange(nil, cc),
		})
	}
	if err := w.Save(raftState(b.state), raftEntries(entries)); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	for _, e := range entries {
		if _, err := m.apply(e); err != nil {
			return err
		}
	}
	m.conf = walcodec.ConfState{Voters: []uint64{self}}
	return nil
}

// aloneChanges adds self before the others go, as etcd does since 3.4.
func aloneChanges(m *machine, self uint64) ([]walcodec.ConfChange, error) {
	var changes []walcodec.ConfChange
	if !slices.Contains(m.conf.Voters, self) {
		context, err := json.Marshal(selfContext(m, self))
		if err != nil {
			return nil, err
		}
		changes = append(changes, walcodec.ConfChange{Type: walcodec.ConfChangeAddNode, NodeID: self, Context: context})
	}
	for _, id := range othersOf(m, self) {
		changes = append(changes, walcodec.ConfChange{Type: walcodec.ConfChangeRemoveNode, NodeID: id})
	}
	return changes, nil
}

// selfContext promotes a learner, and makes a member of who is none.
func selfContext(m *machine, self uint64) membership.ConfigChangeContext {
	change := membership.ConfigChangeContext{Member: membership.Member{ID: types.ID(self)}}
	if slices.Contains(m.conf.Learners, self) {
		change.IsPromote = true
		return change
	}
	change.PeerURLs = []string{m.cluster.freePeerURL()}
	return change
}

// othersOf returns the members of raft's configuration beside self.
func othersOf(m *machine, self uint64) []uint64 {
	ids := slices.Concat(m.conf.Voters, m.conf.Learners)
	ids = slices.DeleteFunc(ids, func(id uint64) bool { return id == self })
	slices.Sort(ids)
	return ids
}

func raftState(s walcodec.HardState) *raftpb.HardState {
	return &raftpb.HardState{Term: new(s.Term), Vote: new(s.Vote), Commit: new(s.Commit)}
}

func raftEntries(entries []walcodec.Entry) []*raftpb.Entry {
	var all []*raftpb.Entry
	for _, e := range entries {
		all = append(all, &raftpb.Entry{
			Type: raftpb.EntryType(e.Type).Enum(), Term: new(e.Term), Index: new(e.Index), Data: e.Data,
		})
	}
	return all
}

func exists(name string) (bool, error) {
	_, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
