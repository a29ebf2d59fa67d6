package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// mountSmall mounts a file system of that many bytes; it goes with the test.
func mountSmall(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err) // only root can mount
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	s := openStore(t, mountSmall(t, 1<<20))
	mustPut(t, s, "a/old", "text")
	for _, o := range []storage.PutOptions{{}, create} {
		for _, key := range []string{"a/old", "b/c/new"} {
			if key == "a/old" && o.CreateOnly {
				continue
			}
			_, err := s.Put(t.Context(), key, bytes.NewReader(make([]byte, 2<<20)), o)
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), key) {
				t.Errorf("put %s: %v", key, err)
			}
		}
	}
	if got, err := get(s, "a/old"); got != "text" || err != nil {
		t.Errorf("what was there: %q, %v", got, err)
	}
	wantFiles(t, s.dir, "a", "a/old")
	if err := put(s, "b/c/new", strings.Repeat("x", 900<<10), create); err != nil {
		t.Errorf("what fits: %v", err)
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	s := openStore(t, mountSmall(t, 1<<20))
	mustPut(t, s, "a/old", "text")
	if err := unix.Mount("tmpfs", s.dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, sweep := s.Sweep(t.Context(), "", later())
	if sweep != nil {
		t.Errorf("sweep of nothing: %v", sweep)
	}
	for name, err := range map[string]error{
		"create":  put(s, "a/new", "text", create),
		"replace": put(s, "a/old", "new", storage.PutOptions{}),
		"delete":  s.Delete(t.Context(), "a/old"),
	} {
		if !errors.Is(err, storage.ErrDenied) || !strings.Contains(err.Error(), "read-only file system") {
			t.Errorf("%s: %v, want ErrDenied for a read-only file system", name, err)
		}
	}
	if got, err := get(s, "a/old"); got != "text" || err != nil {
		t.Errorf("what is there: %q, %v", got, err)
	}
}
