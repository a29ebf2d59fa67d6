package backup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// running is a fixture whose backend is locked as its etcd does while it runs.
// Where the system does not tell who holds locks, it may be running anyhow.
func running(t *testing.T, name string) *datadir.Dir {
	t.Helper()
	dir := fixture.DataDir(t, name)
	f, err := os.Open(filepath.Join(dir, backendName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	return inspect(t, dir)
}

func prepare(t *testing.T, src *datadir.Dir, o Options) (*Plan, error) {
	t.Helper()
	p, err := Prepare(t.Context(), src, o, silent)
	if err == nil {
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return p, err
}

func TestACopyOfARunningMemberIsThatOfAStoppedOne(t *testing.T) {
	for name, o := range map[string]Options{
		"3.4.23-mixed": {},
		"3.5.33":       {For: datadir.R37},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			o.Dir = filepath.Join(root, "stopped")
			want := run(t, fixture.DataDir(t, name), o)
			o.Dir = filepath.Join(root, "running")
			p, err := prepare(t, running(t, name), o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Apply(t.Context(), silent); err != nil {
				t.Fatal(err)
			}
			if p.Revision == 0 || p.HardState() != want.HardState() || p.Index != want.Index {
				t.Errorf("revision %d, state %+v, index %d", p.Revision, p.HardState(), p.Index)
			}
			if got := strings.Join(list(t, root), " "); strings.Count(got, "running") != strings.Count(got, "stopped") {
				t.Errorf("made %q", got)
			}
			a, b := inspect(t, filepath.Join(root, "stopped")), inspect(t, o.Dir)
			if a.Facts != b.Facts || a.Log.State != b.Log.State || a.Backend.ConsistentIndex != b.Backend.ConsistentIndex {
				t.Errorf("of the running one\n%+v %+v %+v, of the stopped one\n%+v %+v %+v", b.Facts, b.Log, b.Backend, a.Facts, a.Log, a.Backend)
			}
			equal(t, entries(t, b.WAL, 0), entries(t, a.WAL, 0))
		})
	}
}

// What was prepared and not applied, or failed at any moment, leaves nothing.
func TestEveryFaultOfACopyInUseLeavesNothing(t *testing.T) {
	src := running(t, "3.4.23-mixed")
	step := int64(1)
	if testing.Short() {
		step = 4
	}
	for n := int64(1); ; n += step {
		root := t.TempDir()
		o := Options{Dir: filepath.Join(root, "data"), WALDir: filepath.Join(root, "wal"), System: atomicfile.FailAt(n, errInjected)}
		p, err := Prepare(t.Context(), src, o, silent)
		if err == nil {
			_, err = p.Apply(t.Context(), silent)
			err = errors.Join(err, p.Close())
		}
		if err == nil {
			if n < 20 {
				t.Fatalf("only %d operations could fail", n-1)
			}
			break
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("fault %d: %v", n, err)
		}
		if names := list(t, root); len(names) > 0 {
			t.Fatalf("fault %d left %q", n, names)
		}
	}
	root := t.TempDir()
	p, err := Prepare(t.Context(), src, Options{Dir: filepath.Join(root, "data")}, silent)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if names := list(t, root); len(names) > 0 {
		t.Errorf("a plan that was dropped left %q", names)
	}
}

// A plan without a copy is to be looked at, and so is the seed of a member.
func TestARunningMemberIsNotCopiedAsAFile(t *testing.T) {
	src, target := running(t, "3.5.33"), filepath.Join(t.TempDir(), "b")
	p, err := NewPlan(src, Options{Dir: target})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(t.Context(), silent); !errors.Is(err, ErrLive) && !errors.Is(err, ErrMaybeLive) {
		t.Errorf("applied without a copy: %v", err)
	}
	for id := range src.PeerURLs {
		if _, err := NewSeed(src, id^1, Options{Dir: target}); !errors.Is(err, ErrLive) && !errors.Is(err, ErrMaybeLive) {
			t.Errorf("seeded: %v", err)
		}
	}
	if _, err := os.Stat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("target: %v", err)
	}
}

// A backend that moved on since it was inspected does not go with the log.
func TestABackendThatWasWrittenIsNotCopied(t *testing.T) {
	path := fixture.DataDir(t, "3.5.33")
	p, err := NewPlan(inspect(t, path), Options{Dir: filepath.Join(t.TempDir(), "b")})
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(path, backendName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := update(db, func(tx *bolt.Tx) error { return putIndex(tx, 200) }); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(t.Context(), silent); !errors.Is(err, datadir.ErrChanged) {
		t.Errorf("%v, want ErrChanged", err)
	}
}
