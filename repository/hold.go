package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// ErrPruning says that a removal of the backup is under way, or died less than
// two hours ago, so that nobody can tell yet whether the backup stays.
var ErrPruning = errors.New("a removal of it is under way")

// How long to wait for a removal to end or withdraw, and how long between the
// first looks and the later ones.
const (
	pruneWait    = 15 * time.Second
	pruneLook    = 250 * time.Millisecond
	pruneLookMax = 2 * time.Second
)

// Hold keeps a backup from being pruned until [Repository.Release]. Once it
// has returned nil, no prune removes the backup. It is no error to hold a
// backup again for the same reason; for another it is, and the old hold
// stands.
//
// If a prune is removing the backup just now, Hold waits a little for what
// comes of it. It fails with [ErrNotExist] if the backup is gone, and with
// [ErrPruning] if that is not decided yet: then the hold is there, and binds
// every prune that has not looked for it yet. To hold again tells.
func (r *Repository) Hold(ctx context.Context, b *Backup, reason string) error {
	h := Hold{Format: Format, Cluster: b.Cluster(), ID: b.ID(), Time: stamp(time.Now()), Reason: reason, Host: hostname()}
	if err := r.hold(ctx, b, h); err != nil {
		return fmt.Errorf("hold backup %s of %s: %w", b.ID(), b.Cluster(), err)
	}
	b.Hold = &h
	return nil
}

func (r *Repository) hold(ctx context.Context, b *Backup, h Hold) error {
	if !printable(h.Reason) {
		return fmt.Errorf("the reason %q is not text on one line", h.Reason)
	}
	if err := r.sameManifest(ctx, b); err != nil {
		return err
	}
	put, err := r.putHold(ctx, b, h)
	if err != nil {
		return err
	}
	if _, err := r.awaitRemoval(ctx, b.key(""), put.Modified); err != nil {
		return err
	}
	return r.sameManifest(ctx, b)
}

// sameManifest fails with ErrNotExist if the backup is gone, or another is in
// its place.
func (r *Repository) sameManifest(ctx context.Context, b *Backup) error {
	var m Manifest
	digest, err := getRecord(ctx, r.store, b.key(manifestName), kindManifest, &m)
	if errors.Is(err, storage.ErrNotExist) || err == nil && digest != b.digest {
		return fmt.Errorf("%w: it was removed", ErrNotExist)
	}
	return err
}

// putHold puts the hold, or again one of the same reason.
func (r *Repository) putHold(ctx context.Context, b *Backup, h Hold) (storage.Object, error) {
	sealed, _, err := sealRecord(kindHold, h)
	if err != nil {
		return storage.Object{}, err
	}
	key := b.key(holdName)
	o, err := r.store.Put(ctx, key, bytes.NewReader(sealed), storage.PutOptions{CreateOnly: true})
	if !errors.Is(err, storage.ErrExist) {
		return o, err
	}
	var old Hold
	if _, err := getRecord(ctx, r.store, key, kindHold, &old); err != nil {
		return storage.Object{}, fmt.Errorf("a hold is there already: %w", err)
	}
	if old.Reason != h.Reason {
		return storage.Object{}, fmt.Errorf("it is held already, since %s: %q", old.Time.Format(time.RFC3339), old.Reason)
	}
	return r.store.Put(ctx, key, bytes.NewReader(sealed), storage.PutOptions{})
}

// awaitRemoval waits until the folder has no mark of a removal that was alive
// at a time of the store's clock, and returns what is in it then.
func (r *Repository) awaitRemoval(ctx context.Context, prefix string, at time.Time) (*folder, error) {
	live := func(mark storage.Object) bool { return alive(mark, at) }
	began := time.Now()
	for wait := pruneLook; ; wait = min(2*wait, pruneLookMax) {
		f, err := r.folder(ctx, prefix)
		if err != nil || !f.hasMark(live) {
			return f, err
		}
		if elapsed(began) >= pruneWait {
			return nil, ErrPruning
		}
		if err := pause(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Release takes a hold away. A backup that is not held is no error.
func (r *Repository) Release(ctx context.Context, b *Backup) error {
	if err := r.store.Delete(ctx, b.key(holdName)); err != nil {
		return fmt.Errorf("release backup %s of %s: %w", b.ID(), b.Cluster(), err)
	}
	b.Hold = nil
	return nil
}
