package repository

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// ErrTaken says that another backup has the id in the target of a copy.
var ErrTaken = errors.New("another backup has this id there")

// Copy copies a backup to the same cluster and id of another repository, the
// stored bytes as they are: no key is needed. Their digests are checked on the
// way, so that damage does not spread: it is a [*DamageError], and so is a
// backup that a proof found damaged. Proofs and holds are not copied: they say
// something of the other place.
//
// A backup that is there already is a success, and [ErrTaken] if it is another
// one. If parts of it are gone or cut there, it is mended: as one is that a copy
// left which died right after its manifest, when a prune had just removed the
// parts of another copy. A copy that died is resumed: parts that are there whole are read and
// kept, but for the smallest, which is always put again. A copy fails with
// [ErrTooLong] after [MaxSave], to be resumed, and with [ErrPruning] if the
// target is removing the same backup.
//
// Progress, which may be nil, is called with the stored bytes so far.
func Copy(ctx context.Context, from, to *Repository, b *Backup, progress func(done, total int64)) error {
	if progress == nil {
		progress = func(done, total int64) {}
	}
	c := &copying{from: from, to: to, b: b, progress: progress}
	if err := c.run(ctx); err != nil {
		return fmt.Errorf("copy backup %s of %s to %s: %w", b.ID(), b.Cluster(), to, err)
	}
	return nil
}

// copying is a Copy at work.
type copying struct {
	from, to *Repository
	b        *Backup
	began    time.Time // by our clock
	claimed  time.Time // by the target's
	done     int64     // stored bytes
	progress func(done, total int64)
}

func (c *copying) run(ctx context.Context) error {
	if p := damageFound(c.b); p != nil {
		return &DamageError{Key: c.b.key(""), What: "found damaged by " + string(p.Level), Cause: errors.New("verify it again first")}
	}
	if len(c.b.Manifest.Parts) == 0 {
		return &DamageError{Key: c.b.key(manifestName), What: "it names no part"}
	}
	sealed, _, err := sealRecord(kindManifest, c.b.Manifest)
	if err != nil {
		return err
	}
	c.claimed = time.Now() // about the time there
	there, err := c.compare(ctx, sealed)
	if err == nil && !there {
		there, err = c.copyParts(ctx, sealed)
	}
	switch {
	case err != nil:
		return err
	case !there:
		return c.finish(ctx, sealed)
	}
	if err := c.confirm(ctx); !isDamage(err) {
		return err
	}
	return c.mend(ctx)
}

// mend puts the parts that the target's backup lacks. As with any other, a
// removal that meets it is seen at its end.
func (c *copying) mend(ctx context.Context) error {
	f, err := c.to.folder(ctx, c.b.key(""))
	if err != nil {
		return err
	}
	for _, p := range c.b.Manifest.Parts {
		if err := c.resumePart(ctx, p, f); err != nil {
			return err
		}
	}
	return c.confirm(ctx)
}

// finish commits what was copied, and takes it back if it is not whole.
func (c *copying) finish(ctx context.Context, sealed []byte) error {
	if err := c.commit(ctx, sealed); err != nil {
		return err
	}
	if err := c.confirm(ctx); !isDamage(err) {
		return err
	}
	return c.takeBack(ctx)
}

func isDamage(err error) bool {
	var damage *DamageError
	return errors.As(err, &damage)
}

// compare tells whether the target has the backup, or fails with ErrTaken.
func (c *copying) compare(ctx context.Context, sealed []byte) (there bool, err error) {
	old, err := readAll(ctx, c.to.store, c.b.key(manifestName))
	switch {
	case errors.Is(err, storage.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case bytes.Equal(old, sealed):
		return true, nil
	}
	if _, err := openRecord(c.b.key(manifestName), kindManifest, old, &Manifest{}); err != nil {
		return false, fmt.Errorf("a backup is there that can't be read: %w", err)
	}
	return false, ErrTaken
}

// copyParts copies the smallest part first, whatever is there: that tells a
// prune which takes the folder for a leftover that it is not, and us the
// store's time. Only then are marks of such prunes looked for. Another copy may
// have ended meanwhile.
func (c *copying) copyParts(ctx context.Context, sealed []byte) (there bool, err error) {
	parts := slices.SortedFunc(slices.Values(c.b.Manifest.Parts), func(x, y Part) int {
		return cmp.Compare(x.StoredSize, y.StoredSize)
	})
	c.began = time.Now()
	claim, err := c.copyPart(ctx, parts[0])
	if err != nil {
		return false, err
	}
	c.claimed = claim.Modified
	f, err := c.to.folder(ctx, c.b.key(""))
	if err != nil {
		return false, err
	}
	if !f.has(parts[0].Object) || f.hasMark(func(mark storage.Object) bool { return alive(mark, c.claimed) }) {
		return false, ErrPruning
	}
	if there, err := c.compare(ctx, sealed); err != nil || there {
		return there, err
	}
	if err := c.forget(ctx, f); err != nil {
		return false, err
	}
	for _, p := range parts[1:] {
		if err := c.resumePart(ctx, p, f); err != nil {
			return false, err
		}
	}
	return false, nil
}

// forget removes what an earlier life of the backup left in the target: marks
// of prunes that died, and proofs, which are of bytes that were removed.
func (c *copying) forget(ctx context.Context, f *folder) error {
	for name, o := range f.objects {
		if isPartObject(name) || name == holdName || name == manifestName {
			continue
		}
		if err := c.to.store.Delete(ctx, o.Key); err != nil {
			return err
		}
	}
	return nil
}

// resumePart copies a part, unless the target has it: reading it tells.
func (c *copying) resumePart(ctx context.Context, p Part, f *folder) error {
	if o, there := f.objects[p.Object]; there && o.Size == p.StoredSize {
		err := readStored(ctx, c.to.store, c.b.key(p.Object), p)
		if err == nil {
			c.advance(p.StoredSize)
			return nil
		}
		if !isDamage(err) {
			return err
		}
	}
	_, err := c.copyPart(ctx, p)
	return err
}

func readStored(ctx context.Context, s storage.Store, key string, p Part) error {
	body, err := getStored(ctx, s, key, p)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, body)
	return errors.Join(cmp.Or(err, body.check()), body.Close())
}

// copyPart streams a part. The target stores it only if all of it came with
// the right digest.
func (c *copying) copyPart(ctx context.Context, p Part) (storage.Object, error) {
	key := c.b.key(p.Object)
	body, err := getStored(ctx, c.from.store, key, p)
	if err != nil {
		return storage.Object{}, err
	}
	defer body.Close()
	o, err := c.to.store.Put(ctx, key, &checkedReader{body, c.advance}, storage.PutOptions{})
	if err == nil && o.Size != p.StoredSize {
		err = fmt.Errorf("%s: the target stored %d bytes of %d", key, o.Size, p.StoredSize)
	}
	return o, err
}

// checkedReader ends with what is wrong with a stored part instead of io.EOF.
type checkedReader struct {
	*storedReader
	progress func(n int64)
}

// Read implements io.Reader.
func (r *checkedReader) Read(p []byte) (int, error) {
	n, err := r.storedReader.Read(p)
	r.progress(int64(n))
	if err == io.EOF {
		err = cmp.Or(r.check(), io.EOF)
	}
	return n, err
}

func (c *copying) advance(n int64) {
	c.done += n
	_, total := c.b.Size()
	c.progress(c.done, total)
}

// commit puts the manifest, once every part is there.
func (c *copying) commit(ctx context.Context, sealed []byte) error {
	f, err := c.to.folder(ctx, c.b.key(""))
	if err != nil {
		return err
	}
	if err := c.b.missing(f); err != nil {
		return fmt.Errorf("%w: %w", ErrPruning, err)
	}
	if age := elapsed(c.began); age > MaxSave {
		return fmt.Errorf("%w: %v of at most %v; copy it again to go on", ErrTooLong, age.Round(time.Minute), MaxSave)
	}
	err = putSealed(ctx, c.to.store, c.b.key(manifestName), sealed)
	if err == nil {
		return nil
	}
	there, compareErr := c.compare(ctx, sealed)
	switch {
	case there, errors.Is(compareErr, ErrTaken):
		return compareErr
	case compareErr == nil && errors.Is(err, storage.ErrExist):
		return errRemovedThere
	}
	return errors.Join(err, compareErr)
}

// missing says which part a folder lacks.
func (b *Backup) missing(f *folder) error {
	for _, p := range b.Manifest.Parts {
		o, there := f.objects[p.Object]
		switch {
		case !there:
			return &DamageError{Key: b.key(p.Object), What: gone}
		case o.Size != p.StoredSize:
			return &DamageError{Key: b.key(p.Object), What: "stored size", Found: fmt.Sprint(o.Size), Want: fmt.Sprint(p.StoredSize)}
		}
	}
	return nil
}

// confirm looks whether the target has the backup, manifest and parts, and
// nobody is removing it.
func (c *copying) confirm(ctx context.Context) error {
	f, err := c.to.awaitRemoval(ctx, c.b.key(""), c.claimed)
	switch {
	case err != nil:
		return err
	case !f.committed():
		return errRemovedThere
	}
	return c.b.missing(f)
}

var errRemovedThere = fmt.Errorf("%w: it was removed there meanwhile", ErrNotExist)

// takeBack removes the backup from the target, as a prune does, if parts of it
// are not there: a prune removed the same backup, of another copy, while ours
// put the manifest.
func (c *copying) takeBack(ctx context.Context) error {
	m, err := c.to.putMark(ctx, c.b.Cluster(), c.b.ID())
	if err != nil {
		return err
	}
	f, err := c.to.folder(ctx, m.folder)
	switch {
	case err != nil:
		return m.giveUp(ctx, err)
	case !f.committed():
		return m.giveUp(ctx, errRemovedThere)
	}
	damage := c.b.missing(f)
	if damage == nil || f.has(holdName) {
		return m.giveUp(ctx, damage)
	}
	if err := m.deleteManifest(ctx); err != nil {
		return m.giveUp(ctx, errors.Join(damage, err))
	}
	return errors.Join(errRemovedThere, m.clear(ctx))
}
