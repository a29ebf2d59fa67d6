package walcodec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
	"testing/synctest"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// smallLog is two short segments of every kind of record; the last one ends
// with preallocated zeros if it is padded.
func smallLog(t testing.TB, framing Framing) memory {
	t.Helper()
	yes := true
	put := AppendRequest(nil, Request{ID: 5, Method: "PUT", Path: "/1/a", Val: "x", PrevExist: &yes, Time: 1})
	change := AppendConfChange(nil, ConfChange{ID: 1, NodeID: 2, Context: []byte(`{"id":2}`)})
	log := memory{}
	writeSaves(t, log, []save{
		{entries: []Entry{{EntryConfChange, 1, 1, change}}, state: &HardState{1, 0, 1}},
		{entries: []Entry{{EntryNormal, 2, 2, nil}, {EntryNormal, 2, 3, put}}, state: &HardState{2, 2, 2}},
		{snapshot: &Snapshot{2, 2, &ConfState{Voters: []uint64{2}}}},
		{entries: []Entry{{EntryNormal, 3, 3, put}}, state: &HardState{3, 2, 3}},
		{entries: []Entry{{EntryNormal, 3, 4, bytes.Repeat([]byte("v"), 150)}}, state: &HardState{3, 2, 4}},
		{entries: []Entry{{EntryNormal, 3, 5, put}}},
	}, LogWriterOptions{Framing: framing, SegmentSize: 300})
	if len(log) < 2 {
		t.Fatalf("%d segments, want several", len(log))
	}
	if framing == FramingPadded {
		tail := log[log.last(t)]
		tail.Data = append(tail.Data, make([]byte, 600)...)
	}
	return log
}

// streams hides everything but Read of the files of a folder.
type streams struct{ fs.FS }

type stream struct{ f fs.File }

func (s stream) Read(p []byte) (int, error) { return s.f.Read(p) }
func (s stream) Stat() (fs.FileInfo, error) { return s.f.Stat() }
func (s stream) Close() error               { return s.f.Close() }

func (s streams) Open(name string) (fs.File, error) {
	f, err := s.FS.Open(name)
	if err != nil || name == "." {
		return f, err
	}
	return stream{f}, nil
}

func (s streams) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(s.FS, name) }

// isPrefix tells whether got are the first records of want.
func isPrefix(got, want []Record) bool {
	if len(got) > len(want) {
		return false
	}
	for i, g := range got {
		w := want[i]
		if g.Kind != w.Kind || g.CRC != w.CRC || g.Offset != w.Offset || g.Len != w.Len || !bytes.Equal(g.Data, w.Data) {
			return false
		}
	}
	return true
}

// TestEveryBitFlip changes each bit of a small log in turn. What the checksum
// does not cover, kinds and framing, must be caught by form and plausibility.
func TestEveryBitFlip(t *testing.T) {
	logs := map[string]memory{
		"padded":      smallLog(t, FramingPadded),
		"plain":       smallLog(t, FramingPlain),
		"of etcd 3.7": oracleLog(t),
	}
	for name, log := range logs {
		want, err := readAll(t, log.fs(), LogOptions{})
		if err != io.EOF {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { flipAll(t, log, want) })
		})
	}
}

func flipAll(t *testing.T, log memory, want []Record) {
	last := log.last(t)
	for name, f := range log {
		end := len(bytes.TrimRight(f.Data, "\x00"))
		for bit := range 8 * len(f.Data) {
			f.Data[bit/8] ^= 1 << (bit % 8)
			var fsys fs.FS = log.fs()
			if bit%3 == 0 {
				fsys = streams{fsys}
			}
			got, err := readAll(t, fsys, LogOptions{})
			where := fmt.Sprintf("%s: bit %d of byte %d", name, bit%8, bit/8)
			if !isPrefix(got, want) {
				t.Errorf("%s: a record that was never written came back", where)
			}
			checkFlip(t, where, err, name == last && bit/8 >= end)
			f.Data[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// checkFlip wants damage to be called so. In the zeros behind the last record
// a torn write is a right answer too.
func checkFlip(t *testing.T, where string, err error, inZeros bool) {
	var damage *CorruptError
	if errors.As(err, &damage) || inZeros && errors.Is(err, ErrTorn) {
		return
	}
	t.Errorf("%s: ended with %v", where, err)
}

// oracleLog is a small log by etcd's own writer, which leaves out unset fields.
func oracleLog(t *testing.T) memory {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "wal")
	smallSegments(t, 300)
	conf := &ConfState{Voters: []uint64{1}}
	oracleWrite(t, dir, []save{
		{entries: []Entry{{EntryNormal, 1, 1, []byte("data")}}, state: &HardState{Term: 1, Commit: 1}},
		{snapshot: &Snapshot{1, 1, conf}},
		{entries: []Entry{{EntryNormal, 2, 2, nil}}, state: &HardState{2, 1, 2}},
		{entries: []Entry{{EntryNormal, 2, 3, bytes.Repeat([]byte("v"), 200)}}, state: &HardState{2, 1, 3}},
		{entries: []Entry{{EntryNormal, 2, 4, []byte("data")}}, state: &HardState{2, 1, 3}},
	})
	log := memory{}
	segments, err := Segments(os.DirFS(dir))
	must(t, err)
	for _, s := range segments {
		data, err := os.ReadFile(filepath.Join(dir, s.Name))
		must(t, err)
		log[s.Name] = &fstest.MapFile{Data: data}
	}
	return log
}

// TestBitFlipsInFixtures changes bits of real logs, some hundred each.
func TestBitFlipsInFixtures(t *testing.T) {
	rnd := rand.New(rand.NewPCG(21, 21))
	for _, name := range fixture.Names() {
		dir := walDir(t, name)
		r, err := Verify(context.Background(), os.DirFS(dir), VerifyOptions{})
		must(t, err)
		data, err := os.ReadFile(filepath.Join(dir, SegmentName(0, 0)))
		must(t, err)
		data = data[:r.Used]
		log := memory{SegmentName(0, 0): &fstest.MapFile{Data: data}}
		want, _ := readAll(t, log.fs(), LogOptions{})
		synctest.Test(t, func(t *testing.T) {
			for range 300 {
				bit := rnd.IntN(8 * len(data))
				data[bit/8] ^= 1 << (bit % 8)
				got, err := readAll(t, log.fs(), LogOptions{})
				var damage *CorruptError
				if !errors.As(err, &damage) || !isPrefix(got, want) {
					t.Errorf("%s: bit %d of byte %d: %d records, then %v", name, bit%8, bit/8, len(got), err)
				}
				data[bit/8] ^= 1 << (bit % 8)
			}
		})
	}
}

// TestUndetectable proves the classes of docs/formats/wal.md that the format
// itself cannot tell.
func TestUndetectable(t *testing.T) {
	t.Run("checksum that a purged log opens with, and no record after it", func(t *testing.T) {
		log := memory{SegmentName(1, 9): &fstest.MapFile{Data: []byte{8, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x04, 0x10, 0x81, 0x82, 0x83, 0x84, 0x05}}}
		log[SegmentName(1, 9)].Data[12] ^= 1
		if got, err := readAll(t, log.fs(), LogOptions{}); err != io.EOF || len(got) != 1 {
			t.Errorf("%d records, then %v", len(got), err)
		}
	})
	t.Run("damage to a last record with an all-zero sector is told as torn", func(t *testing.T) {
		log := memory{}
		writeSaves(t, log, []save{{entries: []Entry{{EntryNormal, 1, 1, make([]byte, 3*sectorSize)}}}}, LogWriterOptions{})
		f := log[log.last(t)]
		f.Data[len(f.Data)-20] ^= 1
		if _, err := readAll(t, log.fs(), LogOptions{}); !errors.Is(err, ErrTorn) {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("a changed bit in the zeros is told as torn, and no record is lost", func(t *testing.T) {
		log := smallLog(t, FramingPadded)
		want, _ := readAll(t, log.fs(), LogOptions{})
		data := log[log.last(t)].Data
		data[len(data)-1] ^= 1
		if got, err := readAll(t, log.fs(), LogOptions{}); !errors.Is(err, ErrTorn) || len(got) != len(want) {
			t.Errorf("%d of %d records, then %v", len(got), len(want), err)
		}
	})
	t.Run("a log cut, or zeroed, from the end of a record on", func(t *testing.T) {
		log := smallLog(t, FramingPadded)
		want, _ := readAll(t, log.fs(), LogOptions{})
		clear(log[log.last(t)].Data[want[len(want)-2].End():])
		if got, err := readAll(t, log.fs(), LogOptions{}); err != io.EOF || len(got) != len(want)-1 {
			t.Errorf("%d records, then %v", len(got), err)
		}
	})
}

// TestEveryTruncation cuts the last segment at each offset.
func TestEveryTruncation(t *testing.T) {
	for _, framing := range []Framing{FramingPadded, FramingPlain} {
		log := smallLog(t, framing)
		want, _ := readAll(t, log.fs(), LogOptions{})
		whole := log[log.last(t)].Data
		ends := map[int]bool{}
		for i, rec := range want {
			if rec.Offset == 0 && i > 0 {
				clear(ends)
			}
			ends[int(rec.End())] = true
		}
		synctest.Test(t, func(t *testing.T) {
			for n := range whole {
				log[log.last(t)].Data = whole[:n]
				got, err := readAll(t, log.fs(), LogOptions{})
				checkCut(t, n, err, isPrefix(got, want), ends[n] || n >= int(want[len(want)-1].End()))
			}
		})
	}
}

func checkCut(t *testing.T, n int, err error, prefix, clean bool) {
	t.Helper()
	if !prefix {
		t.Errorf("cut at %d: a record that was never written came back", n)
	}
	if clean && err == io.EOF || !clean && errors.Is(err, ErrTorn) {
		return
	}
	t.Errorf("cut at %d: ended with %v", n, err)
}

// TestCutInTheMiddleIsCorrupt truncates a segment that another one follows.
func TestCutInTheMiddleIsCorrupt(t *testing.T) {
	log := smallLog(t, FramingPadded)
	segments, err := Segments(log.fs())
	must(t, err)
	first := log[segments[0].Name]
	for whole := first.Data; len(first.Data) > 0; {
		first.Data = whole[:len(first.Data)-1]
		var damage *CorruptError
		if _, err := readAll(t, log.fs(), LogOptions{}); !errors.As(err, &damage) {
			t.Fatalf("cut at %d: ended with %v", len(first.Data), err)
		}
	}
}

// TestDamageInTheTail pins the three endings for what can be wrong with the
// end of a last segment.
func TestDamageInTheTail(t *testing.T) {
	big := bytes.Repeat([]byte{0xaa}, 3*sectorSize)
	base := []save{{entries: []Entry{{EntryNormal, 1, 1, []byte("a")}}, state: &HardState{1, 1, 1}}}
	entry := func(index uint64) save { return save{entries: []Entry{{EntryNormal, 1, index, big}}} }
	state := func(commit uint64) save { return save{state: &HardState{1, 1, commit}} }
	// hole zeroes the whole sectors of the entry of index 2, all but its first ones.
	hole := func(b []byte, rec Record) {
		from := (rec.Offset/sectorSize + 2) * sectorSize
		clear(b[from : from+sectorSize])
	}
	never := func(b []byte, rec Record) { clear(b[rec.Offset : (rec.Offset/sectorSize+1)*sectorSize]) }
	tests := []struct {
		name   string
		after  []save // follows the entry of index 2
		damage func(b []byte, rec Record)
		torn   bool
	}{
		{"unwritten sector in the last record", nil, hole, true},
		{"unwritten sector, rest of its save intact", []save{entry(3), state(2)}, hole, true},
		{"unwritten sector, a later save intact", []save{state(2), entry(3)}, hole, false},
		{"unwritten sector, a later snapshot record", []save{{snapshot: &Snapshot{1, 1, &ConfState{}}}}, hole, false},
		{"unwritten from the length word on", []save{entry(3), state(3)}, never, true},
		{"unwritten from the length word on, a later save intact", []save{state(2), entry(3), state(3), entry(4)}, never, false},
		{"zeroed length word", []save{state(2)}, func(b []byte, rec Record) { clear(b[rec.Offset : rec.Offset+8]) }, false},
		{"zeroed length word of the last record", nil, func(b []byte, rec Record) { clear(b[rec.Offset : rec.Offset+8]) }, false},
		{"length word too high", nil, func(b []byte, rec Record) { b[rec.Offset+2]++ }, false},
		{"length word beyond the file", []save{state(2)}, func(b []byte, rec Record) { b[rec.Offset+5]++ }, false},
		{"data changed", nil, func(b []byte, rec Record) { b[rec.End()-20]++ }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			log := memory{}
			writeSaves(t, log, append(append(base[:1:1], entry(2)), test.after...), LogWriterOptions{})
			f := log[log.last(t)]
			f.Data = append(f.Data, make([]byte, 8192)...)
			records, _ := readAll(t, log.fs(), LogOptions{})
			test.damage(f.Data, recordOf(t, records, 2))
			got, err := readAll(t, log.fs(), LogOptions{})
			if errors.Is(err, ErrTorn) != test.torn || err == io.EOF {
				t.Errorf("ended with %v, want torn %v", err, test.torn)
			}
			if !isPrefix(got, records) {
				t.Error("a record that was never written came back")
			}
		})
	}
}

// recordOf returns the record of the entry of an index.
func recordOf(t testing.TB, records []Record, index uint64) Record {
	t.Helper()
	for _, rec := range records {
		if e, err := ParseEntry(rec.Data); rec.Kind == KindEntry && err == nil && e.Index == index {
			return rec
		}
	}
	t.Fatalf("no entry %d", index)
	return Record{}
}

// TestResync damages one byte of a log at random and reads on: all records
// but the one hit, or at most the one after it too, come back.
func TestResync(t *testing.T) {
	log := memory{}
	rnd := rand.New(rand.NewPCG(7, 7))
	writeSaves(t, log, randomSaves(rnd, 200), LogWriterOptions{SegmentSize: 128 << 10})
	want, _ := readAll(t, log.fs(), LogOptions{})
	segments, err := Segments(log.fs())
	must(t, err)
	for range 300 {
		s := segments[rnd.IntN(len(segments))]
		hit := rnd.IntN(len(log[s.Name].Data))
		broken := log.clone()
		broken[s.Name].Data[hit] ^= byte(1 + rnd.IntN(255))
		got, skips := readOn(t, broken.fs())
		if len(skips) == 0 || skips[0].Segment != s.Name || skips[0].Offset > int64(hit) || skips[0].Offset+skips[0].Len < int64(hit) && skips[0].Len > 0 {
			t.Fatalf("byte %d of %s: skipped %+v", hit, s.Name, skips)
		}
		if missing := len(want) - len(got); missing < 0 || missing > 2 {
			t.Errorf("byte %d of %s: %d records missing after %+v", hit, s.Name, missing, skips)
		}
	}
}

func readOn(t testing.TB, fsys fstest.MapFS) (records []Record, skips []Skip) {
	t.Helper()
	l, err := OpenLog(fsys, LogOptions{})
	must(t, err)
	defer l.Close()
	for {
		rec, err := l.Next()
		switch {
		case err == io.EOF:
			return records, skips
		case err != nil:
			skip, err := l.Resync()
			must(t, err)
			skips = append(skips, skip)
		default:
			rec.Data = bytes.Clone(rec.Data)
			records = append(records, rec)
		}
	}
}

// TestRandomDamage zeroes, cuts and changes a log in several places. Up to the
// first error nothing false comes back; after Resync, nothing false that
// claims to be proven.
func TestRandomDamage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(12, 12))
	for _, framing := range []Framing{FramingPadded, FramingPlain} {
		log := memory{}
		writeSaves(t, log, randomSaves(rnd, 30), LogWriterOptions{Framing: framing, SegmentSize: 30 << 10})
		written := map[recordKey]bool{}
		for _, rec := range mustReadOn(t, log) {
			written[keyOf(rec)] = true
		}
		synctest.Test(t, func(t *testing.T) {
			for range 400 {
				broken := log.clone()
				for range 1 + rnd.IntN(4) {
					damageOnce(rnd, broken)
				}
				for _, rec := range mustReadOn(t, broken) {
					if !rec.Unproven && !written[keyOf(rec)] {
						t.Fatalf("record %v at offset %d was never written", rec.Kind, rec.Offset)
					}
				}
			}
		})
	}
}

// recordKey tells records apart.
type recordKey struct {
	kind        Kind
	crc, data   uint32
	offset, len int64
}

func keyOf(rec Record) recordKey {
	return recordKey{rec.Kind, rec.CRC, crc32.ChecksumIEEE(rec.Data), rec.Offset, rec.Len}
}

func mustReadOn(t *testing.T, log memory) []Record {
	t.Helper()
	records, _ := readOn(t, log.fs())
	return records
}

func damageOnce(rnd *rand.Rand, log memory) {
	names := slices.Sorted(maps.Keys(log))
	f := log[names[rnd.IntN(len(names))]]
	if len(f.Data) == 0 {
		return
	}
	at := rnd.IntN(len(f.Data))
	switch rnd.IntN(4) {
	case 0:
		f.Data = f.Data[:at]
	case 1:
		clear(f.Data[at:min(len(f.Data), at+rnd.IntN(3000))])
	default:
		f.Data[at] ^= byte(1 + rnd.IntN(255))
	}
}

// TestVerifyFindsEveryDamage damages several segments at once.
func TestVerifyFindsEveryDamage(t *testing.T) {
	log := memory{}
	writeSaves(t, log, randomSaves(rand.New(rand.NewPCG(8, 8)), 200), LogWriterOptions{SegmentSize: 128 << 10})
	segments, err := Segments(log.fs())
	must(t, err)
	for _, s := range segments[:3] {
		log[s.Name].Data[len(log[s.Name].Data)/2] ^= 1
	}
	r, err := Verify(context.Background(), log.fs(), VerifyOptions{})
	must(t, err)
	for i, s := range r.Segments {
		if damaged := len(s.Damage) > 0; damaged != (i < 3) {
			t.Errorf("segment %s: damage %+v", s.Name, s.Damage)
		}
	}
	var damage *CorruptError
	if !errors.As(r.Err(), &damage) || damage.Segment != segments[0].Name {
		t.Errorf("first damage is %v", r.Err())
	}
}
