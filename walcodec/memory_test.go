package walcodec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
)

// TestNextAllocatesNothing reads a log of entries and hard states.
func TestNextAllocatesNothing(t *testing.T) {
	for _, framing := range []Framing{FramingPadded, FramingPlain} {
		log := memory{}
		var saves []save
		for i := range uint64(3000) {
			saves = append(saves, save{entries: []Entry{{Term: 1, Index: i + 1, Data: bytes.Repeat([]byte{1}, int(i%700))}}, state: &HardState{1, 1, i}})
		}
		writeSaves(t, log, saves, LogWriterOptions{Framing: framing, SegmentSize: 100 << 10})
		l, err := OpenLog(log.fs(), LogOptions{})
		must(t, err)
		defer l.Close()
		allocs := testing.AllocsPerRun(5000, func() {
			if _, err := l.Next(); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%v allocations a record", allocs)
		}
	}
}

// TestWriteAllocatesNothing writes and rewrites records.
func TestWriteAllocatesNothing(t *testing.T) {
	w := NewWriter(io.Discard, WriterOptions{})
	data := make([]byte, 5000)
	must(t, w.Write(KindEntry, data))
	if allocs := testing.AllocsPerRun(1000, func() { must(t, w.Write(KindEntry, data)) }); allocs != 0 {
		t.Errorf("%v allocations a record", allocs)
	}
}

// TestMemoryIsFlat verifies and copies a log of 200 MB and looks at the heap.
func TestMemoryIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 200 MB")
	}
	dir := t.TempDir()
	w, err := NewLogWriter(folder(dir), Metadata{NodeID: 1, ClusterID: 2}, LogWriterOptions{})
	must(t, err)
	data := make([]byte, 50<<10)
	for i := range uint64(4000) {
		must(t, w.WriteEntry(Entry{Term: 1, Index: i + 1, Data: data}))
	}
	must(t, w.Close())
	l, err := OpenLog(os.DirFS(dir), LogOptions{})
	must(t, err)
	defer l.Close()
	grown := allocated(func() {
		r, err := l.Verify(context.Background(), VerifyOptions{})
		must(t, err)
		must(t, r.Err())
		w, err := NewLogWriter(discard{}, Metadata{}, LogWriterOptions{})
		must(t, err)
		_, err = Rewrite(w, l, RewriteOptions{})
		must(t, err)
		must(t, w.Close())
	})
	if grown > 8<<20 {
		t.Errorf("%d bytes allocated for a log of 200 MB", grown)
	}
}

// allocated returns how many bytes f allocates in all, freed or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestLengthIsBelievedLate gives a length word of 30 MB and few bytes: nobody
// may allocate for it. The same with a header that agrees: memory follows the
// bytes that really come.
func TestLengthIsBelievedLate(t *testing.T) {
	var frame bytes.Buffer
	w := NewWriter(&frame, WriterOptions{})
	must(t, w.Write(KindCRC, nil))
	must(t, w.Write(KindMetadata, AppendMetadata(nil, Metadata{})))
	head := frame.Len()
	must(t, w.Write(KindEntry, AppendEntry(nil, Entry{Term: 1, Index: 1, Data: make([]byte, 30<<20)})))
	cut := frame.Bytes()[:head+1000]
	grown := allocated(func() {
		r := NewReader(bytes.NewReader(cut), ReaderOptions{Last: true})
		for err := error(nil); err == nil; _, err = r.Next() {
		}
		if _, err := r.Next(); !errors.Is(err, ErrTorn) {
			t.Errorf("ended with %v", err)
		}
	})
	if grown > 4<<20 {
		t.Errorf("%d bytes allocated for 1000", grown)
	}
}

// TestRecordLimit reads a record over the limit, and on after it.
func TestRecordLimit(t *testing.T) {
	log := memory{}
	writeSaves(t, log, []save{
		{entries: []Entry{{Term: 1, Index: 1, Data: make([]byte, 3<<20)}}},
		{entries: []Entry{{Term: 1, Index: 2, Data: []byte("x")}}, state: &HardState{1, 1, 2}},
	}, LogWriterOptions{})
	got, err := readAll(t, log.fs(), LogOptions{MaxRecord: 1 << 20})
	var damage *CorruptError
	if !errors.Is(err, ErrRecordTooLarge) || !errors.As(err, &damage) || len(got) != 3 {
		t.Errorf("%d records, then %v", len(got), err)
	}
	l, err := OpenLog(log.fs(), LogOptions{MaxRecord: 1 << 20})
	must(t, err)
	for err == nil {
		_, err = l.Next()
	}
	_, err = l.Resync()
	must(t, err)
	if rec, err := l.Next(); err != nil || rec.Unproven || rec.Kind != KindEntry {
		t.Errorf("after the record over the limit: %+v, %v", rec, err)
	}
}

// TestOverwritesAgainstReplay compares what Overwrites says to keeping all
// entries and cutting them off, as raft does.
func TestOverwritesAgainstReplay(t *testing.T) {
	for seed := range uint64(25) {
		log := memory{}
		rnd := rand.New(rand.NewPCG(seed, 11))
		writeSaves(t, log, randomSaves(rnd, 150), LogWriterOptions{SegmentSize: int64(1 + rnd.IntN(100<<10))})
		r, err := Verify(context.Background(), log.fs(), VerifyOptions{})
		must(t, err)
		must(t, r.Err())
		l, err := OpenLog(log.fs(), LogOptions{})
		must(t, err)
		found, err := FindOverwrites(l)
		must(t, err)
		kept := replay(t, log)
		walkEntries(t, log, func(at Position, e Entry) {
			discards := kept[e.Index] != at
			if r.Overwrites.Discards(at, e.Index) != discards || found.Discards(at, e.Index) != discards {
				t.Fatalf("seed %d: entry %d at %+v: discarded %v", seed, e.Index, at, discards)
			}
		})
	}
}

// replay returns the places of the entries that are left in the end.
func replay(t testing.TB, log memory) map[uint64]Position {
	t.Helper()
	kept := map[uint64]Position{}
	last := uint64(0)
	walkEntries(t, log, func(at Position, e Entry) {
		for ; last >= e.Index; last-- {
			delete(kept, last)
		}
		last = e.Index
		kept[e.Index] = at
	})
	return kept
}

func walkEntries(t testing.TB, log memory, visit func(Position, Entry)) {
	t.Helper()
	l, err := OpenLog(log.fs(), LogOptions{})
	must(t, err)
	defer l.Close()
	for {
		rec, err := l.Next()
		if err == io.EOF {
			return
		}
		must(t, err)
		if rec.Kind == KindEntry {
			e, err := ParseEntry(rec.Data)
			must(t, err)
			visit(Position{l.Segment().Seq, rec.Offset}, e)
		}
	}
}
