package server_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"testing"
)

func digest(t *testing.T, name string, info os.FileInfo) string {
	t.Helper()
	if info.IsDir() {
		return "dir"
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %x", info.Size(), h.Sum(nil))
}
