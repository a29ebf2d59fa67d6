package forensic

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// testNow is when the tests run.
var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// builder writes a log into a folder.
type builder struct {
	t   testing.TB
	dir string
	w   *walcodec.Writer
	f   *os.File
	o   walcodec.WriterOptions
	seq uint64

	offsets map[uint64]int64 // of the last entry written with an index
}

func newBuilder(t testing.TB, o walcodec.WriterOptions) *builder {
	b := &builder{t: t, dir: t.TempDir(), o: o, offsets: map[uint64]int64{}}
	b.segment(0)
	b.snapshot(walcodec.Snapshot{})
	return b
}

// segment starts a segment whose first entry is to be index.
func (b *builder) segment(index uint64) {
	b.t.Helper()
	b.close()
	f, err := os.Create(filepath.Join(b.dir, walcodec.SegmentName(b.seq, index)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.seq++
	b.f, b.w = f, walcodec.NewWriter(f, b.o)
	b.write(walcodec.KindCRC, nil)
	b.write(walcodec.KindMetadata, walcodec.AppendMetadata(nil, walcodec.Metadata{NodeID: 0x8211f1d0f64f3269, ClusterID: 0xef37ad9dc622a7c4}))
}

func (b *builder) write(k walcodec.Kind, data []byte) {
	b.t.Helper()
	if err := b.w.Write(k, data); err != nil {
		b.t.Fatal(err)
	}
	b.o.CRC = b.w.CRC()
}

func (b *builder) close() {
	if b.f == nil {
		return
	}
	if err := b.f.Close(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) entry(e walcodec.Entry) {
	b.t.Helper()
	b.offsets[e.Index] = b.w.Size()
	b.write(walcodec.KindEntry, walcodec.AppendEntry(nil, e))
}

// v2 writes a v2 request.
func (b *builder) v2(term, index uint64, r walcodec.Request) {
	b.t.Helper()
	r.ID = 0x5aaba201caa9fa00 + index
	b.entry(walcodec.Entry{Term: term, Index: index, Data: walcodec.AppendRequest(nil, r)})
}

// put writes a v2 set of a key.
func (b *builder) put(term, index uint64, key, value string) {
	b.t.Helper()
	b.v2(term, index, walcodec.Request{Method: "PUT", Path: "/1" + key, Val: value})
}

func (b *builder) state(s walcodec.HardState) {
	b.t.Helper()
	b.write(walcodec.KindState, walcodec.AppendHardState(nil, s))
}

func (b *builder) snapshot(s walcodec.Snapshot) {
	b.t.Helper()
	b.write(walcodec.KindSnapshot, walcodec.AppendSnapshot(nil, s))
}

// path is the current segment's.
func (b *builder) path() string { return b.f.Name() }

// open opens the log and surveys it.
func (b *builder) open() (*Log, *Survey) {
	b.t.Helper()
	return openLog(b.t, b.dir)
}

func openLog(t testing.TB, path string) (*Log, *Survey) {
	t.Helper()
	l, err := OpenLog(path, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s, err := l.Survey(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return l, s
}

func dump(t testing.TB, l *Log, s *Survey, o DumpOptions) (string, error) {
	t.Helper()
	o.Now = testNow
	var out bytes.Buffer
	err := Dump(context.Background(), &out, l, s, o)
	return out.String(), err
}

// dumped is a dump that must not fail.
func dumped(t testing.TB, l *Log, s *Survey, o DumpOptions) string {
	t.Helper()
	out, err := dump(t, l, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// overwriteByte changes one byte of a file.
func overwriteByte(t testing.TB, path string, offset int64, change byte) {
	t.Helper()
	data := readFile(t, path)
	data[offset] ^= change
	writeFile(t, path, data)
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		writeFile(t, path, []byte(got))
	}
	if want := string(readFile(t, path)); got != want {
		t.Errorf("%s differs (rewrite it with -update):\n%s", path, firstDifference(want, got))
	}
}

func firstDifference(want, got string) string {
	w, g := strings.SplitAfter(want, "\n"), strings.SplitAfter(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return "want " + w[i] + "got  " + g[i]
		}
	}
	return "one is longer"
}

// wantLines compares all lines.
func wantLines(t *testing.T, got string, want ...string) {
	t.Helper()
	if text := strings.Join(want, "\n") + "\n"; got != text {
		t.Errorf("got:\n%swant:\n%s", got, text)
	}
}
