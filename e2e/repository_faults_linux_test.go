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

// A restore to a disk that fills up leaves nothing of it there. One member takes
// the room of one backend.
func TestRestoreToFullDisk(t *testing.T) {
	e := filledEtcd(t, etcd37, 8)
	repo := filepath.Join(t.TempDir(), "repo")
	lifeboat(t, "init", "--repo", repo)
	lifeboat(t, "save", "--repo", repo, "--endpoints", e.client)
	restore := func(disk, members string) outcome {
		return finish(t, lifeboatCommand("restore", "--repo", repo, "--data-dir", filepath.Join(disk, "{name}"), "--initial-cluster", members))
	}
	const one, two = "m1=http://127.0.0.1:1001", "m1=http://127.0.0.1:1001,m2=http://127.0.0.1:1002"
	for name, c := range map[string]struct {
		size    int
		members string
	}{"while unpacking": {4 << 20, one}, "while restoring": {14 << 20, two}} {
		disk := smallDisk(t, c.size)
		if o := restore(disk, c.members); o.code != 1 || !strings.Contains(o.stderr, "no space left on device") {
			t.Errorf("%s: exit %d\n%s", name, o.code, o.stderr)
		}
		mustHoldOnly(t, disk)
	}
	disk := smallDisk(t, 14<<20)
	if o := restore(disk, one); o.code != 0 {
		t.Errorf("exit %d\n%s", o.code, o.stderr)
	}
	mustHoldOnly(t, disk, "m1")
}
