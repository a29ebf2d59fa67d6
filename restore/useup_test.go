package restore

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
)

// twoTargets are in root.
func twoTargets(root string) []Target {
	return []Target{{Name: "m1", Dir: filepath.Join(root, "a")}, {Name: "m2", Dir: filepath.Join(root, "b")}}
}

// scratchCopy is a copy of a file, with other permissions.
func scratchCopy(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	scratch := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(scratch, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return scratch
}

// wantSameTree compares all files below two folders, and their permissions.
func wantSameTree(t *testing.T, got, want string) {
	t.Helper()
	err := filepath.WalkDir(want, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(want, path)
		g, gotErr := os.ReadFile(filepath.Join(got, rel))
		w, wantErr := os.ReadFile(path)
		if err := errors.Join(gotErr, wantErr); err != nil {
			return err
		}
		if !bytes.Equal(g, w) {
			t.Errorf("%s differs", rel)
		}
		if info, err := os.Stat(filepath.Join(got, rel)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", rel, info, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// otherFileSystem lets every file that is moved in look like one of another
// file system.
var otherFileSystem = atomicfile.System{Before: func(op atomicfile.Op, path string) error {
	if op == atomicfile.OpRename && filepath.Base(path) == "db" {
		return syscall.EXDEV
	}
	return nil
}}

// A source that is used up gives the same, byte by byte, as one that stays.
func TestUsedUpSource(t *testing.T) {
	for name, sys := range map[string]atomicfile.System{"moved": {}, "copied": otherFileSystem} {
		t.Run(name, func(t *testing.T) {
			path := snapshotFile(t, "3.5.33")
			root, want := t.TempDir(), t.TempDir()
			run(t, path, twoTargets(want), Options{CompareKeys: true})
			scratch := scratchCopy(t, path)
			run(t, scratch, twoTargets(root), Options{CompareKeys: true, UseUp: true, System: sys})
			wantSameTree(t, root, want)
			if _, err := os.Stat(scratch); (name == "moved") != errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the source: %v", err)
			}
		})
	}
}

// A source that is damaged stays where it is.
func TestDamagedSourceIsNotUsedUp(t *testing.T) {
	scratch := scratchCopy(t, snapshotFile(t, "3.5.33"))
	content, err := os.ReadFile(scratch)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-1] ^= 1
	if err := os.WriteFile(scratch, content, 0o644); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := restoreTo(scratch, filepath.Join(root, "a"), Options{CompareKeys: true, UseUp: true}); err == nil {
		t.Fatal("restored from a damaged source")
	}
	wantNames(t, root)
	if after, err := os.ReadFile(scratch); err != nil || !bytes.Equal(after, content) {
		t.Errorf("the source has changed: %v", err)
	}
}

func TestEveryFaultOfAUsedUpSourceLeavesNothing(t *testing.T) {
	path := snapshotFile(t, "3.5.33")
	for n := int64(1); ; n++ {
		root := t.TempDir()
		src := openFile(t, scratchCopy(t, path))
		p, err := NewPlan(src, newCluster(t, threeMembers, ""), twoTargets(root), Options{System: atomicfile.FailAt(n, errInjected), UseUp: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = p.Apply(context.Background(), silent); err == nil {
			wantNames(t, root, "a", "b")
			return
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("fault %d: %v", n, err)
		}
		wantNames(t, root)
	}
}
