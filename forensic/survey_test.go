package forensic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// threeSegments is a log of entries 1 to 9, three to a segment.
func threeSegments(t testing.TB) *builder {
	b := newBuilder(t, walcodec.WriterOptions{})
	for i := uint64(1); i <= 9; i++ {
		if i == 4 || i == 7 {
			b.segment(i)
		}
		b.put(2, i, fmt.Sprint("/k", i), strings.Repeat("value ", 20))
		b.state(walcodec.HardState{Term: 2, Vote: 1, Commit: i})
	}
	return b
}

func (b *builder) segmentPath(seq, index uint64) string {
	return filepath.Join(b.dir, walcodec.SegmentName(seq, index))
}

// putIndexes lists the put entries that a dump past damage has, and the damage
// in its place.
func putIndexes(t *testing.T, l *Log, s *Survey) string {
	t.Helper()
	var got []string
	for _, r := range checkJSONLines(t, dumped(t, l, s, DumpOptions{Format: FormatJSON, SkipDamage: true})) {
		switch {
		case r["kind"] == "damage":
			got = append(got, r["damage"].(string))
		case r["type"] == "put":
			got = append(got, fmt.Sprint(r["index"]))
		}
	}
	return strings.Join(got, " ")
}

func TestDamage(t *testing.T) {
	second, third := walcodec.SegmentName(1, 4), walcodec.SegmentName(2, 7)
	tests := []struct {
		name    string
		damage  func(t *testing.T, b *builder)
		verdict string
		told    []string // of each damage, a part
		torn    string   // a part of what is told of the tail
		past    string   // what a dump past damage shows
		upTo    string   // the last entry that a dump shows without, if it stops
	}{
		{
			name:    "none",
			damage:  func(*testing.T, *builder) {},
			verdict: VerdictClean,
			past:    "1 2 3 4 5 6 7 8 9",
		},
		{
			name:    "a changed bit in the middle",
			damage:  func(t *testing.T, b *builder) { overwriteByte(t, b.segmentPath(1, 4), b.offsets[5]+60, 0x10) },
			verdict: VerdictDamaged,
			told:    []string{"segment " + second + ": offset 280: entry record: checksum", "(200 bytes unreadable, up to offset 480); entry 5 is lost"},
			past:    "1 2 3 4 corrupt 6 7 8 9",
			upTo:    "4",
		},
		{
			name: "two entries of one segment",
			damage: func(t *testing.T, b *builder) {
				overwriteByte(t, b.segmentPath(0, 0), b.offsets[1]+60, 1)
				overwriteByte(t, b.segmentPath(0, 0), b.offsets[3]+60, 1)
			},
			verdict: VerdictDamaged,
			told:    []string{"offset 80", "entry 3 is lost"},
			past:    "corrupt 2 corrupt 4 5 6 7 8 9",
			upTo:    "",
		},
		{
			name: "the last entry cut short",
			damage: func(t *testing.T, b *builder) {
				if err := os.Truncate(b.segmentPath(2, 7), b.offsets[9]+100); err != nil {
					t.Fatal(err)
				}
			},
			verdict: VerdictTorn,
			torn:    "segment " + third + ": offset 504: torn write: ",
			past:    "1 2 3 4 5 6 7 8",
		},
		{
			name: "the end of a segment in the middle cut off",
			damage: func(t *testing.T, b *builder) {
				if err := os.Truncate(b.segmentPath(1, 4), b.offsets[6]+100); err != nil {
					t.Fatal(err)
				}
			},
			verdict: VerdictDamaged,
			told:    []string{"segment " + second + ": offset 504", "entry 6 is lost"},
			past:    "1 2 3 4 5 corrupt 7 8 9",
			upTo:    "5",
		},
		{
			name: "a segment missing",
			damage: func(t *testing.T, b *builder) {
				if err := os.Remove(b.segmentPath(1, 4)); err != nil {
					t.Fatal(err)
				}
			},
			verdict: VerdictDamaged,
			told:    []string{"segment " + third + ": offset 0: 1 segment is missing before it, after " + walcodec.SegmentName(0, 0) + "; entries 4 to 6 are lost"},
			past:    "1 2 3 missing 7 8 9",
			upTo:    "3",
		},
		{
			name: "a segment of another log",
			damage: func(t *testing.T, b *builder) {
				other := newBuilder(t, walcodec.WriterOptions{CRC: 0x1234})
				other.seq = 1
				other.segment(4)
				for i := uint64(4); i <= 6; i++ {
					other.put(2, i, "/other", "log")
				}
				writeFile(t, b.segmentPath(1, 4), readFile(t, other.path()))
			},
			verdict: VerdictDamaged,
			told:    []string{"segment " + second + ": offset 0: starts with checksum", "segment " + third + ": offset 0: starts with checksum"},
			past:    "1 2 3 chain 4 5 6 chain 7 8 9",
			upTo:    "3",
		},
		{
			name:    "an entry skipped by its writer",
			damage:  func(_ *testing.T, b *builder) { b.put(2, 12, "/k12", "") },
			verdict: VerdictDamaged,
			told:    []string{"segment " + third + ": offset 728: entry 12 follows entry 9; entries 10 to 11 are lost"},
			past:    "1 2 3 4 5 6 7 8 9 gap 12",
			upTo:    "9",
		},
		{
			name: "a snapshot of the leader bridges a gap",
			damage: func(_ *testing.T, b *builder) {
				b.snapshot(walcodec.Snapshot{Index: 11, Term: 2})
				b.put(2, 12, "/k12", "")
			},
			verdict: VerdictClean,
			past:    "1 2 3 4 5 6 7 8 9 12",
		},
		{
			name:    "commit beyond the end",
			damage:  func(_ *testing.T, b *builder) { b.state(walcodec.HardState{Term: 2, Commit: 14}) },
			verdict: VerdictDamaged,
			told:    []string{"the log ends at index 9, its commit index is 14; entries 10 to 14 are lost"},
			past:    "1 2 3 4 5 6 7 8 9 commit",
		},
		{
			name:    "a first segment of zeros",
			damage:  func(t *testing.T, b *builder) { writeFile(t, b.segmentPath(0, 0), make([]byte, 4096)) },
			verdict: VerdictDamaged,
			told:    []string{"segment " + walcodec.SegmentName(0, 0) + ": offset 0: "},
			past:    "corrupt 4 5 6 7 8 9",
			upTo:    "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := threeSegments(t)
			tt.damage(t, b)
			l, s := b.open()
			if s.Verdict() != tt.verdict {
				t.Errorf("verdict %s, want %s", s.Verdict(), tt.verdict)
			}
			told := ""
			for _, d := range s.Damage {
				told += d.Error() + "\n"
			}
			for _, part := range tt.told {
				if !strings.Contains(told, part) {
					t.Errorf("told:\n%swant %q", told, part)
				}
			}
			if (len(tt.told) == 0) != (told == "") {
				t.Errorf("told: %s", told)
			}
			if (s.Torn == nil) != (tt.torn == "") || s.Torn != nil && !strings.Contains(s.Torn.Error(), tt.torn) {
				t.Errorf("torn: %v, want %q", s.Torn, tt.torn)
			}
			if got := putIndexes(t, l, s); got != tt.past {
				t.Errorf("past damage: %s, want %s", got, tt.past)
			}
			checkStop(t, l, s, tt.upTo)
		})
	}
}

// checkStop dumps without going past damage.
func checkStop(t *testing.T, l *Log, s *Survey, upTo string) {
	t.Helper()
	out, err := dump(t, l, s, DumpOptions{Format: FormatJSON, Types: []string{"put"}})
	var first *Damage
	for _, d := range s.Damage {
		if d.stops() {
			first = d
			break
		}
	}
	if first == nil {
		if err != nil {
			t.Errorf("stopped: %v", err)
		}
		return
	}
	var damage *Damage
	if !errors.As(err, &damage) || damage != first {
		t.Errorf("stopped with %v, want %v", err, first)
	}
	last := ""
	for _, r := range checkJSONLines(t, out) {
		last = fmt.Sprint(r["index"])
	}
	if last != upTo {
		t.Errorf("stopped after %q, want %q", last, upTo)
	}
}

// TestEveryCut: whatever the length of the last segment, a dump tells of every
// entry before the cut and of none after.
func TestEveryCut(t *testing.T) {
	b := threeSegments(t)
	whole := readFile(t, b.path())
	for size := 0; size < len(whole); size += 7 {
		writeFile(t, b.path(), whole[:size])
		l, s := b.open()
		want := "1 2 3 4 5 6"
		for i := uint64(7); i <= 9; i++ {
			if b.offsets[i]+200 <= int64(size) {
				want += fmt.Sprint(" ", i)
			}
		}
		if got := putIndexes(t, l, s); got != want {
			t.Fatalf("cut to %d: %s, want %s", size, got, want)
		}
		l.Close()
	}
}

func TestOpenLog(t *testing.T) {
	data := fixture.DataDir(t, "3.4.23-mixed")
	wal := filepath.Join(data, "member", "wal")
	segment := filepath.Join(wal, walcodec.SegmentName(0, 0))
	moved := t.TempDir()
	if err := os.Rename(segment, filepath.Join(moved, "torn.wal")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(moved, "torn.wal"), segment); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, walDir string
		layout             datadir.Layout
		others             int
	}{
		{"data dir", data, "", datadir.LayoutMember, 1},
		{"member folder", filepath.Join(data, "member"), "", datadir.LayoutFlat, 1},
		{"WAL folder", wal, "", datadir.LayoutWAL, 1},
		{"wal-dir alone", "", wal, datadir.LayoutWAL, 1},
		{"wal-dir of a data dir", data, wal, datadir.LayoutMember, 1},
		{"segment", segment, "", datadir.LayoutSegment, 0},
		{"segment of another name", filepath.Join(moved, "torn.wal"), "", datadir.LayoutSegment, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := OpenLog(tt.path, tt.walDir)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			s, err := l.Survey(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if l.Files.Layout != tt.layout || len(l.Others) != tt.others || s.LastIndex != 534 || s.Verdict() != VerdictClean {
				t.Errorf("%s, others %v, last index %d, %s", l.Files.Layout, l.Others, s.LastIndex, s.Verdict())
			}
		})
	}
}

func TestOpenLogRefuses(t *testing.T) {
	empty := t.TempDir()
	text := filepath.Join(t.TempDir(), "notes.txt")
	writeFile(t, text, []byte("no segment at all, just words"))
	zeros := filepath.Join(filepath.Dir(text), "zeros")
	writeFile(t, zeros, make([]byte, 8192))
	snapOnly := t.TempDir()
	writeFile(t, filepath.Join(snapOnly, "db"), []byte("x"))
	oddNames := t.TempDir()
	writeFile(t, filepath.Join(oddNames, "1.wal"), []byte("x"))
	tests := []struct {
		name, path, want string
		is               error
	}{
		{"nothing there", filepath.Join(empty, "nope"), "no such file", fs.ErrNotExist},
		{"empty folder", empty, "the folder is empty", datadir.ErrNotEtcd},
		{"folder of something else", filepath.Dir(text), "notes.txt", datadir.ErrNotEtcd},
		{"a snap folder", snapOnly, "snap dir without segments", ErrNoLog},
		{"no segment names", oddNames, "no file in it is named as a segment", ErrNoLog},
		{"a text file", text, "is not a WAL segment: ", nil},
		{"zeros", zeros, "is not a WAL segment: it holds no record", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := OpenLog(tt.path, "")
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestLoneSegment: a segment from the middle of a log is taken as that, with
// others beside it and without.
func TestLoneSegment(t *testing.T) {
	b := threeSegments(t)
	if err := os.Truncate(b.segmentPath(1, 4), b.offsets[6]+100); err != nil {
		t.Fatal(err)
	}
	l, s := openLog(t, b.segmentPath(1, 4))
	if s.FirstIndex != 4 || s.Verdict() != VerdictDamaged {
		t.Errorf("beside others: first %d, %s", s.FirstIndex, s.Verdict())
	}
	if got := putIndexes(t, l, s); got != "4 5 corrupt" {
		t.Errorf("beside others: %s", got)
	}
	alone := filepath.Join(t.TempDir(), "alone.wal")
	writeFile(t, alone, readFile(t, b.segmentPath(1, 4)))
	l, s = openLog(t, alone)
	if s.Verdict() != VerdictTorn || s.Torn.Segment != "alone.wal" {
		t.Errorf("alone: %s, %v", s.Verdict(), s.Torn)
	}
	if got := putIndexes(t, l, s); got != "4 5" {
		t.Errorf("alone: %s", got)
	}
}

// TestGrowingLog reads a log while it is written: always a prefix, never
// damage.
func TestGrowingLog(t *testing.T) {
	b := newBuilder(t, walcodec.WriterOptions{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := uint64(1); i <= 3000; i++ {
			if i%500 == 0 {
				b.segment(i)
			}
			b.put(1, i, "/k", strings.Repeat("x", 500))
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		l, s := b.open()
		if s.Verdict() == VerdictDamaged {
			t.Fatalf("damage in a sound log: %v", s.Damage[0])
		}
		out := dumped(t, l, s, DumpOptions{Format: FormatJSON, Types: []string{"put"}})
		if n := strings.Count(out, "\n"); n != int(s.LastIndex) {
			t.Fatalf("%d lines, last index %d", n, s.LastIndex)
		}
		l.Close()
	}
}

// TestNothingIsTouched: a source keeps its bytes and times.
func TestNothingIsTouched(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	before := fingerprint(t, dir)
	l, s := openLog(t, dir)
	dumped(t, l, s, DumpOptions{})
	if _, err := l.Facts(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := ListSnaps(context.Background(), dir, ""); err != nil {
		t.Fatal(err)
	}
	if after := fingerprint(t, dir); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, info.Size(), info.Mode(), info.ModTime())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
