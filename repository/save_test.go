package repository

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// newRepository makes an empty repository in memory.
func newRepository(t testing.TB) (*Repository, *storagetest.Memory) {
	t.Helper()
	store := storagetest.NewMemory()
	return initIn(t, store), store
}

func initIn(t testing.TB, store storage.Store) *Repository {
	t.Helper()
	repo, err := Init(t.Context(), store, InitOptions{Tool: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// put writes data as a part would be written.
func put(data []byte) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// noise is n bytes, half of which compress.
func noise(n int, seed uint64) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(data)
	for i := range data {
		if i%8 < 4 {
			data[i] = 0
		}
	}
	return data
}

// contents are the plain bytes of a backup's parts, by name.
type contents map[string][]byte

// sample has parts of several kinds and sizes.
var sample = contents{
	"db": noise(3<<20+77, 1),
	"member/wal/0000000000000000-0000000000000000.wal": noise(100, 2),
	"include/etc/kubernetes/pki/ca.crt":                {},
}

// tiny is for tests that are not about parts.
var tiny = contents{"db": []byte("data")}

func (c contents) role(name string) Role {
	switch {
	case name == "db":
		return RoleDB
	case filepath.Ext(name) == ".wal":
		return RoleWAL
	}
	return RoleInclude
}

// saveAll takes a backup of one cluster.
func saveAll(ctx context.Context, repo *Repository, cluster string, c contents, o DraftOptions) (*Backup, error) {
	d, err := repo.Begin(ctx, cluster, o)
	if err != nil {
		return nil, err
	}
	for name, data := range c {
		if _, err := d.Put(ctx, Part{Name: name, Role: c.role(name)}, put(data)); err != nil {
			return nil, err
		}
	}
	return d.Commit(ctx, Manifest{Kind: Files, Tool: "test"})
}

func mustSave(t testing.TB, repo *Repository, cluster string, c contents, o DraftOptions) *Backup {
	t.Helper()
	b, err := saveAll(t.Context(), repo, cluster, c, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mustLoad compares a backup with what it should hold.
func mustLoad(t testing.TB, repo *Repository, b *Backup, ids Identities, c contents) {
	t.Helper()
	dir := t.TempDir()
	if err := repo.Load(t.Context(), b, dir, ids, LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if !e.IsDir() {
			n++
		}
		return err
	})
	if err != nil || n != len(c) {
		t.Fatalf("%d files, %v, want %d", n, err, len(c))
	}
	for name, want := range c {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %d bytes, %v; want %d others", name, len(got), err, len(want))
		}
	}
}

func TestSaveThenLoad(t *testing.T) {
	repo, _ := newRepository(t)
	b := mustSave(t, repo, "prod", sample, DraftOptions{})
	mustLoad(t, repo, b, Identities{}, sample)
	found, _, err := repo.Find(t.Context(), Selector{})
	if err != nil || found.Digest() != b.Digest() {
		t.Fatalf("found %v, %v", found, err)
	}
	mustLoad(t, repo, found, Identities{}, sample)
}
