//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// needRoot ends a test that must mount or change its user.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "needs root")
	}
}

// smallDisk mounts a file system of that many bytes; it goes with the test.
func smallDisk(t testing.TB, size int) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		missing(t, "mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestBackupToFullDisk(t *testing.T) {
	src := bulky(t)
	check := untouched(t, src)
	for _, size := range []int{64 << 10, 4 << 20, 20 << 20} {
		t.Run(fmt.Sprintf("%d KiB", size>>10), func(t *testing.T) {
			disk := smallDisk(t, size)
			dst := filepath.Join(disk, "backup")
			o := finish(t, lifeboatCommand("backup", "--data-dir", src, "--backup-dir", dst))
			if o.code != 1 || !strings.Contains(o.stderr, "no space left on device") || !strings.Contains(o.stderr, disk) {
				t.Errorf("exit %d\n%s", o.code, o.stderr)
			}
			mustHoldOnly(t, disk)
			if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=256m"); err != nil {
				t.Fatal(err)
			}
			lifeboat(t, "backup", "--data-dir", src, "--backup-dir", dst)
			mustHoldOnly(t, disk, "backup")
		})
	}
	check()
}

// nobody is a user without rights.
const nobody = 65534

func TestBackupOfUnreadableFiles(t *testing.T) {
	needRoot(t)
	for _, pattern := range []string{"member/wal/*.wal", "member/snap/*.snap", "member/snap/db", "member/wal", "member/snap"} {
		t.Run(pattern, func(t *testing.T) {
			t.Parallel()
			src := fixtureSource(t, "3.4.23-mixed").dir
			readable(t, src)
			names, err := filepath.Glob(filepath.Join(src, pattern))
			if err != nil || len(names) != 1 {
				t.Fatal(names, err)
			}
			if err := os.Chmod(names[0], 0); err != nil {
				t.Fatal(err)
			}
			check := untouched(t, src)
			folder := folderOf(t, nobody)
			cmd := lifeboatCommand("backup", "--data-dir", src, "--backup-dir", filepath.Join(folder, "backup"))
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
			o := finish(t, cmd)
			if o.code != 1 || !strings.Contains(o.stderr, "permission denied") || !strings.Contains(o.stderr, names[0]) {
				t.Errorf("exit %d, want 1 and %s named\n%s", o.code, names[0], o.stderr)
			}
			mustHoldOnly(t, folder)
			check()
		})
	}
}

// folderOf makes a folder of the user's; who can then also enter the test's others.
func folderOf(t testing.TB, user int) string {
	t.Helper()
	folder := t.TempDir()
	if err := errors.Join(os.Chown(folder, user, user), os.Chmod(filepath.Dir(folder), 0o755)); err != nil {
		t.Fatal(err)
	}
	return folder
}

// readable makes a tree readable by everyone.
func readable(t testing.TB, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
}
