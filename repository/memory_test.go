package repository

import (
	"context"
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// discarding keeps only the size of what is put.
type discarding struct {
	storage.Store
	mu    sync.Mutex
	sizes map[string]int64
}

func (d *discarding) Put(_ context.Context, key string, body io.Reader, _ storage.PutOptions) (storage.Object, error) {
	n, err := io.CopyBuffer(nowhere{}, body, make([]byte, 64<<10))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sizes[key] = n
	return storage.Object{Key: key, Size: n}, err
}

// allocated is how much memory f allocates, in bytes, in all.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// Whatever the parts' sizes, sealing them allocates little, in all: what is in
// use at any time is less. Data that does not compress takes a third more.
func TestSealingTakesLittleMemory(t *testing.T) {
	const size = 16 << 20
	to, _ := newKey(t)
	block := noise(3<<19, 1) // longer than a frame
	for i := range len(block) / 2 {
		block[2*i] = 0 // it compresses to a quarter, as backends do
	}
	for c, limit := range map[Compression]int64{CompressFast: 21 << 20, CompressBetter: 31 << 20} {
		repo, store := newRepository(t)
		repo.store = &discarding{Store: store, sizes: map[string]int64{}}
		d := begin(t, repo, DraftOptions{Recipients: to, Compression: c})
		took := allocated(func() {
			var wg sync.WaitGroup
			for _, name := range []string{"db", "other", "third"} {
				wg.Go(func() {
					_, err := d.Put(t.Context(), Part{Name: name, Role: RoleDB}, func(_ context.Context, w io.Writer) error {
						for range size / len(block) / 3 {
							if _, err := w.Write(block); err != nil {
								return err
							}
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		})
		t.Logf("%s: %d KiB", c, took>>10)
		if took > limit {
			t.Errorf("%s: it allocates %d MiB, more than %d", c, took>>20, limit>>20)
		}
	}
}

// Reading a part takes memory for its decoder, whatever its size.
func TestReadingTakesLittleMemory(t *testing.T) {
	const limit = 16 << 20
	to, ids := newKey(t)
	repo, _ := newRepository(t)
	b := mustSave(t, repo, "prod", contents{"db": make([]byte, 32<<20)}, DraftOptions{Recipients: to})
	took := allocated(func() {
		r, err := b.Open(t.Context(), "db", ids)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.CopyBuffer(nowhere{}, r, make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%d KiB", took>>10)
	if took > limit {
		t.Errorf("it allocates %d MiB, more than %d", took>>20, limit>>20)
	}
}
