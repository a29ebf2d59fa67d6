package walcodec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// The oracle is etcd's own package. These tests set its SegmentSizeBytes and
// so do not run in parallel.

// oracleRecords reads a folder record by record with etcd's decoder.
func oracleRecords(t testing.TB, dir string) []Record {
	t.Helper()
	segments, err := Segments(os.DirFS(dir))
	must(t, err)
	var files []fileutil.FileReader
	for _, s := range segments {
		f, err := os.Open(filepath.Join(dir, s.Name))
		must(t, err)
		defer f.Close()
		files = append(files, fileutil.NewFileReader(f))
	}
	d := wal.NewDecoder(files...)
	var records []Record
	for {
		var rec walpb.Record
		err := d.Decode(&rec)
		if errors.Is(err, io.EOF) {
			return records
		}
		must(t, err)
		if Kind(rec.GetType()) == KindCRC {
			d.UpdateCRC(rec.GetCrc())
		}
		records = append(records, Record{Kind: Kind(rec.GetType()), CRC: rec.GetCrc(), Data: rec.Data})
	}
}

// equalRecords compares kind, checksum and data.
func equalRecords(t testing.TB, got, want []Record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, the oracle has %d", len(got), len(want))
	}
	for i, w := range want {
		if g := got[i]; g.Kind != w.Kind || g.CRC != w.CRC || !bytes.Equal(g.Data, w.Data) {
			t.Fatalf("record %d at offset %d: %v %08x % x\nthe oracle has %v %08x % x", i, g.Offset, g.Kind, g.CRC, g.Data, w.Kind, w.CRC, w.Data)
		}
	}
}

func TestOracleReadsFixturesAlike(t *testing.T) {
	for _, name := range fixture.Names() {
		t.Run(name, func(t *testing.T) {
			dir := walDir(t, name)
			records, err := readAll(t, os.DirFS(dir), LogOptions{})
			if err != io.EOF {
				t.Fatal(err)
			}
			equalRecords(t, records, oracleRecords(t, dir))
			equalEntries(t, dir, Snapshot{})
			for _, snap := range snapshotsOf(t, records) {
				equalEntries(t, dir, snap)
			}
		})
	}
}

func snapshotsOf(t *testing.T, records []Record) []Snapshot {
	t.Helper()
	var snaps []Snapshot
	for _, rec := range records {
		if rec.Kind == KindSnapshot {
			s, err := ParseSnapshot(rec.Data)
			must(t, err)
			snaps = append(snaps, s)
		}
	}
	return snaps
}

// equalEntries compares what WAL.ReadAll returns from a snapshot on: metadata,
// last hard state and the entries that count.
func equalEntries(t testing.TB, dir string, from Snapshot) {
	t.Helper()
	w, err := wal.OpenForRead(zap.NewNop(), dir, &walpb.Snapshot{Index: &from.Index, Term: &from.Term})
	must(t, err)
	defer w.Close()
	metadata, state, entries, err := w.ReadAll()
	must(t, err)
	var want []Entry
	for _, e := range entries {
		want = append(want, fromRaft(e))
	}
	r, err := Verify(context.Background(), os.DirFS(dir), VerifyOptions{FromIndex: from.Index})
	must(t, err)
	must(t, r.Err())
	if m, err := ParseMetadata(metadata); err != nil || m != *r.Metadata {
		t.Errorf("metadata %+v, the oracle has %+v (%v)", *r.Metadata, m, err)
	}
	if s := (HardState{state.GetTerm(), state.GetVote(), state.GetCommit()}); s != *r.HardState {
		t.Errorf("hard state %+v, the oracle has %+v", *r.HardState, s)
	}
	got := effective(t, dir, from.Index, &r.Overwrites)
	if len(got) != len(want) {
		t.Fatalf("%d entries from %d, the oracle has %d", len(got), from.Index, len(want))
	}
	for i := range got {
		if !equalEntry(got[i], want[i]) {
			t.Fatalf("entry %+v, the oracle has %+v", got[i], want[i])
		}
	}
}

// effective reads the entries that no later one replaced.
func effective(t testing.TB, dir string, after uint64, o *Overwrites) []Entry {
	t.Helper()
	l, err := OpenLog(os.DirFS(dir), LogOptions{FromIndex: after})
	must(t, err)
	defer l.Close()
	var entries []Entry
	for {
		rec, err := l.Next()
		if err == io.EOF {
			return entries
		}
		must(t, err)
		if rec.Kind != KindEntry {
			continue
		}
		e, err := ParseEntry(bytes.Clone(rec.Data))
		must(t, err)
		if e.Index > after && !o.Discards(Position{l.Segment().Seq, rec.Offset}, e.Index) {
			entries = append(entries, e)
		}
	}
}

func fromRaft(e *raftpb.Entry) Entry {
	return Entry{EntryType(e.GetType()), e.GetTerm(), e.GetIndex(), e.Data}
}

func equalEntry(a, b Entry) bool {
	return a.Type == b.Type && a.Term == b.Term && a.Index == b.Index && bytes.Equal(a.Data, b.Data)
}

// oracleWrite writes the saves with etcd's own writer.
func oracleWrite(t testing.TB, dir string, saves []save) {
	t.Helper()
	w, err := wal.Create(zap.NewNop(), dir, AppendMetadata(nil, Metadata{NodeID: 1, ClusterID: 2}))
	must(t, err)
	for _, s := range saves {
		if s.snapshot != nil {
			must(t, w.SaveSnapshot(toOracle(*s.snapshot)))
			continue
		}
		var entries []*raftpb.Entry
		for _, e := range s.entries {
			kind := raftpb.EntryType(e.Type)
			entries = append(entries, &raftpb.Entry{Type: &kind, Term: &e.Term, Index: &e.Index, Data: e.Data})
		}
		must(t, w.Save(&raftpb.HardState{Term: &s.state.Term, Vote: &s.state.Vote, Commit: &s.state.Commit}, entries))
	}
	must(t, w.Close())
}

func toOracle(s Snapshot) *walpb.Snapshot {
	return &walpb.Snapshot{Index: &s.Index, Term: &s.Term, ConfState: &raftpb.ConfState{Voters: s.ConfState.Voters}}
}

func smallSegments(t testing.TB, size int64) {
	before := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = size
	t.Cleanup(func() { wal.SegmentSizeBytes = before })
}

func TestOracleWritesWeRead(t *testing.T) {
	smallSegments(t, 256<<10)
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		dir := filepath.Join(t.TempDir(), "wal")
		oracleWrite(t, dir, randomSaves(rnd, 100))
		records, err := readAll(t, os.DirFS(dir), LogOptions{})
		if err != io.EOF {
			t.Fatalf("seed %d: %v", seed, err)
		}
		equalRecords(t, records, oracleRecords(t, dir))
		equalEntries(t, dir, Snapshot{})
	}
}

// folder creates segments in a directory.
type folder string

func (d folder) CreateSegment(name string) (io.WriteCloser, error) {
	return os.OpenFile(filepath.Join(string(d), name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func TestWeWriteOracleReads(t *testing.T) {
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		dir := t.TempDir()
		saves := randomSaves(rnd, 100)
		writeSaves(t, folder(dir), saves, LogWriterOptions{SegmentSize: 256 << 10})
		records, err := readAll(t, os.DirFS(dir), LogOptions{})
		if err != io.EOF {
			t.Fatalf("seed %d: %v", seed, err)
		}
		equalRecords(t, records, oracleRecords(t, dir))
		equalEntries(t, dir, Snapshot{})
		oracleGoesOn(t, dir, saves)
	}
}

// oracleGoesOn opens our log for writing, appends to it and reads it again.
func oracleGoesOn(t *testing.T, dir string, saves []save) {
	t.Helper()
	w, err := wal.Open(zap.NewNop(), dir, &walpb.Snapshot{})
	must(t, err)
	_, state, entries, err := w.ReadAll()
	must(t, err)
	last, term := entries[len(entries)-1].GetIndex()+1, state.GetTerm()+1
	must(t, w.Save(&raftpb.HardState{Term: &term, Vote: new(uint64(1)), Commit: state.Commit}, []*raftpb.Entry{{Term: &term, Index: &last}}))
	must(t, w.Close())
	r, err := Verify(context.Background(), os.DirFS(dir), VerifyOptions{})
	must(t, err)
	must(t, r.Err())
	if r.LastIndex != last || r.LastTerm != term {
		t.Errorf("log ends at entry %d of term %d, want %d of %d", r.LastIndex, r.LastTerm, last, term)
	}
}

// TestOracleTakesMixedFraming lets etcd 3 append to a file of plain frames, as
// it does after an upgrade from 2.3.
func TestOracleTakesMixedFraming(t *testing.T) {
	dir := t.TempDir()
	saves := randomSaves(rand.New(rand.NewPCG(1, 3)), 20)
	writeSaves(t, folder(dir), saves, LogWriterOptions{Framing: FramingPlain})
	oracleGoesOn(t, dir, saves)
	r, err := Verify(context.Background(), os.DirFS(dir), VerifyOptions{})
	must(t, err)
	if s := r.Segments[0]; !s.Plain || !s.Padded {
		t.Errorf("plain %v, padded %v, want both", s.Plain, s.Padded)
	}
	records, err := readAll(t, os.DirFS(dir), LogOptions{})
	if err != io.EOF {
		t.Fatal(err)
	}
	equalRecords(t, records, oracleRecords(t, dir))
}

// TestMessagesAgreeWithOracle encodes with one side and decodes with the other.
func TestMessagesAgreeWithOracle(t *testing.T) {
	conf := ConfState{Voters: []uint64{1, 1 << 63}, Learners: []uint64{3}, VotersOutgoing: []uint64{4, 5}, LearnersNext: []uint64{6}, AutoLeave: true}
	snap := Snapshot{Index: 7, Term: 8, ConfState: &conf}
	var theirs walpb.Snapshot
	must(t, proto.Unmarshal(AppendSnapshot(nil, snap), &theirs))
	back, err := proto.Marshal(&theirs)
	must(t, err)
	if got, err := ParseSnapshot(back); err != nil || !reflect.DeepEqual(got, snap) {
		t.Errorf("snapshot came back as %+v (%v)", got, err)
	}
	change := ConfChangeV2{Transition: 2, Changes: []ConfChangeSingle{{ConfChangeRemoveNode, 9}, {ConfChangeAddLearnerNode, 10}}, Context: []byte("c")}
	var v2 raftpb.ConfChangeV2
	must(t, proto.Unmarshal(AppendConfChangeV2(nil, change), &v2))
	back, err = proto.Marshal(&v2)
	must(t, err)
	if got, err := ParseConfChangeV2(back); err != nil || !reflect.DeepEqual(got, change) {
		t.Errorf("conf change v2 came back as %+v (%v)", got, err)
	}
	single := ConfChange{ID: 1, Type: ConfChangeUpdateNode, NodeID: 1 << 63, Context: []byte(`{"id":1}`)}
	var v1 raftpb.ConfChange
	must(t, proto.Unmarshal(AppendConfChange(nil, single), &v1))
	back, err = proto.Marshal(&v1)
	must(t, err)
	if got, err := ParseConfChange(back); err != nil || !reflect.DeepEqual(got, single) {
		t.Errorf("conf change came back as %+v (%v)", got, err)
	}
}
