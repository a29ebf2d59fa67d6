package snapcodec

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"
)

// bigBackend writes a backend of n changes, a quarter of them compacted, and
// opens it as a file.
func bigBackend(t testing.TB, n int) (*DB, int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	bdb, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for from := 0; from < n; from += 10_000 {
		if err := bdb.Update(func(tx *bolt.Tx) error { return putChanges(tx, from, min(from+10_000, n)) }); err != nil {
			t.Fatal(err)
		}
	}
	err = bdb.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("meta"))
		if err != nil {
			return err
		}
		return b.Put([]byte("finishedCompactRev"), AppendRevision(nil, Revision{int64(n / 4), 0}))
	})
	if err != nil {
		t.Fatal(err)
	}
	bdb.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	db, err := OpenDB(f, info.Size(), DBOptions{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	return db, db.Size()
}

func putChanges(tx *bolt.Tx, from, to int) error {
	b, err := tx.CreateBucketIfNotExists([]byte("key"))
	if err != nil {
		return err
	}
	b.FillPercent = 0.9
	value := strings.Repeat("v", 1000)
	for i := from; i < to; i++ {
		kv := protowire.AppendTag(nil, fieldKVKey, protowire.BytesType)
		kv = protowire.AppendString(kv, fmt.Sprintf("/registry/%d", i*7919%(1+i)))
		kv = protowire.AppendTag(kv, fieldKVValue, protowire.BytesType)
		kv = protowire.AppendString(kv, value)
		if err := b.Put(AppendRevision(nil, Revision{int64(i + 2), 0}), kv); err != nil {
			return err
		}
	}
	return nil
}

// TestBackendFlatMemory sums up a backend of 55 MB with a heap of a few.
func TestBackendFlatMemory(t *testing.T) {
	db, size := bigBackend(t, 40_000)
	runtime.GC()
	stop, peak := make(chan struct{}), make(chan uint64)
	go watchHeap(stop, peak)
	_, err := db.Status()
	if _, err2 := db.HashKV(0); err == nil {
		err = err2
	}
	if _, err2 := db.Check(); err == nil {
		err = err2
	}
	close(stop)
	if got := <-peak; err != nil || got > 32<<20 || size < 50<<20 {
		t.Errorf("%d bytes of heap for a backend of %d (%v)", got, size, err)
	}
}

// watchHeap reports the largest heap seen.
func watchHeap(stop <-chan struct{}, peak chan<- uint64) {
	var most uint64
	for {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
		select {
		case <-stop:
			peak <- most
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func BenchmarkStatus(b *testing.B) {
	db, size := bigBackend(b, 80_000)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := db.Status(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHashKV(b *testing.B) {
	db, size := bigBackend(b, 80_000)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := db.HashKV(0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	db, size := bigBackend(b, 80_000)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := db.Check(); err != nil {
			b.Fatal(err)
		}
	}
}
