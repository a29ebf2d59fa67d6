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
	etcd23 release = "2.3"
	etcd34 release = "3.4"
	etcd35 release = "3.5"
	etcd36 release = "3.6"
	etcd37 release = "3.7"
)

// buildDirs says where build.sh puts each release; 3.4 is the distribution's.
var buildDirs = map[release]string{etcd23: "etcd23", etcd35: "etcd35", etcd36: "etcd36", etcd37: "etcd37"}

// hasV2 tells whether the release can serve /v2/keys.
func (r release) hasV2() bool { return r == etcd23 || r == etcd34 || r == etcd35 }

// hasV3 tells whether the release has the v3 API.
func (r release) hasV3() bool { return r != etcd23 }

// flags are those that only some releases know.
func (r release) flags() []string {
	switch r {
	case etcd23:
		return nil
	case etcd34, etcd35:
		return []string{"--logger", "zap", "--enable-v2=true"}
	default:
		return []string{"--logger", "zap"}
	}
}

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
