package walcodec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// entryData is what the writers of these tests put into the entry of an index.
func entryData(index uint64) []byte {
	return bytes.Repeat([]byte{byte(index), byte(index >> 8), 1}, int(index*97%3000))
}

// TestLiveLog verifies and copies a log again and again while etcd's writer
// appends to it at full speed and cuts segments. Each copy must be a prefix.
func TestLiveLog(t *testing.T) {
	smallSegments(t, 256<<10)
	dir := filepath.Join(t.TempDir(), "wal")
	w, err := wal.Create(zap.NewNop(), dir, AppendMetadata(nil, Metadata{NodeID: 1, ClusterID: 2}))
	must(t, err)
	var done atomic.Bool
	var writer sync.WaitGroup
	writer.Go(func() {
		defer done.Store(true)
		writeMany(t, w, 2000)
	})
	defer writer.Wait()
	seen, copies := uint64(0), 0
	for ; !done.Load(); copies++ {
		last := copyLive(t, dir)
		if last < seen {
			t.Errorf("a copy ends at %d, one before it at %d", last, seen)
		}
		seen = last
	}
	if last := copyLive(t, dir); last != 2000 {
		t.Errorf("the copy after the last write ends at %d", last)
	}
	must(t, w.Close())
	t.Logf("%d copies on the way", copies)
}

// writeMany saves that many entries, up to five at a time.
func writeMany(t *testing.T, w *wal.WAL, n uint64) {
	term := uint64(1)
	for index := uint64(0); index < n; {
		commit := index
		var entries []*raftpb.Entry
		for range min(1+index%5, n-index) {
			index++
			entries = append(entries, &raftpb.Entry{Term: &term, Index: new(index), Data: entryData(index)})
		}
		if err := w.Save(&raftpb.HardState{Term: &term, Vote: &term, Commit: &commit}, entries); err != nil {
			t.Error(err)
			return
		}
	}
}

// copyLive copies a log that grows and returns its last index.
func copyLive(t *testing.T, dir string) uint64 {
	t.Helper()
	l, err := OpenLog(os.DirFS(dir), LogOptions{})
	must(t, err)
	defer l.Close()
	r, err := l.Verify(context.Background(), VerifyOptions{})
	must(t, err)
	if err := r.Err(); err != nil && !errors.Is(err, ErrTorn) {
		t.Fatal(err)
	}
	to := memory{}
	w, err := NewLogWriter(to, *r.Metadata, LogWriterOptions{})
	must(t, err)
	res, err := Rewrite(w, l, RewriteOptions{})
	must(t, err)
	must(t, w.Close())
	if res.End != r.End || res.LastIndex != r.LastIndex {
		t.Fatalf("verified to %+v, copied to %+v", r.End, res.End)
	}
	next := uint64(1)
	walkEntries(t, to, func(_ Position, e Entry) {
		if e.Index != next || !bytes.Equal(e.Data, entryData(next)) {
			t.Fatalf("entry %d where %d was written", e.Index, next)
		}
		next++
	})
	return r.LastIndex
}

// growing is a file whose end changes once it has been read there.
type growing struct {
	*bytes.Reader
	later []byte
}

func (g *growing) Read(p []byte) (int, error) { return g.Reader.Read(p) }

// ReadAt shows what the file holds after the first reading.
func (g *growing) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(g.later).ReadAt(p, off)
}

// TestLookAgain catches a writer at work: the record was half copied, or not
// there at all, when it was read first.
func TestLookAgain(t *testing.T) {
	log := smallLog(t, FramingPadded)
	whole := log[log.last(t)].Data
	want, err := readAll(t, log.fs(), LogOptions{})
	if err != io.EOF {
		t.Fatal(err)
	}
	last := want[len(want)-1]
	tests := map[string]func(b []byte){
		"half copied": func(b []byte) { clear(b[last.Offset+last.Len/2:]) },
		"zeros, and records beyond the next read": func(b []byte) {
			clear(b[want[len(want)-2].Offset:want[len(want)-2].End()])
		},
		"length word only": func(b []byte) { clear(b[last.Offset+8:]) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now := bytes.Clone(whole)
				change(now)
				r := NewReader(&growing{Reader: bytes.NewReader(now), later: whole}, ReaderOptions{Last: true})
				for err = nil; err == nil; {
					_, err = r.Next()
				}
				if err != io.EOF || r.Offset() != last.End() {
					t.Errorf("ended at %d of %d with %v", r.Offset(), last.End(), err)
				}
			})
		})
	}
}

// changing shows other bytes of one stretch each time.
type changing struct {
	*bytes.Reader
	data []byte
	from int64
}

func (c *changing) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Reader.ReadAt(p, off)
	if len(p) > 1 {
		c.data[c.from]++
	}
	return n, err
}

// TestWriterAtWorkIsTorn has a record that changes with each look and is never
// whole.
func TestWriterAtWorkIsTorn(t *testing.T) {
	log := smallLog(t, FramingPadded)
	want, _ := readAll(t, log.fs(), LogOptions{})
	last := want[len(want)-1]
	data := log[log.last(t)].Data
	data[last.End()-20]++
	synctest.Test(t, func(t *testing.T) {
		r := NewReader(&changing{bytes.NewReader(data), data, last.End() - 24}, ReaderOptions{Last: true})
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, ErrTorn) || r.Offset() != last.Offset {
			t.Errorf("ended at %d with %v", r.Offset(), err)
		}
	})
}

// TestReadErrorIsNotDamage has a disk that fails.
func TestReadErrorIsNotDamage(t *testing.T) {
	log := smallLog(t, FramingPadded)
	failed := errors.New("input/output error")
	for n := range len(log[log.last(t)].Data) {
		r := NewReader(io.MultiReader(bytes.NewReader(log[log.last(t)].Data[:n]), failing{failed}), ReaderOptions{Last: true})
		var err error
		for err == nil {
			_, err = r.Next()
		}
		var damage *CorruptError
		if !errors.Is(err, failed) || errors.Is(err, ErrTorn) || errors.As(err, &damage) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestVerifyStops cancels, and meets a file that cannot be opened.
func TestVerifyStops(t *testing.T) {
	log := memory{}
	var saves []save
	for i := range uint64(2 * cancelEvery) {
		saves = append(saves, save{entries: []Entry{{Term: 1, Index: i + 1}}})
	}
	writeSaves(t, log, saves, LogWriterOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Verify(ctx, log.fs(), VerifyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Verify(context.Background(), denied{log.fs()}, VerifyOptions{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("not readable: %v", err)
	}
}

type denied struct{ fstest.MapFS }

func (d denied) Open(name string) (fs.File, error) {
	if name == "." {
		return d.MapFS.Open(name)
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}
