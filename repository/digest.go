package repository

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// CheckDigests reads the stored bytes of every part and compares their size
// and SHA-256 with the manifest's. It needs no key. Damage has a
// [*DamageError] for each part that has it; err says that the check could not
// run to its end, and then what is in damage is not all. Progress, which may
// be nil, is called with the stored bytes so far, from several goroutines.
func (r *Repository) CheckDigests(ctx context.Context, b *Backup, progress func(done, total int64)) (damage []error, err error) {
	for _, p := range b.Manifest.Parts {
		var bad *DamageError
		if err := checkPart(ctx, r.store, b.key(p.Object), p); errors.As(err, &bad) {
			damage = append(damage, bad)
		} else if err != nil {
			return damage, err
		}
	}
	return damage, nil
}

func checkPart(ctx context.Context, s storage.Store, key string, p Part) error {
	rc, err := s.Get(ctx, key, storage.Range{})
	if errors.Is(err, storage.ErrNotExist) {
		return &DamageError{Key: key, What: "it is gone", Cause: err}
	}
	if err != nil {
		return err
	}
	defer rc.Close()
	m := newMeter()
	if _, err := io.Copy(m, rc); err != nil {
		return err
	}
	if m.n != p.StoredSize {
		return &DamageError{Key: key, What: "stored size", Found: fmt.Sprint(m.n), Want: fmt.Sprint(p.StoredSize)}
	}
	if m.sum() != p.StoredSHA256 {
		return &DamageError{Key: key, What: "stored SHA-256", Found: m.sum(), Want: p.StoredSHA256}
	}
	return nil
}
