package storage_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// broken breaks one promise.
type broken struct {
	storage.Store
	overwrites, skewed, retained bool
}

func (b broken) Put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	if b.overwrites {
		o.CreateOnly = false
	}
	return b.Store.Put(ctx, key, body, o)
}

func (b broken) Stat(ctx context.Context, key string) (storage.Object, error) {
	o, err := b.Store.Stat(ctx, key)
	if b.skewed {
		o.Modified = time.Now().Add(-time.Hour)
	}
	return o, err
}

func (b broken) Delete(ctx context.Context, key string) error {
	if b.retained {
		return storage.ErrRetained
	}
	return b.Store.Delete(ctx, key)
}

func TestProbe(t *testing.T) {
	for name, c := range map[string]struct {
		store  broken
		fails  string // the step
		leaves bool
	}{
		"a good store":               {store: broken{}},
		"one that overwrites":        {store: broken{overwrites: true}, fails: "no overwriting"},
		"one whose clock is off":     {store: broken{skewed: true}, fails: "clock"},
		"one that locks is no fault": {store: broken{retained: true}, leaves: true},
	} {
		t.Run(name, func(t *testing.T) {
			c.store.Store = storagetest.NewMemory()
			failed := ""
			for _, step := range storage.Probe(t.Context(), c.store) {
				if step.Err != nil {
					failed = step.Name
				}
			}
			if failed != c.fails {
				t.Errorf("step %q failed, want %q", failed, c.fails)
			}
			left := 0
			for _, err := range c.store.List(t.Context(), "") {
				if err != nil {
					t.Fatal(err)
				}
				left++
			}
			if (left > 0) != c.leaves {
				t.Errorf("%d objects left", left)
			}
		})
	}
}

func TestProbeOfAStoreThatIsGone(t *testing.T) {
	gone := errors.New("gone")
	steps := storage.Probe(t.Context(), failing{storagetest.NewMemory(), gone})
	if len(steps) != 1 || !errors.Is(steps[0].Err, gone) {
		t.Errorf("steps %+v", steps)
	}
}

type failing struct {
	storage.Store
	err error
}

func (f failing) Put(context.Context, string, io.Reader, storage.PutOptions) (storage.Object, error) {
	return storage.Object{}, f.err
}
