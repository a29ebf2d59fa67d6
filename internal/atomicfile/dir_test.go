package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

var errInjected = errors.New("injected")

// fill makes member/wal/0.wal in d, or says why not.
func fill(d *Dir) error {
	if err := d.Mkdir("member/wal"); err != nil {
		return err
	}
	f, err := d.Create("member/wal/0.wal")
	if err != nil {
		return err
	}
	_, err = f.Write([]byte("log"))
	return errors.Join(err, f.Close())
}

func build(target string, o Options) error {
	d, err := CreateDir(target, o)
	if err != nil {
		return err
	}
	if err := fill(d); err != nil {
		return errors.Join(err, d.Abort())
	}
	if err := d.Commit(); err != nil {
		return errors.Join(err, d.Abort())
	}
	return nil
}

// list names everything below root, root itself left out.
func list(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err == nil && p != root {
			rel, _ := filepath.Rel(root, p)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func wantTree(t *testing.T, root string, want ...string) {
	t.Helper()
	if got := list(t, root); !slices.Equal(got, want) {
		t.Fatalf("tree %q, want %q", got, want)
	}
}

func TestCommitPublishesTheWhole(t *testing.T) {
	root := t.TempDir()
	if err := build(filepath.Join(root, "b"), Options{}); err != nil {
		t.Fatal(err)
	}
	wantTree(t, root, "b", "b/member", "b/member/wal", "b/member/wal/0.wal")
}

func TestCommitFillsAnEmptyTarget(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := build(filepath.Join(root, "b"), Options{}); err != nil {
		t.Fatal(err)
	}
	wantTree(t, root, "b", "b/member", "b/member/wal", "b/member/wal/0.wal")
}

func TestEveryFaultLeavesNothing(t *testing.T) {
	for n := int64(1); ; n++ {
		root := t.TempDir()
		err := build(filepath.Join(root, "b"), Options{System: FailAt(n, errInjected)})
		if err == nil {
			if n < 8 {
				t.Fatalf("only %d operations went through the system", n-1)
			}
			return
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("fault %d: %v", n, err)
		}
		wantTree(t, root)
	}
}

func TestTwoDirsAreOne(t *testing.T) {
	for n := int64(1); ; n++ {
		root := t.TempDir()
		err := buildTwo(root, FailAt(n, errInjected))
		if err == nil {
			wantTree(t, root, "data", "data/member", "data/member/wal", "data/member/wal/0.wal",
				"wal", "wal/member", "wal/member/wal", "wal/member/wal/0.wal")
			return
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("fault %d: %v", n, err)
		}
		wantTree(t, root)
	}
}

func buildTwo(root string, sys System) error {
	data, err := CreateDir(filepath.Join(root, "data"), Options{System: sys})
	if err != nil {
		return err
	}
	defer data.Abort()
	wal, err := CreateDir(filepath.Join(root, "wal"), Options{System: sys})
	if err != nil {
		return err
	}
	defer wal.Abort()
	for _, d := range []*Dir{data, wal} {
		if err := fill(d); err != nil {
			return err
		}
	}
	return data.Commit(wal)
}

func TestLeftoversAreRemoved(t *testing.T) {
	root := t.TempDir()
	target := filepath.Join(root, "b")
	dead, err := CreateDir(target, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(dead); err != nil {
		t.Fatal(err)
	}
	dead.lock.Close() // as the death of its process would
	if err := build(target, Options{}); err != nil {
		t.Fatal(err)
	}
	wantTree(t, root, "b", "b/member", "b/member/wal", "b/member/wal/0.wal")
}

func TestAnOrphanIsReplaced(t *testing.T) {
	root := t.TempDir()
	target := filepath.Join(root, "wal")
	dead, err := CreateDir(target, Options{})
	if err != nil {
		t.Fatal(err)
	}
	never, err := CreateDir(filepath.Join(root, "never"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer never.Abort()
	if err := errors.Join(fill(dead), dead.markPending(never), dead.publish()); err != nil {
		t.Fatal(err)
	}
	dead.lock.Close()
	if err := build(target, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := never.Abort(); err != nil {
		t.Fatal(err)
	}
	wantTree(t, root, "wal", "wal/member", "wal/member/wal", "wal/member/wal/0.wal")
}

// oldDir makes a dir with one file in it.
func oldDir(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, "old"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestReplaceKeepsTheOld(t *testing.T) {
	for n := 1; ; n++ {
		root := t.TempDir()
		for _, name := range []string{"data", "wal"} {
			oldDir(t, filepath.Join(root, name))
		}
		count := 0
		sys := System{Before: func(Op, string) error {
			if count++; count == n {
				return errInjected
			}
			return nil
		}}
		err := replaceTwo(root, sys)
		if err == nil {
			wantTree(t, root, "data", "data/member", "data/member/wal", "data/member/wal/0.wal", "data.old", "data.old/old",
				"wal", "wal/member", "wal/member/wal", "wal/member/wal/0.wal", "wal.old", "wal.old/old")
			return
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("fault %d: %v", n, err)
		}
		wantTree(t, root, "data", "data/old", "wal", "wal/old")
	}
}

func replaceTwo(root string, sys System) error {
	o := Options{System: sys, Replace: ".old"}
	data, err := CreateDir(filepath.Join(root, "data"), o)
	if err != nil {
		return err
	}
	defer data.Abort()
	wal, err := CreateDir(filepath.Join(root, "wal"), o)
	if err != nil {
		return err
	}
	defer wal.Abort()
	if err := errors.Join(fill(data), fill(wal)); err != nil {
		return err
	}
	return data.Commit(wal)
}

// A run that died between the two leaves the old state to the next.
func TestAReplacingOrphanIsTakenBack(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"data", "wal"} {
		oldDir(t, filepath.Join(root, name))
	}
	o := Options{Replace: ".old"}
	data, err := CreateDir(filepath.Join(root, "data"), o)
	if err != nil {
		t.Fatal(err)
	}
	wal, err := CreateDir(filepath.Join(root, "wal"), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fill(data), fill(wal), wal.markPending(data), wal.publish()); err != nil {
		t.Fatal(err)
	}
	data.lock.Close() // as the death of their process would
	wal.lock.Close()
	if err := replaceTwo(root, System{}); err != nil {
		t.Fatal(err)
	}
	wantTree(t, root, "data", "data/member", "data/member/wal", "data/member/wal/0.wal", "data.old", "data.old/old",
		"wal", "wal/member", "wal/member/wal", "wal/member/wal/0.wal", "wal.old", "wal.old/old")
}

func TestRefusals(t *testing.T) {
	root := t.TempDir()
	full := filepath.Join(root, "full")
	if err := build(full, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateDir(full, Options{}); !errors.Is(err, ErrExists) {
		t.Errorf("a full target: %v, want ErrExists", err)
	}
	busy, err := CreateDir(filepath.Join(root, "busy"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Abort()
	if _, err := CreateDir(filepath.Join(root, "busy"), Options{}); !errors.Is(err, ErrBusy) {
		t.Errorf("a busy target: %v, want ErrBusy", err)
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateDir(filepath.Join(root, "file"), Options{}); err == nil {
		t.Error("a file as target is accepted")
	}
}

func TestCopyFromKeepsHoles(t *testing.T) {
	root := t.TempDir()
	src, err := os.Create(filepath.Join(root, "src"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for _, off := range []int64{0, 1 << 20, 40 << 20} {
		if _, err := src.WriteAt([]byte("data"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := src.Truncate(50 << 20); err != nil {
		t.Fatal(err)
	}
	d, err := CreateDir(filepath.Join(root, "b"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort()
	f, err := d.Create("db")
	if err != nil {
		t.Fatal(err)
	}
	var seen int64
	if err := errors.Join(f.CopyFrom(src, func(n int64) { seen += n }), f.Close(), d.Commit()); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(src.Name())
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, "b", "db"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) || seen != 50<<20 {
		t.Fatalf("copy of %d bytes differs from the source's %d, or %d bytes of progress", len(got), len(want), seen)
	}
	var st, stSrc unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Join(root, "b", "db"), &st), unix.Stat(src.Name(), &stSrc)); err != nil {
		t.Fatal(err)
	}
	if st.Blocks > stSrc.Blocks+64 {
		t.Errorf("the copy takes %d blocks, the source %d: holes were filled", st.Blocks, stSrc.Blocks)
	}
}

func TestAmongOthers(t *testing.T) {
	for n := int64(1); ; n++ {
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "note"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		o := Options{System: FailAt(n, errInjected), Entry: "member", Among: true}
		err := build(root, o)
		if err == nil {
			wantTree(t, root, "member", "member/wal", "member/wal/0.wal", "note")
			if err := build(root, o); !errors.Is(err, ErrExists) {
				t.Errorf("a second time: %v, want ErrExists", err)
			}
			return
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("fault %d: %v", n, err)
		}
		wantTree(t, root, "note")
	}
}

// CheckDir says what CreateDir would, and leaves nothing.
func TestCheckDir(t *testing.T) {
	root := t.TempDir()
	full := filepath.Join(root, "full", "member")
	if err := os.MkdirAll(full, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		target string
		opts   Options
		want   error
	}{
		"absent":         {"a/b", Options{}, nil},
		"full":           {"full", Options{}, ErrExists},
		"among others":   {"full", Options{Among: true, Entry: "other"}, nil},
		"the entry":      {"full", Options{Among: true, Entry: "member"}, ErrExists},
		"to be replaced": {"full", Options{Replace: ".old"}, nil},
	} {
		if err := CheckDir(filepath.Join(root, test.target), test.opts); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	wantTree(t, root, "full", "full/member")
}

func TestCheckDirLetsAnOrphanBeRemoved(t *testing.T) {
	root := t.TempDir()
	orphan := filepath.Join(root, "a")
	if err := os.Mkdir(orphan, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(orphan, pendingName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckDir(orphan, Options{}); err != nil {
		t.Error(err)
	}
}
