package prove

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/backup/save"
	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

func newRepo(t *testing.T) *repository.Repository {
	t.Helper()
	repo, err := repository.Init(t.Context(), storagetest.NewMemory(), repository.InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// Every fixture, saved as files, boots and is what its manifest says; the proof
// is beside the backup.
func TestStored(t *testing.T) {
	for _, name := range fixture.Names() {
		t.Run(name, func(t *testing.T) {
			repo := newRepo(t)
			b, err := save.Files(t.Context(), repo, "c", fixture.DataDir(t, name), save.FilesOptions{})
			if err != nil {
				t.Fatal(err)
			}
			report, err := Stored(t.Context(), repo, b, StoredOptions{Tool: "test"})
			if err != nil || report.Result != Passed || report.Level != Boot {
				t.Fatalf("%+v, %v", report, err)
			}
			again, err := repo.Backup(t.Context(), "c", b.ID())
			if err != nil {
				t.Fatal(err)
			}
			proof := again.Proven(Boot)
			if proof == nil || proof.Tool != "test" || len(proof.Checks) != len(report.Checks) {
				t.Errorf("proof %+v", proof)
			}
		})
	}
}

// A backup whose manifest says other than its parts hold is damaged, however
// well it boots.
func TestStoredComparesWithTheManifest(t *testing.T) {
	dir := fixture.DataDir(t, "3.5.33")
	b, err := save.Files(t.Context(), newRepo(t), "c", dir, save.FilesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	other := uint32(7)
	fewer := *b.Manifest.Keys - 1
	for name, change := range map[string]func(*repository.Manifest){
		"revision": func(m *repository.Manifest) { m.Revision++ },
		"hashKV":   func(m *repository.Manifest) { m.HashKV = &other },
		"keys":     func(m *repository.Manifest) { m.Keys = &fewer },
		"compact":  func(m *repository.Manifest) { m.CompactRevision += 3 },
	} {
		t.Run(name, func(t *testing.T) {
			repo := newRepo(t)
			facts := b.Manifest
			change(&facts)
			changed := saveTree(t, repo, dir, facts)
			report, err := Stored(t.Context(), repo, changed, StoredOptions{Level: Structure})
			if err != nil || report.Result != Damaged {
				t.Fatalf("%+v, %v", report, err)
			}
			if changed.Proven(Digest) != nil {
				t.Error("it counts as proven")
			}
			for _, c := range report.Checks {
				if (c.Result == Damaged) != (c.Name == "manifest") {
					t.Errorf("%s: %s %v", c.Name, c.Result, c.Problems)
				}
			}
		})
	}
}

// saveTree puts the files of a data dir there, with facts of the caller's.
func saveTree(t *testing.T, repo *repository.Repository, dir string, facts repository.Manifest) *repository.Backup {
	t.Helper()
	draft, err := repo.Begin(t.Context(), "c", repository.DraftOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range facts.Parts {
		_, err := draft.Put(t.Context(), repository.Part{Name: part.Name, Role: part.Role}, func(_ context.Context, w io.Writer) error {
			data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(part.Name)))
			if err == nil {
				_, err = w.Write(data[:part.Size])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := draft.Commit(t.Context(), facts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStoredWithoutTheKey(t *testing.T) {
	recipients, err := repository.ReadRecipients(repository.RecipientOptions{Passphrase: "open sesame"})
	if err != nil {
		t.Fatal(err)
	}
	repo := newRepo(t)
	b, err := save.Files(t.Context(), repo, "c", fixture.DataDir(t, "3.5.33"), save.FilesOptions{Options: save.Options{Recipients: recipients}})
	if err != nil {
		t.Fatal(err)
	}
	if report, err := Stored(t.Context(), repo, b, StoredOptions{Level: Digest}); err != nil || report.Result != Passed {
		t.Errorf("digest: %+v, %v", report, err)
	}
	if _, err := Stored(t.Context(), repo, b, StoredOptions{Level: Structure}); err == nil || !strings.Contains(err.Error(), "no key was given") {
		t.Errorf("structure: %v", err)
	}
	if n := len(b.Proofs); n != 1 {
		t.Errorf("%d proofs: what was not done proves nothing", n)
	}
}
