package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// MaxSave is how long after [Repository.Begin] a draft can still be committed.
// What is older is left to the cleaning of leftovers, which waits at least
// twice as long, so that the two never meet.
const MaxSave = 12 * time.Hour

// DraftOptions of a Begin; the zero value works.
type DraftOptions struct {
	Recipients  Recipients
	Compression Compression
	Labels      map[string]string
	Now         func() time.Time // nil: time.Now
}

// Draft is a backup in the making. Nobody sees it as a backup before Commit.
// Its methods may be called at once.
type Draft struct {
	repo    *Repository
	cluster string
	id      string
	started time.Time
	o       DraftOptions

	mu    sync.Mutex
	parts map[string]Part     // by name
	tried map[string]struct{} // objects that may be there
}

// Begin starts a backup of a cluster. Nothing is written yet.
func (r *Repository) Begin(_ context.Context, cluster string, o DraftOptions) (*Draft, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	started := o.Now()
	return &Draft{
		repo: r, cluster: cluster, id: newID(started), started: started, o: o,
		parts: map[string]Part{}, tried: map[string]struct{}{},
	}, nil
}

// ID is the id that the backup will have.
func (d *Draft) ID() string { return d.id }

// Put stores a part: what write writes, compressed and, if the draft has
// recipients, encrypted, streamed into the store. Of part, Name, Role and Mode
// are taken; the part returned has the rest. An error of write, or of the
// store, ends both and stores nothing; Put may then be tried again. The
// context that write gets ends when the store fails. A name that was put is an
// error until it is removed.
func (d *Draft) Put(ctx context.Context, part Part, write func(context.Context, io.Writer) error) (Part, error) {
	part.Object = path.Base(part.Name) + ".zst"
	key := backupPrefix(d.cluster, d.id) + part.Object
	if err := d.sealTo(ctx, key, &part, write); err != nil {
		return Part{}, fmt.Errorf("put %s: %w", part.Name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parts[part.Name] = part
	return part, nil
}

// Remove takes a part back, so that it can be put again or left out. One that
// was not put is no error.
func (d *Draft) Remove(ctx context.Context, name string) error {
	d.mu.Lock()
	part, ok := d.parts[name]
	delete(d.parts, name)
	d.mu.Unlock()
	if !ok {
		return nil
	}
	return d.repo.store.Delete(ctx, backupPrefix(d.cluster, d.id)+part.Object)
}

// Commit makes the draft a backup. Of facts it takes what describes the data;
// format, id, cluster, times, parts, compression, recipients and labels are
// the draft's own.
//
// Every part must be in the store with its size. It fails with [ErrTooLong]
// more than [MaxSave] after Begin. When Commit returns nil the backup is
// durable. When it fails, the backup may be there all the same if the store's
// answer was lost, and then it is whole.
func (d *Draft) Commit(ctx context.Context, facts Manifest) (*Backup, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.manifest(facts)
	if age := m.Finished.Sub(m.Started); age > MaxSave {
		return nil, fmt.Errorf("commit %s: %w: %v", d.id, ErrTooLong, age)
	}
	for _, p := range m.Parts {
		if err := checkStored(ctx, d.repo.store, backupPrefix(d.cluster, d.id)+p.Object, p.StoredSize); err != nil {
			return nil, fmt.Errorf("commit %s: %w", d.id, err)
		}
	}
	sealed, digest, err := sealRecord(kindManifest, m)
	if err == nil {
		err = putSealed(ctx, d.repo.store, backupPrefix(d.cluster, d.id)+manifestName, sealed)
	}
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", d.id, err)
	}
	return &Backup{Manifest: m, repo: d.repo, digest: digest}, nil
}

func (d *Draft) manifest(facts Manifest) Manifest {
	m := facts
	m.Format, m.ID, m.Cluster = Format, d.id, d.cluster
	m.Started, m.Finished = stamp(d.started), stamp(d.o.Now())
	m.Parts = make([]Part, 0, len(d.parts))
	for _, p := range d.parts {
		m.Parts = append(m.Parts, p)
	}
	slices.SortFunc(m.Parts, func(a, b Part) int { return cmp.Compare(a.Name, b.Name) })
	m.Compression = "zstd"
	m.Labels = d.o.Labels
	if m.Recipients = d.o.Recipients.Names(); len(m.Recipients) > 0 {
		m.Encryption = "age"
	}
	return m
}

// checkStored tells whether an object is there with a size.
func checkStored(ctx context.Context, s storage.Store, key string, size int64) error {
	o, err := s.Stat(ctx, key)
	if errors.Is(err, storage.ErrNotExist) {
		return &DamageError{Key: key, What: "it is gone", Cause: err}
	}
	if err == nil && o.Size != size {
		return &DamageError{Key: key, What: "stored size", Found: fmt.Sprint(o.Size), Want: fmt.Sprint(size)}
	}
	return err
}

// Abort removes what was put, unless Commit began to write the manifest: then
// it leaves the parts, since the manifest may be there or yet arrive, and the
// cleaning of leftovers decides. It works with a ctx that has ended, and takes
// up to a minute then. After a Commit that returned nil it does nothing.
func (d *Draft) Abort(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, p := range d.parts {
		errs = append(errs, d.repo.store.Delete(ctx, backupPrefix(d.cluster, d.id)+p.Object))
	}
	return errors.Join(errs...)
}
