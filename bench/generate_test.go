package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

const testScale = 0.001

func generated(t *testing.T, d dataset) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), d.name)
	if err := d.generate(dir, testScale); err != nil {
		t.Fatal(err)
	}
	return dir
}

// readLog reads a whole log with etcd's wal package, from the snapshot at.
func readLog(t *testing.T, dir string, at *walpb.Snapshot) (*raftpb.HardState, []*raftpb.Entry) {
	t.Helper()
	w, err := wal.OpenForRead(zap.NewNop(), datadir.ToWALDir(dir), at)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	metadata, state, entries, err := w.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var m etcdserverpb.Metadata
	if err := proto.Unmarshal(metadata, &m); err != nil || m.GetClusterID() != benchClusterID {
		t.Fatalf("metadata %v (%v), want cluster %x", &m, err, uint64(benchClusterID))
	}
	return state, entries
}

func TestV3LogIsReadByEtcd(t *testing.T) {
	dir := generated(t, v3Dir)
	state, entries := readLog(t, dir, &walpb.Snapshot{})
	if want := v3Entries / 1000; len(entries) < want || state.GetCommit() != uint64(len(entries)) {
		t.Fatalf("%d entries, commit %d, want at least %d, all committed", len(entries), state.GetCommit(), want)
	}
	var last etcdserverpb.InternalRaftRequest
	if err := proto.Unmarshal(entries[len(entries)-1].GetData(), &last); err != nil {
		t.Fatal(err)
	}
	if n := len(last.GetPut().GetValue()); n < 800 || n > 1300 {
		t.Errorf("a value of %d bytes, want about 1 KB", n)
	}
}

func TestV3BackendHoldsEveryPutAndTheLogsEnd(t *testing.T) {
	dir := generated(t, v3Dir)
	_, entries := readLog(t, dir, &walpb.Snapshot{})
	db, err := bbolt.Open(datadir.ToBackendFileName(dir), 0o400, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		const bootstrap = 4 // entries that put nothing
		if got, want := tx.Bucket([]byte("key")).Stats().KeyN, len(entries)-bootstrap; got != want {
			t.Errorf("%d keys, want %d", got, want)
		}
		end := []byte{0, 0, 0, 0, 0, 0, byte(len(entries) >> 8), byte(len(entries))}
		if got := tx.Bucket([]byte("meta")).Get([]byte("consistent_index")); !bytes.Equal(got, end) {
			t.Errorf("consistent index %x, want %x", got, end)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestV2DirIsReadByEtcd(t *testing.T) {
	dir := generated(t, v2Dir)
	newest, err := snap.New(zap.NewNop(), datadir.ToSnapDir(dir)).Load()
	if err != nil {
		t.Fatal(err)
	}
	store := v2store.New("/0", "/1")
	if err := store.Recovery(newest.GetData()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get("/1/registry", true, true); err != nil {
		t.Error(err)
	}
	m := newest.GetMetadata()
	state, entries := readLog(t, dir, &walpb.Snapshot{Index: m.Index, Term: m.Term})
	if got := m.GetIndex() + uint64(len(entries)); got != v2Entries/1000 || state.GetCommit() != got {
		t.Errorf("log ends at %d, commit %d, want %d", got, state.GetCommit(), v2Entries/1000)
	}
}

// A 2.3 log is cut and framed as that etcd did it: its end is the last record.
func TestPlainLogGoesOnInTheNextSegment(t *testing.T) {
	dir := t.TempDir()
	const segmentSize = 10_000
	log, err := createPlainLog(dir, walcodec.AppendMetadata(nil, walcodec.Metadata{NodeID: 1, ClusterID: 2}), segmentSize)
	if err != nil {
		t.Fatal(err)
	}
	const entries = 5
	for index := uint64(1); index <= entries; index++ {
		big := walcodec.AppendEntry(nil, walcodec.Entry{Term: 1, Index: index, Data: make([]byte, segmentSize/2)})
		state := walcodec.AppendHardState(nil, walcodec.HardState{Term: 1, Commit: index})
		if err := log.write(walcodec.KindEntry, big); err != nil {
			t.Fatal(err)
		}
		if err := log.cutIfFull(index+1, state); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.close(); err != nil {
		t.Fatal(err)
	}
	segments, err := walcodec.Segments(os.DirFS(dir))
	if err != nil || len(segments) != 3 {
		t.Fatalf("segments %v (%v), want 3", segments, err)
	}
	if _, err := wal.Verify(zap.NewNop(), dir, &walpb.Snapshot{}); err != nil {
		t.Error(err)
	}
}

// bbolt places pages by chance, so of a backend the contents count.
func TestSameSeedMakesTheSameData(t *testing.T) {
	for _, d := range []dataset{v2Dir, v3Dir} {
		a, b := generated(t, d), generated(t, d)
		err := fs.WalkDir(os.DirFS(a), ".", func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			if !bytes.Equal(contents(t, filepath.Join(a, name)), contents(t, filepath.Join(b, name))) {
				t.Errorf("%s: %s differs", d.name, name)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// contents is a file's bytes, or the keys and values of a backend.
func contents(t *testing.T, path string) []byte {
	t.Helper()
	if filepath.Base(path) != "db" {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	db, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var all []byte
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			all = append(all, name...)
			return bucket.ForEach(func(k, v []byte) error {
				all = append(append(all, k...), v...)
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestValuesCompressLikeManifests(t *testing.T) {
	o := newObjects(1)
	var plain []byte
	for n := range 5000 {
		plain = append(plain, o.value(n, n)...)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	ratio := float64(len(enc.EncodeAll(plain, nil))) / float64(len(plain))
	if ratio < 0.12 || ratio > 0.35 {
		t.Errorf("zstd leaves %.0f%%, want what it leaves of a Kubernetes backend: about 23%%", ratio*100)
	}
}
