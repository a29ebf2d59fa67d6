package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Create makes the data dir of a new cluster of one, without keys: as etcd
// does when it is started on a dir that is not there. The dir must not hold a
// member. Ids derive from the time, so no two clusters meet by accident. The peer
// URL is not etcd's default: see [datadir.ForcedPeerURL].
func Create(dir string) error {
	member := filepath.Join(dir, "member")
	there, err := exists(filepath.Join(member, "wal"))
	if there {
		err = errors.New("it holds a member")
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", dir, err)
	}
	if err := os.MkdirAll(filepath.Join(member, "snap"), 0o700); err != nil {
		return err
	}
	if err := writeFirstLog(filepath.Join(member, "wal"), time.Now()); err != nil {
		return fmt.Errorf("create %s: %w", dir, err)
	}
	return nil
}

// writeFirstLog is what a fresh etcd of one member logs: itself, committed by
// its own vote.
func writeFirstLog(dir string, now time.Time) error {
	token := fmt.Sprint("lifeboat-", now.UnixNano())
	peers, err := types.NewURLsMap(defaultName + "=" + datadir.FreePeerURL(nil))
	if err != nil {
		return err
	}
	cluster, err := membership.NewClusterFromURLsMap(zap.NewNop(), token, peers)
	if err != nil {
		return err
	}
	m := cluster.MemberByName(defaultName)
	context, err := json.Marshal(m)
	if err != nil {
		return err
	}
	id := uint64(m.ID)
	meta := walcodec.AppendMetadata(nil, walcodec.Metadata{NodeID: id, ClusterID: uint64(cluster.ID())})
	w, err := wal.Create(zap.NewNop(), dir, meta)
	if err != nil {
		return err
	}
	first := walcodec.Entry{Type: walcodec.EntryConfChange, Term: 1, Index: 1, Data: walcodec.AppendConfChange(nil,
		walcodec.ConfChange{Type: walcodec.ConfChangeAddNode, NodeID: id, Context: context})}
	state := walcodec.HardState{Term: 1, Vote: id, Commit: 1}
	return errors.Join(w.Save(raftState(state), raftEntries([]walcodec.Entry{first})), w.Close())
}
