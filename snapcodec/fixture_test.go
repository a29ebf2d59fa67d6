package snapcodec

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// fixtureSnaps lists every real .snap file.
func fixtureSnaps(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("testdata/etcd-*/*.snap")
	if err != nil || len(names) != 4 {
		t.Fatalf("fixtures: %v, %v", names, err)
	}
	return names
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readJSON(t testing.TB, name string, v any) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, name), v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// openBytes opens a snapshot held in memory.
func openBytes(t testing.TB, b []byte) *Snap {
	t.Helper()
	s, err := OpenSnap(bytes.NewReader(b), int64(len(b)), SnapOptions{Name: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
