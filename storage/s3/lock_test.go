package s3

import (
	"errors"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
	"github.com/etcd-lifeboat/lifeboat/storage"
)

func TestVersions(t *testing.T) {
	server := s3server.Start(t, s3server.Options{Lock: true})
	server.Setenv(t)
	s := mustOpen(t, on(server, "p"), quick())
	put := func(data string, createOnly bool) error {
		_, err := s.Put(t.Context(), "a", strings.NewReader(data), storage.PutOptions{CreateOnly: createOnly})
		return err
	}
	if err := put("1", true); err != nil {
		t.Fatal(err)
	}
	if err := put("2", true); !errors.Is(err, storage.ErrExist) {
		t.Errorf("create again: %v, want ErrExist", err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("stat what was deleted: %v, want ErrNotExist", err)
	}
	if err := put("3", true); err != nil {
		t.Errorf("create what was deleted: %v", err)
	}
}
