package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// The v2 data dir at full scale: a 2.3 member's with one snapshot and a long
// log after it.
const (
	v2Entries     = 290_000
	v2Objects     = 40_000
	v2SnapshotAt  = 26_000
	v2SegmentSize = 64_000_000
	v2Seed        = 23
)

// generateV2 writes a 2.3 data dir to dir: the snapshot with etcd's v2store
// and snap packages; the log, framed as etcd 3 no longer can, with walcodec
// (bench's tests read it back with etcd's wal package).
func generateV2(dir string, scale float64) error {
	g, err := newV2Generator(dir)
	if err != nil {
		return err
	}
	return g.run(int(v2Entries*scale), int(v2Objects*scale), uint64(max(v2SnapshotAt*scale, 5)))
}

// v2Generator writes entries to a log and, up to the snapshot, applies them to
// a store.
type v2Generator struct {
	dir     string
	self    *membership.Member
	objects *objects
	store   v2store.Store
	log     *plainLog
	index   uint64
}

func newV2Generator(dir string) (*v2Generator, error) {
	self, err := benchMember()
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{datadir.ToSnapDir(dir), datadir.ToWALDir(dir)} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, err
		}
	}
	metadata := walcodec.AppendMetadata(nil, walcodec.Metadata{NodeID: uint64(self.ID), ClusterID: benchClusterID})
	log, err := createPlainLog(datadir.ToWALDir(dir), metadata, v2SegmentSize)
	return &v2Generator{
		dir: dir, self: self, objects: newObjects(v2Seed), log: log,
		store: v2store.New("/0", "/1"),
	}, err
}

func (g *v2Generator) run(entries, keys int, snapshotAt uint64) error {
	if err := g.bootstrap(); err != nil {
		return err
	}
	for n := 0; g.index < uint64(entries); n++ {
		object := n % max(keys, 1)
		value := g.objects.value(object, n)
		if err := g.request(g.objects.key("/1/registry", object), string(value), g.index < snapshotAt); err != nil {
			return err
		}
		if g.index == snapshotAt {
			if err := g.snapshot(); err != nil {
				return err
			}
		}
	}
	return g.log.close()
}

func (g *v2Generator) bootstrap() error {
	member, err := json.Marshal(g.self)
	if err != nil {
		return err
	}
	raftAttributes, err := json.Marshal(g.self.RaftAttributes)
	if err != nil {
		return err
	}
	attributes, err := json.Marshal(g.self.Attributes)
	if err != nil {
		return err
	}
	add := walcodec.AppendConfChange(nil, walcodec.ConfChange{NodeID: uint64(g.self.ID), Context: member})
	if err := g.append(walcodec.EntryConfChange, 1, add); err != nil {
		return err
	}
	if err := g.append(walcodec.EntryNormal, raftTerm, nil); err != nil {
		return err
	}
	if _, err := g.store.Create(membership.MemberStoreKey(g.self.ID)+"/raftAttributes", false, string(raftAttributes), false, v2store.TTLOptionSet{}); err != nil {
		return err
	}
	if err := g.request(membership.MemberAttributesStorePath(g.self.ID), string(attributes), true); err != nil {
		return err
	}
	return g.request(membership.StoreClusterVersionKey(), "2.3.0", true)
}

// request logs a PUT and, if apply, makes it in the store.
func (g *v2Generator) request(path, value string, apply bool) error {
	data := walcodec.AppendRequest(nil, walcodec.Request{ID: requestID(g.index), Method: "PUT", Path: path, Val: value})
	if err := g.append(walcodec.EntryNormal, raftTerm, data); err != nil || !apply {
		return err
	}
	_, err := g.store.Set(path, false, value, v2store.TTLOptionSet{})
	return err
}

// append logs one entry and its commit, and cuts the segment when it is full.
func (g *v2Generator) append(kind walcodec.EntryType, term uint64, data []byte) error {
	g.index++
	entry := walcodec.AppendEntry(nil, walcodec.Entry{Type: kind, Term: term, Index: g.index, Data: data})
	if err := g.log.write(walcodec.KindEntry, entry); err != nil {
		return err
	}
	state := walcodec.AppendHardState(nil, walcodec.HardState{Term: term, Vote: uint64(g.self.ID), Commit: g.index})
	if err := g.log.write(walcodec.KindState, state); err != nil {
		return err
	}
	return g.log.cutIfFull(g.index+1, state)
}

// snapshot saves the store as a .snap file, then its record in the log.
func (g *v2Generator) snapshot() error {
	data, err := g.store.Save()
	if err != nil {
		return err
	}
	err = snap.New(zap.NewNop(), datadir.ToSnapDir(g.dir)).SaveSnap(&raftpb.Snapshot{
		Data: data,
		Metadata: &raftpb.SnapshotMetadata{
			ConfState: &raftpb.ConfState{Voters: []uint64{uint64(g.self.ID)}},
			Index:     proto.Uint64(g.index),
			Term:      proto.Uint64(raftTerm),
		},
	})
	if err != nil {
		return err
	}
	record := walcodec.AppendSnapshot(nil, walcodec.Snapshot{Index: g.index, Term: raftTerm})
	return g.log.write(walcodec.KindSnapshot, record)
}

// plainLog is a log as etcd 2.3 writes it: unpadded frames, no preallocated
// zeros.
type plainLog struct {
	dir         string
	metadata    []byte
	segmentSize int64 // bytes from which on a segment is cut
	seq         uint64
	file        *os.File
	buf         *bufio.Writer
	w           *walcodec.Writer
}

func createPlainLog(dir string, metadata []byte, segmentSize int64) (*plainLog, error) {
	l := &plainLog{dir: dir, metadata: metadata, segmentSize: segmentSize}
	if err := l.open(0, 0); err != nil {
		return nil, err
	}
	return l, l.write(walcodec.KindSnapshot, walcodec.AppendSnapshot(nil, walcodec.Snapshot{}))
}

// open starts the segment whose first entry is index, going on from crc.
func (l *plainLog) open(index uint64, crc uint32) error {
	name := fmt.Sprintf("%016x-%016x.wal", l.seq, index)
	file, err := os.OpenFile(filepath.Join(l.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	l.file, l.buf = file, bufio.NewWriterSize(file, 1<<20)
	l.w = walcodec.NewWriter(l.buf, walcodec.WriterOptions{CRC: crc, Framing: walcodec.FramingPlain})
	if err := l.write(walcodec.KindCRC, nil); err != nil {
		return err
	}
	return l.write(walcodec.KindMetadata, l.metadata)
}

func (l *plainLog) write(kind walcodec.Kind, data []byte) error {
	return l.w.Write(kind, data)
}

func (l *plainLog) cutIfFull(next uint64, state []byte) error {
	if l.w.Size() < l.segmentSize {
		return nil
	}
	crc := l.w.CRC()
	if err := l.close(); err != nil {
		return err
	}
	l.seq++
	if err := l.open(next, crc); err != nil {
		return err
	}
	return l.write(walcodec.KindState, state)
}

func (l *plainLog) close() error {
	if err := l.buf.Flush(); err != nil {
		return err
	}
	return l.file.Close()
}
