package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

func testTwoHandles(t *testing.T, s suite) {
	again, ok := storage.As[Reopener](s.Store)
	if !ok {
		t.Skip("the store under test can't be opened twice")
	}
	other := suite{again.Reopen(t), s.ctx}
	for i := range 20 {
		key, first, second := fmt.Sprintf("a/%d", i), fmt.Sprintf("first %d", i), fmt.Sprintf("second %d", i)
		s.put(t, key, first)
		other.want(t, key, first)
		other.wantList(t, "", key)
		other.put(t, key, second)
		s.want(t, key, second)
		if _, err := s.Put(s.ctx, key, strings.NewReader("third"), storage.PutOptions{CreateOnly: true}); !errors.Is(err, storage.ErrExist) {
			t.Errorf("create what the other handle put: %v, want ErrExist", err)
		}
		if err := s.Delete(s.ctx, key); err != nil {
			t.Fatal(err)
		}
		other.wantAbsent(t, key)
	}
}

// testAllAtOnce lets writers, readers, listers and removers work on a few keys.
// Every read must be one whole version.
func testAllAtOnce(t *testing.T, s suite) {
	const rounds, keys = 40, 4
	key := func(i int) string { return fmt.Sprintf("mixed/%d/x", i%keys) }
	var users sync.WaitGroup
	for user := range 3 {
		users.Go(func() {
			for i := range rounds {
				body := bytes.Repeat([]byte{byte('a' + (user*rounds+i)%26)}, 10_000+user*1000+i)
				_, err := s.Put(s.ctx, key(user+i), bytes.NewReader(body), storage.PutOptions{CreateOnly: i%2 == 0})
				if err != nil && !errors.Is(err, storage.ErrExist) {
					t.Error(err)
				}
			}
		})
		users.Go(func() {
			for i := range rounds {
				s.readWhole(t, key(user+i))
			}
		})
		users.Go(func() {
			for i := range rounds {
				if err := s.Delete(s.ctx, key(user+2*i)); err != nil {
					t.Error(err)
				}
				s.listSorted(t, "mixed")
			}
		})
	}
	users.Wait()
}

// readWhole checks that an object that may be there is of one writer.
func (s suite) readWhole(t *testing.T, key string) {
	data, err := s.read(key, storage.Range{})
	if errors.Is(err, storage.ErrNotExist) {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	if len(data) < 10_000 || bytes.Count(data, data[:1]) != len(data) {
		t.Errorf("%s: read %d bytes of more than one version", key, len(data))
	}
}

func (s suite) listSorted(t *testing.T, prefix string) {
	last := ""
	for obj, err := range s.List(s.ctx, prefix) {
		if err != nil {
			t.Error(err)
			return
		}
		if obj.Key <= last || !strings.HasPrefix(obj.Key, prefix) || obj.Size < 10_000 {
			t.Errorf("list yields %+v after %q", obj, last)
		}
		last = obj.Key
	}
}

// testUnreadGet closes what it did not read, often.
func testUnreadGet(t *testing.T, s suite) {
	const gets, spare = 200, 50
	s.putBytes(t, "large", noise(9, 8<<20))
	files, goroutines := openFiles(), runtime.NumGoroutine()
	for range gets {
		body, err := s.Get(s.ctx, "large", storage.Range{})
		if err != nil {
			t.Fatal(err)
		}
		if err := body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 { // what goes may take a moment
		if openFiles() < files+spare && runtime.NumGoroutine() < goroutines+spare {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d gets left %d open files and %d goroutines", gets, openFiles()-files, runtime.NumGoroutine()-goroutines)
}

// openFiles counts those of this process; 0 where that can't be known.
func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

func testString(t *testing.T, s suite) {
	if s.String() == "" {
		t.Error("the store has no name for people")
	}
}
