package walcodec

import (
	"context"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

// benchLog writes a log of entries of about 1.1 kB, as of a busy v3 member.
func benchLog(b *testing.B, size int64) (string, int64) {
	b.Helper()
	dir := b.TempDir()
	w, err := NewLogWriter(folder(dir), Metadata{NodeID: 1, ClusterID: 2}, LogWriterOptions{})
	must(b, err)
	must(b, w.WriteSnapshot(Snapshot{}))
	data := make([]byte, 1100)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	for index := uint64(1); w.Size() < size; index++ {
		must(b, w.WriteEntry(Entry{Term: 2, Index: index, Data: data[rnd.IntN(200):]}))
		must(b, w.WriteHardState(HardState{2, 1, index - 1}))
	}
	must(b, w.Close())
	return dir, w.Size()
}

// BenchmarkVerify compares Verify on one core and on all to the least that any
// check must do: read the bytes and checksum them.
func BenchmarkVerify(b *testing.B) {
	dir, size := benchLog(b, 256<<20)
	for name, cores := range map[string]int{"one": 1, "all": 0} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				r, err := Verify(context.Background(), os.DirFS(dir), VerifyOptions{Parallel: cores})
				must(b, err)
				must(b, r.Err())
			}
		})
	}
	b.Run("limit", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			readAndChecksum(b, dir)
		}
	})
}

func readAndChecksum(b *testing.B, dir string) {
	b.Helper()
	segments, err := Segments(os.DirFS(dir))
	must(b, err)
	buf := make([]byte, bufferSize)
	for _, s := range segments {
		f, err := os.DirFS(dir).Open(s.Name)
		must(b, err)
		crc := uint32(0)
		for err == nil {
			var n int
			n, err = f.Read(buf)
			crc = crc32.Update(crc, castagnoli, buf[:n])
		}
		if err != io.EOF {
			b.Fatal(err)
		}
		must(b, f.Close())
	}
}

// BenchmarkRewrite copies a log with new ids to nowhere.
func BenchmarkRewrite(b *testing.B) {
	dir, size := benchLog(b, 256<<20)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		l, err := OpenLog(os.DirFS(dir), LogOptions{})
		must(b, err)
		w, err := NewLogWriter(discard{}, Metadata{NodeID: 3, ClusterID: 4}, LogWriterOptions{})
		must(b, err)
		_, err = Rewrite(w, l, RewriteOptions{})
		must(b, err)
		must(b, w.Close())
		must(b, l.Close())
	}
}

// discard creates segments that keep nothing.
type discard struct{}

func (discard) CreateSegment(string) (io.WriteCloser, error) { return discard{}, nil }
func (discard) Write(p []byte) (int, error)                  { return len(p), nil }
func (discard) Close() error                                 { return nil }
