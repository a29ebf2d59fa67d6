package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTempDirsOfTheDeadAreRemoved(t *testing.T) {
	parent := t.TempDir()
	alive, err := NewTempDir(parent, "clone")
	if err != nil {
		t.Fatal(err)
	}
	dead, err := NewTempDir(parent, "clone")
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(parent, "lifeboat-notes")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	dead.lock.Close() // as the death of its process would
	last, err := NewTempDir(parent, "verify")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{alive.Path: true, dead.Path: false, foreign: true, last.Path: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", path, err == nil, want)
		}
	}
	if err := last.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(last.Path); err == nil {
		t.Errorf("%s was not removed", last.Path)
	}
}
