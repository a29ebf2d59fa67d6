//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestServeV3Clone serves what each release held, with the built-in etcd and
// with its own.
func TestServeV3Clone(t *testing.T) {
	t.Parallel()
	for _, r := range []release{etcd34, etcd35, etcd36, etcd37} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			s := oneMember(t, r)
			check := untouched(t, s.dir)
			for _, args := range [][]string{{"--clone"}, {"--clone", "--etcd-binary", r.path(t, "etcd")}} {
				e := startServe(t, s.dir, args...)
				if got := e.v3Dump().lines(); !slices.Equal(got, s.v3) {
					t.Errorf("%v: %s", args, diffLines(got, s.v3))
				}
				if err := e.put("/a", "write"); err != nil {
					t.Error(err)
				}
				if err := e.proc.stop(); err != nil {
					t.Error(err)
				}
			}
			check()
		})
	}
}

// TestServeV3InPlace: what was acknowledged outlives SIGKILL, and etcd goes on
// with the dir.
func TestServeV3InPlace(t *testing.T) {
	t.Parallel()
	before := start(t, etcd37, newDataDir(t))
	writeHistory(before)
	persist(t, "the storage version", before.hasStorageVersion)
	time.Sleep(500 * time.Millisecond) // the backend commits every 100 ms
	persist(t, "the last put", func() error { return before.put("/last", "put") })
	s := seal(before)
	e := startServe(t, s.dir)
	if got := e.v3Dump().lines(); !slices.Equal(got, s.v3) {
		t.Error(diffLines(got, s.v3))
	}
	if err := e.put("/in/place", "kept"); err != nil {
		t.Fatal(err)
	}
	e.Kill()
	after := start(t, etcd37, s.dir)
	if got := after.v3Dump().lines(); len(got) != len(s.v3)+1 || !strings.Contains(strings.Join(got, "\n"), "/in/place") {
		t.Errorf("etcd serves %d keys, want %d", len(got), len(s.v3)+1)
	}
}

// hasStorageVersion says that the etcd has not yet written into its backend of
// which release it is. 3.6 and later do so some seconds after their first start,
// and say 3.5 until then.
func (e *etcd) hasStorageVersion() error {
	status, err := e.v3().Status(callContext(e.t), e.client)
	if err != nil {
		return err
	}
	release, _, _ := strings.Cut(strings.TrimPrefix(status.StorageVersion, "3."), ".")
	if !strings.HasPrefix(status.Version, "3."+release+".") {
		return fmt.Errorf("is %q", status.StorageVersion)
	}
	return nil
}

// TestServeV3InPlaceRefuses what could not be undone.
func TestServeV3InPlaceRefuses(t *testing.T) {
	t.Parallel()
	old, many := oneMember(t, etcd36), oneOfThree(t, etcd37, 0)
	for dir, says := range map[string]string{
		old.dir:  "would upgrade or change it for good",
		many.dir: "would be cut off for good",
	} {
		check := untouched(t, dir)
		o := finish(t, lifeboatCommand("serve", "--data-dir", dir, "--listen", "127.0.0.1:0"))
		check()
		if o.code != 1 || !strings.Contains(o.stderr, says) || !strings.Contains(o.stderr, "--clone") {
			t.Errorf("exit code %d, want 1 and %q:\n%s", o.code, says, o.stderr)
		}
	}
}
