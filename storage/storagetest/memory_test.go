package storagetest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// shared is a memory that is opened twice.
type shared struct{ *storagetest.Memory }

func (s shared) Reopen(*testing.T) storage.Store { return s.Memory }

func TestMemory(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store { return shared{storagetest.NewMemory()} })
}

func TestFaultyWithoutFaults(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store {
		return storagetest.NewFaulty(storagetest.NewMemory(), storagetest.At(0, storagetest.Fault{}))
	})
}

func TestLocking(t *testing.T) {
	ctx, now := t.Context(), time.Unix(1_000, 0)
	m := storagetest.NewMemoryAt(func() time.Time { return now })
	s := storagetest.Locking{Memory: m}
	put(t, s, "a", "locked")
	for _, until := range []time.Time{now.Add(time.Hour), now.Add(time.Minute)} {
		if err := s.Retain(ctx, "a", until); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Retain(ctx, "b", now); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("lock what is not there: %v", err)
	}
	now = now.Add(59 * time.Minute)
	if err := s.Delete(ctx, "a"); !errors.Is(err, storage.ErrRetained) {
		t.Errorf("delete while locked: %v, want ErrRetained", err)
	}
	now = now.Add(time.Minute)
	if err := s.Delete(ctx, "a"); err != nil {
		t.Errorf("delete after that: %v", err)
	}
	if _, ok := storage.As[storage.Retainer](m); ok {
		t.Error("a memory without locks claims to have them")
	}
}

func TestMemoryCorruptAndAge(t *testing.T) {
	m := storagetest.NewMemory()
	put(t, m, "a", "text")
	before, err := m.Stat(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Corrupt("a", func(b []byte) []byte { b[0] ^= 1; return b }), m.Age("a", time.Hour)); err != nil {
		t.Fatal(err)
	}
	wantData(t, m, "a", "uext")
	if after, err := m.Stat(context.Background(), "a"); err != nil || !after.Modified.Equal(before.Modified.Add(-time.Hour)) {
		t.Errorf("modified %v, %v; want an hour before %v", after.Modified, err, before.Modified)
	}
	if err := m.Corrupt("b", nil); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("corrupt what is not there: %v", err)
	}
}
