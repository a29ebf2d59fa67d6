//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// release is a line of etcd that we claim to serve, by the name of its minor
// version.
type release string

const (
	etcd34 release = "3.4"
	etcd35 release = "3.5"
	etcd36 release = "3.6"
	etcd37 release = "3.7"
)

// buildDirs says where build.sh puts each release; 3.4 is the distribution's.
var buildDirs = map[release]string{etcd35: "etcd35", etcd36: "etcd36", etcd37: "etcd37"}

// hasV2 tells whether the release can serve /v2/keys.
func (r release) hasV2() bool { return r == etcd34 || r == etcd35 }

// path finds a program of the release: etcd, etcdctl or etcdutl.
func (r release) path(t testing.TB, program string) string {
	t.Helper()
	found, err := exec.LookPath(r.candidate(program))
	if err == nil {
		found, err = filepath.Abs(found)
	}
	if err != nil {
		missing(t, "%s of etcd %s: %v", program, r, err)
	}
	return found
}

func (r release) candidate(program string) string {
	if dir, ok := buildDirs[r]; ok {
		return filepath.Join("..", "build", dir, program)
	}
	if dir := os.Getenv("LIFEBOAT_ETCD34"); dir != "" {
		return filepath.Join(dir, program)
	}
	return program
}

// missing ends a test that lacks a tool: it fails in CI and skips elsewhere.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
