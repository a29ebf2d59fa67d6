package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

func TestLimitIsAStore(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store {
		return storage.Limit(storagetest.NewMemory(), 1<<40, 1<<40)
	})
}

// putAll stores n objects of a size at once.
func putAll(t *testing.T, s storage.Store, n, size int) {
	var writers sync.WaitGroup
	for i := range n {
		writers.Go(func() {
			if _, err := s.Put(t.Context(), fmt.Sprint(i), bytes.NewReader(make([]byte, size)), storage.PutOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
}

func getAll(t *testing.T, s storage.Store, n int) {
	var readers sync.WaitGroup
	for i := range n {
		readers.Go(func() {
			body, err := s.Get(t.Context(), fmt.Sprint(i), storage.Range{})
			if err != nil {
				t.Error(err)
				return
			}
			defer body.Close()
			if _, err := io.Copy(io.Discard, body); err != nil {
				t.Error(err)
			}
		})
	}
	readers.Wait()
}

// wantTook checks how long something took. What a tenth of a second lets pass,
// or one byte, passes at once.
func wantTook(t *testing.T, what string, want time.Duration, do func()) {
	t.Helper()
	start := time.Now()
	do()
	if took := time.Since(start); took > want || took < want-150*time.Millisecond {
		t.Errorf("%s took %v, want %v", what, took, want)
	}
}

func TestLimitIsSharedByAllOperations(t *testing.T) {
	tests := []struct {
		up, down         int64
		upTook, downTook time.Duration
	}{
		{1000, 500, 30 * time.Second, 60 * time.Second},
		{1 << 20, 0, 28610 * time.Microsecond, 0},
		{0, 7, 0, 30_000 * time.Second / 7},
		{0, 0, 0, 0},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%d up, %d down", test.up, test.down), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := storage.Limit(storagetest.NewMemory(), test.up, test.down)
				wantTook(t, "put", test.upTook, func() { putAll(t, s, 3, 10_000) })
				wantTook(t, "get", test.downTook, func() { getAll(t, s, 3) })
			})
		})
	}
}

func TestLimitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storagetest.NewMemory()
		putAll(t, m, 1, 1000)
		s := storage.Limit(m, 1, 1)
		for _, d := range []time.Duration{time.Second / 2, 10 * time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			start := time.Now()
			_, err := s.Put(ctx, "new", bytes.NewReader(make([]byte, 1000)), storage.PutOptions{})
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != d {
				t.Errorf("put: %v after %v, want the deadline after %v", err, took, d)
			}
			cancel()
		}
		if _, err := m.Stat(t.Context(), "new"); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("a put that was cut off: %v", err)
		}
	})
}

func TestLimitLeavesTheRestToItsStore(t *testing.T) {
	locking := storagetest.Locking{Memory: storagetest.NewMemory()}
	putAll(t, locking, 1, 1)
	s := storage.Limit(storage.Limit(locking, 1, 0), 0, 1)
	retainer, ok := storage.As[storage.Retainer](s)
	if !ok {
		t.Fatal("the locks of the store are out of reach")
	}
	if err := retainer.Retain(t.Context(), "0", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "0"); !errors.Is(err, storage.ErrRetained) {
		t.Errorf("%v, want ErrRetained", err)
	}
	if _, ok := storage.As[storage.Sweeper](s); ok {
		t.Error("a store without a sweep claims to have one")
	}
}
