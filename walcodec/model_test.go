package walcodec

import (
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"
	"testing/fstest"
)

// save is one call of a raft log's writer: entries and a hard state, or a
// snapshot record.
type save struct {
	entries  []Entry
	state    *HardState
	snapshot *Snapshot
}

// randomSaves makes up the history of a member: terms rise, a new leader
// overwrites what was not committed, snapshots lie behind the commit.
func randomSaves(rnd *rand.Rand, n int) []save {
	var saves []save
	term, last, commit := uint64(1), uint64(0), uint64(0)
	for range n {
		if rnd.IntN(10) == 0 {
			term++
			last -= rnd.Uint64N(last - commit + 1)
		}
		var s save
		for range 1 + rnd.IntN(4) {
			last++
			s.entries = append(s.entries, Entry{Term: term, Index: last, Data: randomData(rnd)})
		}
		commit += rnd.Uint64N(last - commit + 1)
		s.state = &HardState{Term: term, Vote: rnd.Uint64(), Commit: commit}
		saves = append(saves, s)
		if rnd.IntN(20) == 0 && commit > 0 {
			conf := &ConfState{Voters: []uint64{1, rnd.Uint64()}}
			saves = append(saves, save{snapshot: &Snapshot{Index: commit, Term: term, ConfState: conf}})
		}
	}
	return saves
}

func randomData(rnd *rand.Rand) []byte {
	sizes := []int{0, 1, 7, 8, 9, 100, 600, 5000}
	n := sizes[rnd.IntN(len(sizes))]
	if rnd.IntN(50) == 0 {
		n = rnd.IntN(300 << 10)
	}
	if n == 0 {
		return nil
	}
	data := make([]byte, 0, n+8)
	for len(data) < n {
		data = binary.LittleEndian.AppendUint64(data, rnd.Uint64())
	}
	data = data[:n]
	if rnd.IntN(4) == 0 {
		clear(data[n/4:])
	}
	return data
}

// memory is a folder of segments that a LogWriter fills.
type memory fstest.MapFS

func (m memory) CreateSegment(name string) (io.WriteCloser, error) {
	f := &fstest.MapFile{}
	m[name] = f
	return memoryFile{f}, nil
}

type memoryFile struct{ f *fstest.MapFile }

func (m memoryFile) Write(p []byte) (int, error) {
	m.f.Data = append(m.f.Data, p...)
	return len(p), nil
}

func (memoryFile) Close() error { return nil }

func (m memory) fs() fstest.MapFS { return fstest.MapFS(m) }

func (m memory) clone() memory {
	c := memory{}
	for name, f := range m {
		c[name] = &fstest.MapFile{Data: bytes.Clone(f.Data)}
	}
	return c
}

// last returns the name of the last segment.
func (m memory) last(t testing.TB) string {
	t.Helper()
	segments, err := Segments(m.fs())
	if err != nil {
		t.Fatal(err)
	}
	return segments[len(segments)-1].Name
}

// writeSaves writes a log with a snapshot record for index 0, as etcd starts one.
func writeSaves(t testing.TB, dst SegmentCreator, saves []save, o LogWriterOptions) {
	t.Helper()
	w, err := NewLogWriter(dst, Metadata{NodeID: 0x8e9e05c52164694d, ClusterID: 0xcdf818194e3a8c32}, o)
	if err != nil {
		t.Fatal(err)
	}
	must(t, w.WriteSnapshot(Snapshot{}))
	for _, s := range saves {
		for _, e := range s.entries {
			must(t, w.WriteEntry(e))
		}
		if s.state != nil {
			must(t, w.WriteHardState(*s.state))
		}
		if s.snapshot != nil {
			must(t, w.WriteSnapshot(*s.snapshot))
		}
	}
	must(t, w.Close())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// readAll returns copies of all records of a log, and what it ended with.
func readAll(t testing.TB, fsys fs.FS, o LogOptions) ([]Record, error) {
	t.Helper()
	l, err := OpenLog(fsys, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var records []Record
	for {
		rec, err := l.Next()
		if err != nil {
			return records, err
		}
		rec.Data = bytes.Clone(rec.Data)
		records = append(records, rec)
	}
}
