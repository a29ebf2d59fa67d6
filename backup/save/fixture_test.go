package save

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// unpacked holds data dirs of fixtures whose segments end with 4 KiB of the
// zeros that etcd preallocates, not with 64 MB of them.
var unpacked struct {
	sync.Mutex
	dir  string
	made map[string]bool
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if unpacked.dir, err = os.MkdirTemp("", "lifeboat-test-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(unpacked.dir)
	unpacked.made = map[string]bool{}
	return m.Run(), nil
}

// dataDir is the test's own copy of a fixture's data dir.
func dataDir(t testing.TB, name string) string {
	t.Helper()
	unpacked.Lock()
	defer unpacked.Unlock()
	kept := filepath.Join(unpacked.dir, name)
	if !unpacked.made[name] {
		source := fixture.DataDir(t, name)
		segment := onlySegment(t, source)
		write(t, segment, append(bytes.TrimRight(read(t, segment), "\x00"), make([]byte, 4096)...))
		if err := os.CopyFS(kept, os.DirFS(source)); err != nil {
			t.Fatal(err)
		}
		unpacked.made[name] = true
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// snapshotFile is a snapshot that etcdctl took of a 3.5.33.
func snapshotFile(t testing.TB) []byte {
	t.Helper()
	return read(t, "../../snapcodec/testdata/etcd-3.5.33/snapshot.db")
}
