package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Puts and Deletes of neighbours, by several handles, make and remove the same
// folders all the time, while others look and sweep: nothing fails, and nothing
// gets lost.
func TestFoldersComeAndGo(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var users, others sync.WaitGroup
	for user := range 8 {
		s := openStore(t, dir)
		users.Go(func() {
			for i := range 50 {
				if err := putAndDelete(s, fmt.Sprintf("a/b/c%d/%d", i%2, user)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	s := openStore(t, dir)
	others.Go(func() {
		for ctx.Err() == nil {
			_, listErr := list(s, "")
			_, sweepErr := s.Sweep(t.Context(), "", later())
			if listErr != nil || sweepErr != nil {
				t.Error(listErr, sweepErr)
			}
		}
	})
	users.Wait()
	cancel()
	others.Wait()
	wantFiles(t, dir)
}

func putAndDelete(s *Store, key string) error {
	if err := put(s, key, key, create); err != nil {
		return err
	}
	if got, err := get(s, key); got != key || err != nil {
		return fmt.Errorf("after put, %s holds %q: %w", key, got, err)
	}
	if err := put(s, key, "again", create); !errors.Is(err, storage.ErrExist) {
		return fmt.Errorf("create %s twice: %w", key, err)
	}
	return s.Delete(context.Background(), key)
}
