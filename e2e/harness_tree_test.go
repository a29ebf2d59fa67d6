//go:build e2e

package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// contents lists a tree: one line an entry with its mode, size and digest.
func contents(t testing.TB, root string) []string {
	t.Helper()
	return walk(t, root, func(path string, info fs.FileInfo) string {
		return fmt.Sprintf("%s %v %s", path, info.Mode(), digest(t, filepath.Join(root, path), info))
	})
}

// state is [contents] and every modification time, to show that nothing
// touched the tree.
func state(t testing.TB, root string) []string {
	t.Helper()
	return walk(t, root, func(path string, info fs.FileInfo) string {
		return fmt.Sprintf("%s %v %s %d", path, info.Mode(), digest(t, filepath.Join(root, path), info), info.ModTime().UnixNano())
	})
}

func walk(t testing.TB, root string, line func(path string, info fs.FileInfo) string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		all = append(all, line(rel, info))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func digest(t testing.TB, path string, info fs.FileInfo) string {
	t.Helper()
	if !info.Mode().IsRegular() {
		return "-"
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %x", n, h.Sum(nil))
}

// untouched returns a check that the tree is still as it is now.
func untouched(t testing.TB, root string) func() {
	t.Helper()
	before := state(t, root)
	return func() {
		t.Helper()
		if diff := diffLines(state(t, root), before); diff != "" {
			t.Errorf("%s was touched:\n%s", root, diff)
		}
	}
}

// mustHoldOnly fails the test when the folder holds anything but these names:
// a target half made, or what its making left behind.
func mustHoldOnly(t testing.TB, folder string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := diffLines(got, names); diff != "" {
		t.Errorf("in %s:\n%s", folder, diff)
	}
}
