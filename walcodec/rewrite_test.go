package walcodec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
)

// rewrite copies a log in memory, with new ids.
func rewrite(t testing.TB, from memory, to SegmentCreator, wo LogWriterOptions, o RewriteOptions) RewriteResult {
	t.Helper()
	l, err := OpenLog(from.fs(), LogOptions{})
	must(t, err)
	defer l.Close()
	w, err := NewLogWriter(to, Metadata{NodeID: 11, ClusterID: 12}, wo)
	must(t, err)
	res, err := Rewrite(w, l, o)
	must(t, err)
	must(t, w.Close())
	return res
}

// payloads returns the records that are not a segment's opening.
func payloads(t testing.TB, log memory) (records []Record) {
	t.Helper()
	all, err := readAll(t, log.fs(), LogOptions{})
	if err != io.EOF {
		t.Fatal(err)
	}
	var state []byte
	for i, rec := range all {
		opening := i > 0 && all[i-1].Kind == KindMetadata && bytes.Equal(rec.Data, state)
		if rec.Kind == KindState {
			state = rec.Data
		}
		if rec.Kind != KindCRC && rec.Kind != KindMetadata && !opening {
			records = append(records, rec)
		}
	}
	return records
}

func equalPayloads(t testing.TB, got, want []Record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Kind != want[i].Kind || !bytes.Equal(got[i].Data, want[i].Data) {
			t.Fatalf("record %d: %v % x, want %v % x", i, got[i].Kind, got[i].Data, want[i].Kind, want[i].Data)
		}
	}
}

// TestRewriteKeepsPayloads copies from any cutting and framing to any other:
// all but openings and checksums stays byte for byte.
func TestRewriteKeepsPayloads(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	for seed := range uint64(10) {
		from, to := memory{}, memory{}
		framing := Framing(seed % 2)
		writeSaves(t, from, randomSaves(rnd, 100), LogWriterOptions{SegmentSize: int64(rnd.IntN(200 << 10)), Framing: framing})
		res := rewrite(t, from, to, LogWriterOptions{SegmentSize: int64(rnd.IntN(200 << 10)), Framing: 1 - framing}, RewriteOptions{})
		equalPayloads(t, payloads(t, to), payloads(t, from))
		r, err := Verify(context.Background(), to.fs(), VerifyOptions{})
		must(t, err)
		must(t, r.Err())
		if *r.Metadata != (Metadata{11, 12}) || r.LastIndex != res.LastIndex || *r.HardState != res.HardState {
			t.Errorf("copy has %+v, result says %+v", r, res)
		}
	}
}

// TestRewriteIdentity copies with the same ids, cutting and framing: then every
// byte is the same.
func TestRewriteIdentity(t *testing.T) {
	from, to := memory{}, memory{}
	o := LogWriterOptions{SegmentSize: 50 << 10}
	writeSaves(t, from, randomSaves(rand.New(rand.NewPCG(1, 9)), 200), o)
	l, err := OpenLog(from.fs(), LogOptions{})
	must(t, err)
	r, err := l.Verify(context.Background(), VerifyOptions{})
	must(t, err)
	w, err := NewLogWriter(to, *r.Metadata, o)
	must(t, err)
	_, err = Rewrite(w, l, RewriteOptions{})
	must(t, err)
	must(t, w.Close())
	if len(from) != len(to) || len(to) < 3 {
		t.Fatalf("%d segments became %d", len(from), len(to))
	}
	for name := range from {
		if to[name] == nil || !bytes.Equal(from[name].Data, to[name].Data) {
			t.Errorf("segment %s differs", name)
		}
	}
}

// TestRewriteOptions limits, blanks and drops, and lets etcd read the result.
func TestRewriteOptions(t *testing.T) {
	from := memory{}
	dir := t.TempDir()
	writeSaves(t, from, randomSaves(rand.New(rand.NewPCG(2, 9)), 200), LogWriterOptions{SegmentSize: 50 << 10})
	r, err := Verify(context.Background(), from.fs(), VerifyOptions{})
	must(t, err)
	if r.Overwrites.Len() == 0 {
		t.Fatal("the log overwrites nothing: choose another seed")
	}
	last := r.LastIndex - 20
	res := rewrite(t, from, folder(dir), LogWriterOptions{SegmentSize: 30 << 10}, RewriteOptions{
		LastIndex:   last,
		Overwritten: &r.Overwrites,
		Entry: func(e Entry) (Entry, error) {
			if e.Index%3 == 0 {
				return NoOp(e), nil
			}
			return e, nil
		},
		HardState:    func(s HardState) HardState { s.Vote = 0; return s },
		KeepSnapshot: func(s Snapshot) bool { return s.Index == 0 },
	})
	w, err := wal.OpenForRead(zap.NewNop(), dir, &walpb.Snapshot{})
	must(t, err)
	defer w.Close()
	_, state, entries, err := w.ReadAll()
	must(t, err)
	if uint64(len(entries)) != last || res.LastIndex != last || state.GetCommit() > last || state.GetVote() != 0 {
		t.Errorf("%d entries, hard state %v, result %+v; want %d", len(entries), state, res, last)
	}
	for i, e := range entries {
		if e.GetIndex() != uint64(i+1) || e.GetIndex()%3 == 0 && len(e.Data) > 0 {
			t.Errorf("entry %d at place %d with %d bytes", e.GetIndex(), i+1, len(e.Data))
		}
	}
}

// TestRewritePurgedLog copies a log that starts in the middle under the same
// names: its first hard state must not be lost.
func TestRewritePurgedLog(t *testing.T) {
	from, to := memory{}, memory{}
	writeSaves(t, from, randomSaves(rand.New(rand.NewPCG(3, 9)), 100), LogWriterOptions{SegmentSize: 50 << 10})
	segments, err := Segments(from.fs())
	must(t, err)
	delete(from, segments[0].Name)
	rewrite(t, from, to, LogWriterOptions{Seq: segments[1].Seq, Index: segments[1].Index}, RewriteOptions{})
	equalPayloads(t, payloads(t, to), payloads(t, from))
	if to[segments[1].Name] == nil {
		t.Errorf("no segment %s", segments[1].Name)
	}
}

// TestRewriteAfterIndex leaves out what a snapshot covers: the copy has the
// entries above it, the same hard states and the same snapshot records.
func TestRewriteAfterIndex(t *testing.T) {
	from, to := memory{}, memory{}
	writeSaves(t, from, randomSaves(rand.New(rand.NewPCG(5, 9)), 100), LogWriterOptions{})
	rewrite(t, from, to, LogWriterOptions{}, RewriteOptions{AfterIndex: 100})
	var want []Record
	for _, rec := range payloads(t, from) {
		if e, err := ParseEntry(rec.Data); rec.Kind != KindEntry || err == nil && e.Index > 100 {
			want = append(want, rec)
		}
	}
	equalPayloads(t, payloads(t, to), want)
}

func TestRewriteEnds(t *testing.T) {
	from := smallLog(t, FramingPadded)
	f := from[from.last(t)]
	end := len(bytes.TrimRight(f.Data, "\x00"))
	f.Data = f.Data[:end-3]
	if res := rewrite(t, from, memory{}, LogWriterOptions{}, RewriteOptions{}); !errors.Is(res.Torn, ErrTorn) || res.LastIndex != 4 {
		t.Errorf("torn tail: %+v", res)
	}
	f.Data[20] ^= 1
	l, err := OpenLog(from.fs(), LogOptions{})
	must(t, err)
	w, err := NewLogWriter(memory{}, Metadata{}, LogWriterOptions{})
	must(t, err)
	var damage *CorruptError
	if _, err := Rewrite(w, l, RewriteOptions{}); !errors.As(err, &damage) {
		t.Errorf("damage: %v", err)
	}
}

// full fails the nth write, and every one after it.
type full struct{ left int }

var errFull = errors.New("no space")

func (f *full) CreateSegment(string) (io.WriteCloser, error) {
	f.left--
	if f.left < 0 {
		return nil, errFull
	}
	return f, nil
}

func (f *full) Write(p []byte) (int, error) {
	f.left--
	if f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func (f *full) Close() error {
	f.left--
	if f.left < 0 {
		return errFull
	}
	return nil
}

// TestRewriteFaults fails the first, second, … operation on the target until
// none is left to fail; each must surface.
func TestRewriteFaults(t *testing.T) {
	from := memory{}
	writeSaves(t, from, randomSaves(rand.New(rand.NewPCG(4, 9)), 60), LogWriterOptions{})
	for n := 0; ; n++ {
		if n > 1000 {
			t.Fatal("still failing after 1000 operations")
		}
		dst := &full{left: n}
		err := rewriteTo(t, from, dst)
		if err == nil {
			break
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("operation %d: %v", n, err)
		}
	}
}

func rewriteTo(t *testing.T, from memory, dst SegmentCreator) error {
	l, err := OpenLog(from.fs(), LogOptions{})
	must(t, err)
	defer l.Close()
	w, err := NewLogWriter(dst, Metadata{}, LogWriterOptions{SegmentSize: 20 << 10})
	if err != nil {
		return err
	}
	_, err = Rewrite(w, l, RewriteOptions{})
	if closed := w.Close(); err == nil {
		err = closed
	}
	return err
}

func TestWriterRefuses(t *testing.T) {
	w := NewWriter(io.Discard, WriterOptions{})
	if err := w.Write(KindCRC, []byte("x")); err == nil {
		t.Error("a crc record with data was written")
	}
	if err := w.Write(6, nil); err == nil {
		t.Error("a record of kind 6 was written")
	}
	if w.Size() != 0 {
		t.Errorf("size %d after refusals", w.Size())
	}
}
