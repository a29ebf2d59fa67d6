package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/coreos/go-semver/semver"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// The v3 data dir at full scale: a 3.5 member's that has taken no snapshot
// yet, so that the log holds all that the backend does.
const (
	v3Entries = 600_000
	v3Objects = 150_000 // keys that the puts go round over
	v3Seed    = 35
	raftTerm  = 2
)

// generateV3 writes a v3 data dir to dir with etcd's own packages: wal for the
// log, mvcc and backend for the db.
func generateV3(dir string, scale float64) error {
	g, err := newV3Generator(dir)
	if err != nil {
		return err
	}
	err = g.run(int(v3Entries*scale), int(v3Objects*scale))
	if closeErr := g.close(); err == nil {
		err = closeErr
	}
	return err
}

// v3Generator proposes entries to a log and applies them to a backend, as a
// member of one does.
type v3Generator struct {
	self    *membership.Member
	objects *objects
	wal     *wal.WAL
	be      backend.Backend
	kv      mvcc.KV
	index   uint64
	batch   []*raftpb.Entry
}

func newV3Generator(dir string) (*v3Generator, error) {
	self, err := benchMember()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(datadir.ToSnapDir(dir), 0o700); err != nil {
		return nil, err
	}
	metadata, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: proto.Uint64(uint64(self.ID)), ClusterID: proto.Uint64(benchClusterID)})
	if err != nil {
		return nil, err
	}
	w, err := wal.Create(zap.NewNop(), datadir.ToWALDir(dir), metadata)
	if err != nil {
		return nil, err
	}
	w.SetUnsafeNoFsync()
	be := openBackend(datadir.ToBackendFileName(dir))
	return &v3Generator{
		self: self, objects: newObjects(v3Seed), wal: w, be: be,
		kv: mvcc.NewStore(zap.NewNop(), be, &lease.FakeLessor{}, mvcc.StoreConfig{}),
	}, nil
}

const benchClusterID = 0xbe5c_0ffe_e000_0001

func benchMember() (*membership.Member, error) {
	urls, err := types.NewURLs([]string{"http://127.0.0.1:2380"})
	if err != nil {
		return nil, err
	}
	m := membership.NewMember("bench", urls, "bench", nil)
	m.ClientURLs = []string{"http://127.0.0.1:2379"}
	return m, nil
}

// openBackend commits by count alone, so that the same puts make the same file.
func openBackend(path string) backend.Backend {
	cfg := backend.DefaultBackendConfig(zap.NewNop())
	cfg.Path = path
	cfg.UnsafeNoFsync = true
	cfg.BatchInterval = 24 * time.Hour
	cfg.BatchLimit = 10_000
	return backend.New(cfg)
}

// run writes entries of log in all, the puts among them going round over keys.
func (g *v3Generator) run(entries, keys int) error {
	g.createBuckets()
	if err := g.bootstrap(); err != nil {
		return err
	}
	for n := 0; g.index < uint64(entries); n++ {
		if err := g.put(n%max(keys, 1), n); err != nil {
			return err
		}
	}
	if err := g.save(); err != nil {
		return err
	}
	g.finish()
	return nil
}

// createBuckets makes the buckets that a 3.5 server makes at boot.
func (g *v3Generator) createBuckets() {
	lg := zap.NewNop()
	members := schema.NewMembershipBackend(lg, g.be)
	members.MustCreateBackendBuckets()
	schema.CreateMetaBucket(g.be.BatchTx())
	schema.NewAuthBackend(lg, g.be).CreateAuthBuckets()
	schema.NewAlarmBackend(lg, g.be).CreateAlarmBucket()
	tx := g.be.BatchTx()
	tx.LockOutsideApply()
	schema.UnsafeCreateLeaseBucket(tx)
	tx.Unlock()
	members.MustSaveMemberToBackend(g.self)
	members.MustSaveClusterVersionToBackend(semver.New("3.5.0"))
}

// bootstrap writes what a new member of one logs first: itself, the new
// leader's empty entry, its attributes and the cluster version.
func (g *v3Generator) bootstrap() error {
	member, err := json.Marshal(g.self)
	if err != nil {
		return err
	}
	add, err := proto.Marshal(&raftpb.ConfChange{
		Id: proto.Uint64(0), Type: raftpb.ConfChangeAddNode.Enum(), NodeId: proto.Uint64(uint64(g.self.ID)), Context: member,
	})
	if err != nil {
		return err
	}
	attributes, err := json.Marshal(g.self.Attributes)
	if err != nil {
		return err
	}
	g.propose(raftpb.EntryConfChange, 1, add)
	g.propose(raftpb.EntryNormal, raftTerm, nil)
	g.propose(raftpb.EntryNormal, raftTerm, walcodec.AppendRequest(nil, walcodec.Request{
		ID: requestID(g.index), Method: "PUT", Path: membership.MemberAttributesStorePath(g.self.ID), Val: string(attributes),
	}))
	g.propose(raftpb.EntryNormal, raftTerm, walcodec.AppendRequest(nil, walcodec.Request{
		ID: requestID(g.index), Method: "PUT", Path: membership.StoreClusterVersionKey(), Val: "3.5.0",
	}))
	return g.save()
}

// requestID looks like etcd's: a member's prefix, then a clock.
func requestID(index uint64) uint64 { return 0x7587_8fd2_0000_0000 | index<<3 }

func (g *v3Generator) put(object, version int) error {
	key, value := []byte(g.objects.key("/registry", object)), g.objects.value(object, version)
	data, err := proto.Marshal(&etcdserverpb.InternalRaftRequest{
		Header: &etcdserverpb.RequestHeader{ID: requestID(g.index)},
		Put:    &etcdserverpb.PutRequest{Key: key, Value: value},
	})
	if err != nil {
		return fmt.Errorf("encode put %d: %w", version, err)
	}
	g.propose(raftpb.EntryNormal, raftTerm, data)
	g.kv.Put(key, value, lease.NoLease)
	if len(g.batch) < 1+version%32 { // batches of changing size, as under load
		return nil
	}
	return g.save()
}

func (g *v3Generator) propose(kind raftpb.EntryType, term uint64, data []byte) {
	g.index++
	g.batch = append(g.batch, &raftpb.Entry{
		Type: kind.Enum(), Term: proto.Uint64(term), Index: proto.Uint64(g.index), Data: data,
	})
}

// save writes the batch as one raft Ready: its entries and the commit.
func (g *v3Generator) save() error {
	if len(g.batch) == 0 {
		return nil
	}
	state := &raftpb.HardState{Term: proto.Uint64(raftTerm), Vote: proto.Uint64(uint64(g.self.ID)), Commit: proto.Uint64(g.index)}
	err := g.wal.Save(state, g.batch)
	g.batch = g.batch[:0]
	return err
}

// finish records in the backend how far it has come.
func (g *v3Generator) finish() {
	tx := g.be.BatchTx()
	tx.LockOutsideApply()
	defer tx.Unlock()
	schema.UnsafeUpdateConsistentIndexForce(tx, g.index, raftTerm)
	schema.MustUnsafeSaveConfStateToBackend(zap.NewNop(), tx, &raftpb.ConfState{Voters: []uint64{uint64(g.self.ID)}, AutoLeave: proto.Bool(false)})
}

func (g *v3Generator) close() error {
	kvErr := g.kv.Close()
	if err := g.be.Close(); err != nil {
		return err
	}
	if err := g.wal.Close(); err != nil {
		return err
	}
	return kvErr
}
