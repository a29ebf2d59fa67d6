//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bulky makes a stopped member of etcd 3.4 with some 40 MB in its log, its
// snapshots and its backend.
func bulky(t testing.TB) string {
	t.Helper()
	e := start(t, etcd34, newDataDir(t), "--snapshot-count", "100")
	value := strings.Repeat("v", 64<<10)
	for i := range 150 {
		e.v2Set(fmt.Sprintf("/bulk/%d", i%40), value)
		if err := e.put(fmt.Sprintf("/bulk/%d", i), value); err != nil {
			t.Fatal(err)
		}
	}
	e.Stop()
	return e.dir
}

// However a backup is killed, its target is absent or whole, and the next run
// leaves nothing of it behind.
func TestBackupSurvivesSIGKILL(t *testing.T) {
	src := bulky(t)
	check := untouched(t, src)
	args := func(dst string) []string {
		// Fixed ids make every backup the same, byte for byte.
		return []string{"backup", "--data-dir", src, "--backup-dir", dst, "--keep-cluster-id", "--node-id", "1"}
	}
	reference := filepath.Join(t.TempDir(), "backup")
	began := time.Now()
	lifeboat(t, args(reference)...)
	took := time.Since(began)
	want := contents(t, reference)

	folder := t.TempDir()
	dst := filepath.Join(folder, "backup")
	runs, whole, leftovers := soak(t, 200), 0, 0
	for range runs {
		killAfter(t, rand.N(took*5/4), args(dst)...)
		if _, err := os.Stat(dst); err == nil {
			if diff := diffLines(contents(t, dst), want); diff != "" {
				t.Fatalf("a killed backup left a target that is not whole:\n%s", diff)
			}
			whole++
			if err := os.RemoveAll(dst); err != nil {
				t.Fatal(err)
			}
		}
		if entries, _ := os.ReadDir(folder); len(entries) > 0 {
			leftovers++
		}
	}
	t.Logf("%d kills within %v: %d whole, %d left something behind", runs, took*5/4, whole, leftovers)
	if leftovers == 0 {
		t.Error("no kill hit a backup at work: the test shows nothing")
	}

	killAfter(t, took/2, args(dst)...)
	os.RemoveAll(dst)
	lifeboat(t, args(dst)...)
	if diff := diffLines(contents(t, dst), want); diff != "" {
		t.Errorf("the run after the kills:\n%s", diff)
	}
	mustHoldOnly(t, folder, "backup")
	check()
}

// killAfter runs lifeboat and kills it after the delay, unless it has ended.
func killAfter(t testing.TB, delay time.Duration, args ...string) {
	t.Helper()
	cmd := lifeboatCommand(args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(delay)
	// It may have ended by itself; only what it left is of interest.
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}
