package storagetest_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

func put(t *testing.T, s storage.Store, key, data string) {
	t.Helper()
	if err := tryPut(s, key, data, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func tryPut(s storage.Store, key, data string, o storage.PutOptions) error {
	_, err := s.Put(context.Background(), key, strings.NewReader(data), o)
	return err
}

func get(s storage.Store, key string) (string, error) {
	body, err := s.Get(context.Background(), key, storage.Range{})
	if err != nil {
		return "", err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	return string(data), err
}

func wantData(t *testing.T, s storage.Store, key, want string) {
	t.Helper()
	if got, err := get(s, key); err != nil || got != want {
		t.Errorf("%s holds %q, %v; want %q", key, got, err, want)
	}
}

func list(s storage.Store) ([]string, error) {
	var keys []string
	for obj, err := range s.List(context.Background(), "") {
		if err != nil {
			return keys, err
		}
		keys = append(keys, obj.Key)
	}
	return keys, nil
}

// faultyAt is a store that holds a, b, c, and whose first operation meets f.
func faultyAt(t *testing.T, f storagetest.Fault) *storagetest.Faulty {
	m := storagetest.NewMemory()
	for _, key := range []string{"a", "b", "c"} {
		put(t, m, key, "text of "+key)
	}
	return storagetest.NewFaulty(m, storagetest.At(1, f))
}

var create = storage.PutOptions{CreateOnly: true}

func TestFaultsOfPut(t *testing.T) {
	tests := []struct {
		name   string
		fault  storagetest.Fault
		o      storage.PutOptions
		err    error
		stored bool
	}{
		{"fail", storagetest.Fault{Kind: storagetest.Fail}, create, storagetest.ErrInjected, false},
		{"fail halfway", storagetest.Fault{Kind: storagetest.Fail, After: 2}, create, storagetest.ErrInjected, false},
		{"lost answer", storagetest.Fault{Kind: storagetest.LoseAnswer}, create, storagetest.ErrInjected, true},
		{"repeat", storagetest.Fault{Kind: storagetest.Repeat}, storage.PutOptions{}, nil, true},
		{"repeat create", storagetest.Fault{Kind: storagetest.Repeat}, create, storage.ErrExist, true},
		{"crash", storagetest.Fault{Kind: storagetest.Crash}, create, storagetest.ErrCrashed, false},
		{"crash after", storagetest.Fault{Kind: storagetest.CrashAfter}, create, storagetest.ErrCrashed, true},
		{"own error", storagetest.Fault{Kind: storagetest.Fail, Err: storage.ErrDenied}, create, storage.ErrDenied, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := faultyAt(t, test.fault)
			if err := tryPut(s, "new", "text", test.o); !errors.Is(err, test.err) {
				t.Errorf("%v, want %v", err, test.err)
			}
			_, err := s.Inner().Stat(t.Context(), "new")
			if stored := err == nil; stored != test.stored {
				t.Errorf("stored: %v, want %v", stored, test.stored)
			}
		})
	}
}

func TestFaultyPutKeepsTheBodysError(t *testing.T) {
	errBody := errors.New("source broke off")
	for _, fault := range []storagetest.Fault{{}, {Kind: storagetest.Fail, After: 3}, {Kind: storagetest.Repeat}} {
		_, err := faultyAt(t, fault).Put(t.Context(), "new", iotest.ErrReader(errBody), create)
		if !errors.Is(err, errBody) {
			t.Errorf("%q: %v", fault.Kind, err)
		}
	}
}

func TestFaultsOfGet(t *testing.T) {
	tests := []struct {
		fault storagetest.Fault
		data  string
		err   error
	}{
		{storagetest.Fault{Kind: storagetest.Fail}, "", storagetest.ErrInjected},
		{storagetest.Fault{Kind: storagetest.LoseAnswer}, "", storagetest.ErrInjected},
		{storagetest.Fault{Kind: storagetest.Cut, After: 4}, "text", storagetest.ErrInjected},
		{storagetest.Fault{Kind: storagetest.Cut}, "", storagetest.ErrInjected},
		{storagetest.Fault{Kind: storagetest.End, After: 4}, "text", nil},
		{storagetest.Fault{Kind: storagetest.Repeat}, "text of a", nil},
		{storagetest.Fault{Kind: storagetest.Crash}, "", storagetest.ErrCrashed},
	}
	for _, test := range tests {
		s := faultyAt(t, test.fault)
		if got, err := get(s, "a"); got != test.data || !errors.Is(err, test.err) {
			t.Errorf("%s: %q, %v; want %q, %v", test.fault.Kind, got, err, test.data, test.err)
		}
	}
}

func TestFaultsOfList(t *testing.T) {
	tests := []struct {
		fault storagetest.Fault
		keys  []string
		err   error
	}{
		{storagetest.Fault{Kind: storagetest.Fail}, nil, storagetest.ErrInjected},
		{storagetest.Fault{Kind: storagetest.LoseAnswer}, nil, storagetest.ErrInjected},
		{storagetest.Fault{Kind: storagetest.Cut, After: 2}, []string{"a", "b"}, storagetest.ErrInjected},
		{storagetest.Fault{Kind: storagetest.Cut, After: 3}, []string{"a", "b", "c"}, storagetest.ErrInjected},
		{storagetest.Fault{Kind: storagetest.Cut, After: 9}, []string{"a", "b", "c"}, storagetest.ErrInjected},
		{storagetest.Fault{Kind: storagetest.End}, nil, storagetest.ErrInjected},
		{storagetest.Fault{Kind: storagetest.CrashAfter}, nil, storagetest.ErrCrashed},
		{storagetest.Fault{}, []string{"a", "b", "c"}, nil},
	}
	for _, test := range tests {
		s := faultyAt(t, test.fault)
		if keys, err := list(s); !slices.Equal(keys, test.keys) || !errors.Is(err, test.err) {
			t.Errorf("%s after %d: %q, %v; want %q, %v", test.fault.Kind, test.fault.After, keys, err, test.keys, test.err)
		}
	}
}

func TestFaultsOfDelete(t *testing.T) {
	for kind, gone := range map[storagetest.Kind]bool{
		storagetest.Fail: false, storagetest.LoseAnswer: true, storagetest.Cut: false, storagetest.Repeat: true, storagetest.CrashAfter: true,
	} {
		s := faultyAt(t, storagetest.Fault{Kind: kind})
		if err := s.Delete(t.Context(), "a"); (err == nil) != (kind == storagetest.Repeat) {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := s.Inner().Stat(t.Context(), "a"); errors.Is(err, storage.ErrNotExist) != gone {
			t.Errorf("%s: afterwards %v", kind, err)
		}
	}
}

// After a crash nothing answers, and what was under way has broken off.
func TestCrashEndsEverything(t *testing.T) {
	m := storagetest.NewMemory()
	put(t, m, "a", "text")
	put(t, m, "b", "text")
	s := storagetest.NewFaulty(m, storagetest.At(3, storagetest.Fault{Kind: storagetest.Crash}))
	body, err := s.Get(t.Context(), "a", storage.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	next, stop := iter.Pull2(s.List(t.Context(), ""))
	defer stop()
	if _, err, ok := next(); err != nil || !ok {
		t.Fatal(err, ok)
	}
	_, stat := s.Stat(t.Context(), "a")
	_, read := io.ReadAll(body)
	_, list, _ := next()
	for name, err := range map[string]error{"stat": stat, "read": read, "list": list, "delete": s.Delete(t.Context(), "a"), "put": tryPut(s, "c", "", create)} {
		if !errors.Is(err, storagetest.ErrCrashed) {
			t.Errorf("%s: %v, want ErrCrashed", name, err)
		}
	}
	wantData(t, s.Inner(), "a", "text")
}

func TestEachMeetsEveryOperation(t *testing.T) {
	var errs []string
	for s := range storagetest.Each(storagetest.Fault{Kind: storagetest.Fail}, func() storage.Store { return storagetest.NewMemory() }) {
		err := errors.Join(tryPut(s, "a", "x", create), func() error { _, err := get(s, "a"); return err }(), s.Delete(t.Context(), "a"))
		if err != nil {
			errs = append(errs, strings.Join(s.Met(), ", "))
		}
	}
	if want := []string{"fail 1: Put a", "fail 2: Get a", "fail 3: Delete a"}; !slices.Equal(errs, want) {
		t.Errorf("faults %q, want %q", errs, want)
	}
}

func TestRandomIsTheSameAgain(t *testing.T) {
	run := func(seed uint64) []string {
		s := storagetest.NewFaulty(storagetest.NewMemory(), storagetest.Random(seed, 0.3,
			storagetest.Fault{Kind: storagetest.Fail}, storagetest.Fault{Kind: storagetest.LoseAnswer}))
		for range 100 {
			_ = tryPut(s, "a", "x", storage.PutOptions{})
		}
		return s.Met()
	}
	first := run(1)
	if len(first) < 15 || len(first) > 45 || !slices.Equal(first, run(1)) || slices.Equal(first, run(2)) {
		t.Errorf("%d faults of 100; the same seed again: %v", len(first), slices.Equal(first, run(1)))
	}
}

func TestDelayEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storagetest.NewFaulty(storagetest.NewMemory(), func(storagetest.Op) storagetest.Fault { return storagetest.Fault{Delay: time.Hour} })
		start := time.Now()
		put(t, s, "a", "x")
		if d := time.Since(start); d != time.Hour {
			t.Errorf("put took %v, want an hour", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.Stat(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stat: %v", err)
		}
	})
}

func TestFaultyPassesAbilitiesOn(t *testing.T) {
	fail := storagetest.At(1, storagetest.Fault{Kind: storagetest.Fail})
	plain := storagetest.NewFaulty(storagetest.NewMemory(), fail)
	if _, ok := storage.As[storage.Retainer](plain); ok {
		t.Error("a store without locks claims to have them")
	}
	locking := storagetest.NewFaulty(storagetest.Locking{Memory: storagetest.NewMemory()}, fail)
	retainer, ok := storage.As[storage.Retainer](locking)
	if !ok {
		t.Fatal("the locks of the inner store are out of reach")
	}
	if err := retainer.Retain(t.Context(), "a", time.Now()); !errors.Is(err, storagetest.ErrInjected) {
		t.Errorf("%v, want the fault", err)
	}
}
