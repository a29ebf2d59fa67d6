package repository

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// CheckDigests reads the stored bytes of every part and compares their size
// and SHA-256 with the manifest's. It needs no key. Damage has a
// [*DamageError] for each part that has it, in the order of the parts; err says
// that the check could not run to its end, and then what is in damage is not
// all. Progress, which may be nil, is called with the stored bytes so far, from
// several goroutines.
func (r *Repository) CheckDigests(ctx context.Context, b *Backup, progress func(done, total int64)) (damage []error, err error) {
	p := newProgress(progress)
	_, p.total = b.Size()
	found := make([]error, len(b.Manifest.Parts))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(loaders)
	for i, part := range b.Manifest.Parts {
		g.Go(func() error {
			err := checkPart(gctx, r.store, b.key(part.Object), part, p)
			var bad *DamageError
			if errors.As(err, &bad) {
				found[i] = bad
				return nil
			}
			return err
		})
	}
	if err = g.Wait(); err != nil {
		err = fmt.Errorf("check backup %s: %w", b.ID(), err)
	}
	for _, bad := range found {
		if bad != nil {
			damage = append(damage, bad)
		}
	}
	return damage, err
}

// checkPart compares what is stored with the manifest.
func checkPart(ctx context.Context, s storage.Store, key string, part Part, p *progress) error {
	stored, err := getStored(ctx, s, key, part)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(nowhere{}, p.reader(stored), make([]byte, checkBuffer))
	if err == nil {
		err = stored.check()
	}
	return errors.Join(err, stored.Close())
}

const checkBuffer = 256 << 10 // bytes

// nowhere is io.Discard, but lets others choose the size of reads.
type nowhere struct{}

// Write implements io.Writer.
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
