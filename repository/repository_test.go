package repository

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// memory holds objects under keys.
func memory(t testing.TB, keys ...string) *storagetest.Memory {
	t.Helper()
	store := storagetest.NewMemory()
	for _, key := range keys {
		if _, err := store.Put(t.Context(), key, strings.NewReader("x"), storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

func TestInitThenOpen(t *testing.T) {
	repo, store := newRepository(t)
	again, err := Open(t.Context(), store)
	if err != nil || again.ID() != repo.ID() || len(repo.ID()) < 20 {
		t.Fatalf("%v, id %q, want %q", err, again.ID(), repo.ID())
	}
	if _, err := Init(t.Context(), store, InitOptions{}); !errors.Is(err, ErrExists) {
		t.Fatalf("second Init: %v", err)
	}
}

func TestPlacesThatAreNoRepository(t *testing.T) {
	const id = "20260304T050607Z-abcdef"
	for name, c := range map[string]struct {
		keys []string
		want string
	}{
		"empty":            {nil, "nothing is there"},
		"other files":      {[]string{"a.txt", "b/c", "b/d"}, "what is there: a.txt, b/"},
		"many files":       {[]string{"a", "b", "c", "d", "e", "f"}, "what is there: a, b, c, d, e and more"},
		"the folder above": {[]string{"a.txt", "etcd/lifeboat.json", "other/x"}, "what is there: a.txt, etcd/, other/; a repository lies in etcd/"},
		"clusters":         {[]string{"prod/backups/" + id + "/manifest.json"}, "what is there: prod/; it looks like a folder within a repository"},
		"a cluster":        {[]string{"backups/" + id + "/db.zst"}, "it looks like a folder within a repository"},
		"its backups":      {[]string{id + "/db.zst"}, "it looks like a folder within a repository"},
		"a backup":         {[]string{"db.zst", "manifest.json"}, "it looks like a folder within a repository"},
		"lost its head":    {[]string{"clusters/prod/backups/" + id + "/db.zst"}, "it looks like a repository that lost its lifeboat.json"},
	} {
		t.Run(name, func(t *testing.T) {
			store := memory(t, c.keys...)
			_, err := Open(t.Context(), store)
			if !errors.Is(err, ErrNotRepository) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("open: %v, want %q", err, c.want)
			}
			if _, err = Init(t.Context(), store, InitOptions{}); (err == nil) != (len(c.keys) == 0) {
				t.Errorf("init: %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("init: %v, want %q", err, c.want)
			}
		})
	}
}

func TestOpenOfAForeignBucketLooksAtFewKeys(t *testing.T) {
	var keys []string
	for i := range 3 * surveyKeys {
		keys = append(keys, fmt.Sprintf("k%06d", i))
	}
	if _, err := Open(t.Context(), memory(t, keys...)); !errors.Is(err, ErrNotRepository) {
		t.Fatal(err)
	}
}

func TestOpenOfANewerRepository(t *testing.T) {
	_, store := newRepository(t)
	for content, want := range map[string]string{
		`{"format":9,"shape":"new"}`:                  "lifeboat.json: format 9 is newer than 1",
		`{"format":1,"requires":["dedup"],"shape":1}`: "lifeboat.json: needs dedup",
	} {
		_ = store.Corrupt(repositoryKey, func([]byte) []byte { return resealText(kindRepository, content) })
		_, err := Open(t.Context(), store)
		var newer *FormatError
		if !errors.As(err, &newer) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if _, err := Init(t.Context(), store, InitOptions{}); !errors.Is(err, ErrExists) {
			t.Errorf("init: %v", err)
		}
	}
}

func TestOpenOrInit(t *testing.T) {
	t.Run("at once", func(t *testing.T) {
		store := memory(t)
		ids := make([]string, 16)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				repo, err := OpenOrInit(t.Context(), store, InitOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				ids[i] = repo.ID()
			})
		}
		wg.Wait()
		if ids = slices.Compact(ids); len(ids) != 1 || ids[0] == "" {
			t.Errorf("repositories %q", ids)
		}
	})
	t.Run("other files", func(t *testing.T) {
		store := memory(t, "a.txt")
		if _, err := OpenOrInit(t.Context(), store, InitOptions{}); err == nil || !strings.Contains(err.Error(), "not empty: what is there: a.txt") {
			t.Error(err)
		}
		if _, err := store.Stat(t.Context(), repositoryKey); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("it was made: %v", err)
		}
	})
	t.Run("newer", func(t *testing.T) {
		_, store := newRepository(t)
		_ = store.Corrupt(repositoryKey, func([]byte) []byte { return resealText(kindRepository, `{"format":9}`) })
		var newer *FormatError
		if _, err := OpenOrInit(t.Context(), store, InitOptions{}); !errors.As(err, &newer) {
			t.Error(err)
		}
	})
	t.Run("a store that fails", func(t *testing.T) {
		for _, kind := range []storagetest.Kind{storagetest.Fail, storagetest.LoseAnswer, storagetest.Repeat} {
			for store := range storagetest.Each(storagetest.Fault{Kind: kind}, func() storage.Store { return memory(t) }) {
				_, err := OpenOrInit(t.Context(), store, InitOptions{})
				failed, met := errors.Is(err, storagetest.ErrInjected), len(store.Met()) > 0
				if err != nil && !failed || failed && !met || kind == storagetest.Fail && failed != met {
					t.Errorf("%v: %v", store.Met(), err)
				}
				if _, err := OpenOrInit(t.Context(), store.Inner(), InitOptions{}); err != nil {
					t.Errorf("after %v: %v", store.Met(), err)
				}
			}
		}
	})
}

func TestOfManyInitsOneWins(t *testing.T) {
	store := memory(t)
	var wg sync.WaitGroup
	ids := make(chan string, 16)
	for range cap(ids) {
		wg.Go(func() {
			repo, err := Init(t.Context(), store, InitOptions{})
			if err == nil {
				ids <- repo.ID()
			} else if !errors.Is(err, ErrExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(ids)
	repo, err := Open(t.Context(), store)
	if err != nil || len(ids) != 1 || <-ids != repo.ID() {
		t.Fatalf("%v, %d winners", err, len(ids))
	}
}

func TestInitOnAFaultyStore(t *testing.T) {
	for _, kind := range []storagetest.Kind{storagetest.Fail, storagetest.LoseAnswer, storagetest.Repeat, storagetest.Cut} {
		for store := range storagetest.Each(storagetest.Fault{Kind: kind}, func() storage.Store { return storagetest.NewMemory() }) {
			repo, err := Init(t.Context(), store, InitOptions{})
			if err != nil {
				if kind == storagetest.Repeat {
					t.Errorf("%v: %v", store.Met(), err)
				}
				continue
			}
			if again, err := Open(t.Context(), store.Inner()); err != nil || again.ID() != repo.ID() {
				t.Errorf("%v: %v", store.Met(), err)
			}
		}
	}
}
