//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A repository on a disk that fills up holds what it held, and a save says why
// it failed. With room it works again.
func TestSaveToFullDisk(t *testing.T) {
	e := filledEtcd(t, etcd37, 8)
	disk := smallDisk(t, 12<<20)
	repo := filepath.Join(disk, "repo")
	lifeboat(t, "init", "--repo", repo)
	args := []string{"save", "--repo", repo, "--cluster", "c", "--endpoints", e.client}
	lifeboat(t, args...)
	o := finish(t, lifeboatCommand(args...))
	if o.code != 1 || !strings.Contains(o.stderr, "no space left on device") || !strings.Contains(o.stderr, "repo") {
		t.Errorf("exit %d\n%s", o.code, o.stderr)
	}
	if l := listRepo(t, repo); len(l.Backups) != 1 || len(l.Unfinished) > 0 {
		t.Errorf("%d backups, %d unfinished", len(l.Backups), len(l.Unfinished))
	}
	lifeboat(t, "verify", "--repo", repo, "--all", "--level", "digest")
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", 64<<20)); err != nil {
		t.Fatal(err)
	}
	lifeboat(t, args...)
	lifeboat(t, "verify", "--repo", repo, "--all", "--level", "digest")
}

// A restore to a disk that fills up leaves nothing of it there.
func TestRestoreToFullDisk(t *testing.T) {
	e := filledEtcd(t, etcd37, 8)
	repo := filepath.Join(t.TempDir(), "repo")
	lifeboat(t, "init", "--repo", repo)
	lifeboat(t, "save", "--repo", repo, "--endpoints", e.client)
	for _, size := range []int{4 << 20, 14 << 20} { // while unpacking, and while restoring
		disk := smallDisk(t, size)
		o := finish(t, lifeboatCommand("restore", "--repo", repo, "--data-dir", filepath.Join(disk, "data")))
		if o.code != 1 || !strings.Contains(o.stderr, "no space left on device") {
			t.Errorf("%d MiB: exit %d\n%s", size>>20, o.code, o.stderr)
		}
		mustHoldOnly(t, disk)
	}
}
