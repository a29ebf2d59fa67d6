//go:build e2e

package e2e

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// memoryLimit is what no command may pass, whatever the size of the data,
// bytes: the 64 MiB of heap that are allowed, and what the runtime takes beside.
const memoryLimit = 80 << 20

// finishWatched runs the command to its end and returns the most anonymous
// memory that it had, bytes.
func finishWatched(t testing.TB, cmd *exec.Cmd) (outcome, int64) {
	t.Helper()
	ended := make(chan struct{})
	peak := make(chan int64)
	go func() {
		most := int64(0)
		for {
			select {
			case <-ended:
				peak <- most
				return
			case <-time.After(5 * time.Millisecond):
				if cmd.Process != nil {
					most = max(most, anonymousMemory(cmd.Process.Pid))
				}
			}
		}
	}()
	o := finish(t, cmd)
	close(ended)
	return o, <-peak
}

// anonymousMemory reads the resident memory of a process that no file backs.
func anonymousMemory(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0
	}
	return kib << 10
}

// inflate makes the backend at path look as if size bytes of it had been in use
// once: all of them belong to it, and none but what was there is reachable.
func inflate(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pageSize := int64(4096)
	for page := range int64(2) {
		meta := make([]byte, 64) // after the page's header of 16 bytes
		if _, err := f.ReadAt(meta, page*pageSize+16); err != nil {
			t.Fatal(err)
		}
		if got := int64(binary.LittleEndian.Uint32(meta[8:])); got != pageSize {
			t.Fatalf("pages of %d bytes", got)
		}
		binary.LittleEndian.PutUint64(meta[40:], uint64(size/pageSize)) // the first page after the last
		sum := fnv.New64a()
		sum.Write(meta[:56])
		binary.LittleEndian.PutUint64(meta[56:], sum.Sum64())
		if _, err := f.WriteAt(meta, page*pageSize+16); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// A large backend is saved and restored in the memory of a small one. It is
// sparse: that shows the memory, not the speed.
func TestSaveAndRestoreInBoundedMemory(t *testing.T) {
	size := int64(2) << 30
	if os.Getenv("LIFEBOAT_SOAK") != "" {
		size = 8 << 30
	}
	dir := t.TempDir()
	seed := filepath.Join(dir, "seed")
	small := filledEtcd(t, etcd37, 8)
	want := small.v3Dump()
	small.Stop()
	lifeboat(t, "restore", small.dir, "--data-dir", seed)
	inflate(t, filepath.Join(seed, "member/snap/db"), size)
	large := start(t, etcd37, seed, "--quota-backend-bytes", "-1")

	repo, key := filepath.Join(dir, "repo"), filepath.Join(dir, "key.txt")
	recipient := strings.TrimSpace(lifeboat(t, "keygen", key).stdout)
	lifeboat(t, "init", "--repo", repo)
	restored := filepath.Join(dir, "restored")
	for _, args := range [][]string{
		{"save", "--repo", repo, "--endpoints", large.client, "--recipient", recipient},
		{"verify", "--repo", repo, "--level", "digest"},
		{"restore", "--repo", repo, "--data-dir", restored, "--identity", key},
	} {
		began := time.Now()
		o, memory := finishWatched(t, lifeboatCommand(args...))
		if o.code != 0 {
			t.Fatalf("%s: exit %d\n%s", args[0], o.code, o.stderr)
		}
		t.Logf("%s of %d GiB: %v, %d MiB of memory", args[0], size>>30, time.Since(began).Round(100*time.Millisecond), memory>>20)
		if memory > memoryLimit {
			t.Errorf("%s took %d MiB of memory", args[0], memory>>20)
		}
	}
	large.Stop()
	info, err := os.Stat(filepath.Join(restored, "member/snap/db"))
	if err != nil || info.Size() < size {
		t.Errorf("the restored backend: %v, %v", info, err)
	}
	back := start(t, etcd37, restored, "--quota-backend-bytes", "-1")
	if diff := diffLines(back.v3Dump().lines(), want.lines()); diff != "" {
		t.Error(diff)
	}
}
