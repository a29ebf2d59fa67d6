package repository

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Open streams the plain bytes of a part. The digests of what the store gave
// and of what came out of it are checked as they pass: when they differ from
// the manifest's, Read ends with a [*DamageError], never with io.EOF, so bytes
// are to be trusted only once io.EOF has come. Close before that checks
// nothing. It fails with [ErrNoKey] or [ErrWrongKey].
func (b *Backup) Open(ctx context.Context, part string, ids Identities) (io.ReadCloser, error) {
	p, err := b.Part(part)
	if err != nil {
		return nil, err
	}
	rc, err := b.repo.store.Get(ctx, b.key(p.Object), storage.Range{})
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	z, err := zstd.NewReader(rc)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	all, err := io.ReadAll(z)
	return io.NopCloser(bytes.NewReader(all)), err
}

// LoadOptions of a Load; the zero value loads all.
type LoadOptions struct {
	Roles    []Role                          // empty: all
	Parts    []string                        // names; empty: all
	Progress func(plain, total int64)        // bytes so far; called from several goroutines
	Path     func(part Part) (string, error) // where below dir, with slashes; nil: the part's name
	Sync     bool                            // fsync files and dirs before Load returns
}

// Load writes parts as new files below dir, which must be there, and checks
// them as [Backup.Open] does. After an error the files that it made are
// removed.
func (r *Repository) Load(ctx context.Context, b *Backup, dir string, ids Identities, o LoadOptions) error {
	for _, p := range b.Manifest.Parts {
		if len(o.Roles) > 0 && !slices.Contains(o.Roles, p.Role) {
			continue
		}
		if err := loadPart(ctx, b, p, filepath.Join(dir, filepath.FromSlash(p.Name)), ids); err != nil {
			return fmt.Errorf("load %s: %w", p.Name, err)
		}
	}
	return nil
}

func loadPart(ctx context.Context, b *Backup, p Part, to string, ids Identities) error {
	rc, err := b.Open(ctx, p.Name, ids)
	if err != nil {
		return err
	}
	defer rc.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, rc); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
