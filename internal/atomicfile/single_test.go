package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// save writes text to target, after a first try that is thrown away.
func save(target, text string, sys System) error {
	s, err := CreateFile(target, Options{System: sys})
	if err != nil {
		return err
	}
	defer s.Abort()
	if _, err := s.Write([]byte("a first try that broke off")); err != nil {
		return err
	}
	if err := s.Restart(); err != nil {
		return err
	}
	if _, err := s.Write([]byte(text)); err != nil {
		return err
	}
	return s.Commit()
}

func TestFileIsTheOldOrTheNew(t *testing.T) {
	for n := 1; ; n++ {
		root := t.TempDir()
		target := filepath.Join(root, "f")
		if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		count := 0
		err := save(target, "new", System{Before: func(Op, string) error {
			if count++; count == n {
				return errInjected
			}
			return nil
		}})
		got, readErr := os.ReadFile(target)
		if readErr != nil {
			t.Fatal(readErr)
		}
		wantTree(t, root, "f")
		if err == nil {
			if string(got) != "new" || n < 6 {
				t.Fatalf("the file holds %q after %d operations", got, n-1)
			}
			return
		}
		if !errors.Is(err, errInjected) || string(got) != "old" && string(got) != "new" {
			t.Fatalf("fault %d: %v, the file holds %q", n, err, got)
		}
	}
}

func TestFileLeftoversAreReplaced(t *testing.T) {
	root := t.TempDir()
	target := filepath.Join(root, "f")
	dead, err := CreateFile(target, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dead.Write([]byte("a write that was cut short by a crash")); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateFile(target, Options{}); !errors.Is(err, ErrBusy) {
		t.Errorf("while it is written: %v, want ErrBusy", err)
	}
	dead.lock.Close() // as the death of its process would
	if err := save(target, "new", System{}); err != nil {
		t.Fatal(err)
	}
	wantTree(t, root, "f")
}

func TestFileOverAFolder(t *testing.T) {
	if _, err := CreateFile(t.TempDir(), Options{}); err == nil {
		t.Error("a folder is taken for a file to replace")
	}
}
