package walcodec

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"
	"testing/fstest"
)

func TestParseSegmentName(t *testing.T) {
	tests := []struct {
		name       string
		seq, index uint64
		ok         bool
	}{
		{"0000000000000000-0000000000000000.wal", 0, 0, true},
		{"000000000000000a-00000000000186a1.wal", 10, 100001, true},
		{"ffffffffffffffff-ffffffffffffffff.wal", 1<<64 - 1, 1<<64 - 1, true},
		{"000000000000000A-0000000000000001.wal", 0, 0, false},
		{"0000000000000000-0000000000000000.wal.tmp", 0, 0, false},
		{"0000000000000000-0000000000000000.wal.broken", 0, 0, false},
		{"+000000000000000-0000000000000000.wal", 0, 0, false},
		{"0000000000000000_0000000000000000.wal", 0, 0, false},
		{"0-0.wal", 0, 0, false},
		{"0.tmp", 0, 0, false},
		{"", 0, 0, false},
	}
	for _, test := range tests {
		seq, index, ok := ParseSegmentName(test.name)
		if seq != test.seq || index != test.index || ok != test.ok {
			t.Errorf("%q: %d %d %v", test.name, seq, index, ok)
		}
		if ok && SegmentName(seq, index) != test.name {
			t.Errorf("%q became %q", test.name, SegmentName(seq, index))
		}
	}
}

func FuzzSegmentName(f *testing.F) {
	f.Add("000000000000000a-00000000000186a1.wal")
	f.Fuzz(func(t *testing.T, name string) {
		if seq, index, ok := ParseSegmentName(name); ok && SegmentName(seq, index) != name {
			t.Errorf("%q became %q", name, SegmentName(seq, index))
		}
	})
}

// names makes a folder with these segments, and files that are none.
func names(segments ...string) fstest.MapFS {
	fsys := fstest.MapFS{"0.tmp": {}, "1.tmp": {}, "0000000000000009-0000000000000009.wal.broken": {}, "0000000000000008-0000000000000009.wal.tmp": {}, "lost+found": {Mode: fs.ModeDir}}
	for _, name := range segments {
		fsys[name] = &fstest.MapFile{Data: []byte(name)}
	}
	return fsys
}

func TestSegments(t *testing.T) {
	fsys := names(SegmentName(3, 70), SegmentName(2, 9), SegmentName(4, 70))
	segments, err := Segments(fsys)
	must(t, err)
	if len(segments) != 3 || segments[0].Index != 9 || segments[2].Seq != 4 || segments[0].Size != 37 {
		t.Errorf("segments %+v", segments)
	}
	fsys = names(SegmentName(2, 9), SegmentName(4, 70))
	var gap *GapError
	if segments, err = Segments(fsys); !errors.As(err, &gap) || gap.Before.Seq != 2 || gap.After.Seq != 4 || len(segments) != 2 {
		t.Errorf("gap: %v, segments %+v", err, segments)
	}
	if _, err := Segments(names(SegmentName(2, 9), SegmentName(2, 10))); !errors.As(err, &gap) {
		t.Errorf("same sequence number twice: %v", err)
	}
}

func TestOpenLogStartsAtIndex(t *testing.T) {
	fsys := names(SegmentName(1, 5), SegmentName(3, 10), SegmentName(4, 20))
	tests := []struct {
		index uint64
		first uint64 // sequence number, 0 for an error
		err   error
	}{
		{10, 3, nil}, {19, 3, nil}, {20, 4, nil}, {1000, 4, nil}, {4, 0, ErrPurged}, {5, 0, nil}, {0, 0, nil},
	}
	for _, test := range tests {
		l, err := OpenLog(fsys, LogOptions{FromIndex: test.index})
		if test.first == 0 {
			var gap *GapError
			if test.err == nil && !errors.As(err, &gap) || test.err != nil && !errors.Is(err, test.err) {
				t.Errorf("index %d: %v", test.index, err)
			}
			continue
		}
		if err != nil || l.Segment().Seq != test.first {
			t.Errorf("index %d: segment %+v (%v)", test.index, l, err)
		}
	}
	if _, err := OpenLog(names(), LogOptions{}); !errors.Is(err, ErrNoSegment) {
		t.Errorf("no segments: %v", err)
	}
}

// purging loses its first segments while they are opened.
type purging struct{ fstest.MapFS }

func (p purging) Open(name string) (fs.File, error) {
	if name == SegmentName(0, 0) {
		delete(p.MapFS, name)
	}
	return p.MapFS.Open(name)
}

func TestOpenLogSurvivesPurge(t *testing.T) {
	l, err := OpenLog(purging{names(SegmentName(0, 0), SegmentName(1, 10))}, LogOptions{})
	must(t, err)
	if l.Segment().Seq != 1 {
		t.Errorf("opened at %+v", l.Segment())
	}
}

// TestLogAdoptsPurgedStart reads a log whose first segments are gone.
func TestLogAdoptsPurgedStart(t *testing.T) {
	log := memory{}
	writeSaves(t, log, randomSaves(rand.New(rand.NewPCG(5, 5)), 100), LogWriterOptions{SegmentSize: 64 << 10})
	all, _ := readAll(t, log.fs(), LogOptions{})
	segments, err := Segments(log.fs())
	must(t, err)
	delete(log, segments[0].Name)
	delete(log, segments[1].Name)
	got, err := readAll(t, log.fs(), LogOptions{})
	if err != io.EOF {
		t.Fatal(err)
	}
	if !isPrefix(got, all[len(all)-len(got):]) {
		t.Error("the records left are not those of the whole log")
	}
}

func TestLogRefusesForeignSegment(t *testing.T) {
	mine, other := memory{}, memory{}
	writeSaves(t, mine, randomSaves(rand.New(rand.NewPCG(5, 5)), 100), LogWriterOptions{SegmentSize: 64 << 10})
	writeSaves(t, other, randomSaves(rand.New(rand.NewPCG(6, 6)), 100), LogWriterOptions{SegmentSize: 64 << 10})
	segments, err := Segments(mine.fs())
	must(t, err)
	theirs, err := Segments(other.fs())
	must(t, err)
	mine[segments[1].Name].Data = other[theirs[1].Name].Data
	_, err = readAll(t, mine.fs(), LogOptions{})
	var damage *CorruptError
	if !errors.As(err, &damage) || damage.Segment != segments[1].Name || damage.Offset != 0 {
		t.Errorf("ended with %v", err)
	}
}

func TestLogEnd(t *testing.T) {
	log := smallLog(t, FramingPadded)
	all, _ := readAll(t, log.fs(), LogOptions{})
	seq := uint64(0)
	for i, rec := range all {
		if rec.Offset == 0 && i > 0 {
			seq++
		}
		got, err := readAll(t, log.fs(), LogOptions{End: Position{seq, rec.Offset}})
		if i > 0 && (err != io.EOF || len(got) != i) {
			t.Errorf("end at record %d: %d records, then %v", i, len(got), err)
		}
	}
}
