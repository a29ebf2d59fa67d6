package s3server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// binary is the path of versitygw.
func binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

// build has e2e/build.sh make the server unless it is there and up to date.
// Test binaries that run side by side take turns.
var build = sync.OnceValues(func() (string, error) {
	top, err := repositoryTop()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(top, "build", "versitygw")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	cmd := exec.Command(filepath.Join(top, "e2e", "build.sh"), "versitygw")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build versitygw: %w\n%s", err, out)
	}
	return filepath.Join(dir, "versitygw"), nil
})

// repositoryTop looks upwards from the working dir, which for a test is its
// package's folder.
func repositoryTop() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "e2e", "versitygw", "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("e2e/versitygw: %w", fs.ErrNotExist)
		}
		dir = parent
	}
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}
