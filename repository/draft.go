package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// MaxSave is how long after [Repository.Begin] a draft can still be committed.
// What is older is left to the cleaning of leftovers, which waits at least
// twice as long, so that the two never meet.
const MaxSave = 12 * time.Hour

// grace is how long what has to be done goes on after its context ended.
const grace = time.Minute

// DraftOptions of a Begin; the zero value works.
type DraftOptions struct {
	Recipients  Recipients
	Compression Compression
	Labels      map[string]string
	Now         func() time.Time // nil: time.Now
}

// Draft is a backup in the making. Nobody sees it as a backup before Commit.
// Its methods may be called at once, but nothing else once Commit or Abort is.
type Draft struct {
	repo    *Repository
	cluster string
	id      string
	started time.Time
	o       DraftOptions
	sealer  *sealer
	ended   context.Context // by Commit or Abort
	end     context.CancelFunc
	puts    sync.WaitGroup

	mu        sync.Mutex
	parts     map[string]Part   // by name; with no Object while a Put is under way
	tried     map[string]string // objects that may be there, by lower-case name
	committed bool
	uncertain bool // the manifest may be there
}

// errEnded is the cause of a Put that met Commit or Abort.
var errEnded = errors.New("the draft was committed or aborted")

// Begin starts a backup of a cluster. Nothing is written yet.
func (r *Repository) Begin(_ context.Context, cluster string, o DraftOptions) (*Draft, error) {
	if err := errors.Join(CheckCluster(cluster), checkLabels(o.Labels)); err != nil {
		return nil, fmt.Errorf("begin a backup: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Labels = maps.Clone(o.Labels)
	s, err := newSealer(o.Compression, o.Recipients)
	if err != nil {
		return nil, fmt.Errorf("begin a backup: %w", err)
	}
	started := o.Now()
	d := &Draft{
		repo: r, cluster: cluster, id: newID(started), started: started, o: o, sealer: s,
		parts: map[string]Part{}, tried: map[string]string{},
	}
	d.ended, d.end = context.WithCancel(context.Background())
	return d, nil
}

// ID is the id that the backup will have.
func (d *Draft) ID() string { return d.id }

func (d *Draft) key(object string) string { return backupPrefix(d.cluster, d.id) + object }

// Put stores a part: what write writes, compressed and, if the draft has
// recipients, encrypted, streamed into the store. Of part, Name, Role and Mode
// are taken; the part returned has the rest. An error of write, or of the
// store, ends both, and the draft is without the part; Put may then be tried
// again. The context that write gets ends when the store fails. A name that
// was put is an error until it is removed.
//
// A draft seals two parts at a time, more wait. It takes about 12 MiB for one
// and 18 MiB for two, besides what the store does; 10 MiB more with
// [CompressBetter].
func (d *Draft) Put(ctx context.Context, part Part, write func(context.Context, io.Writer) error) (Part, error) {
	object, err := d.reserve(part)
	if err != nil {
		return Part{}, fmt.Errorf("part %s: %w", part.Name, err)
	}
	defer d.puts.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.ended, func() { cancel(errEnded) })()

	part = Part{Name: part.Name, Object: object, Role: part.Role, Mode: part.Mode}
	sealed, err := d.sealer.put(ctx, d.repo.store, d.key(object), part, write)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		delete(d.parts, part.Name)
		return Part{}, fmt.Errorf("part %s: %w", part.Name, err)
	}
	d.parts[part.Name] = sealed
	return sealed, nil
}

// reserve takes a part's name and returns that of its object, which no other
// try had: what is left of one that failed may still arrive.
func (d *Draft) reserve(part Part) (object string, err error) {
	if err := errors.Join(checkPartName(part.Name), checkRole(part.Role)); err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended.Err() != nil {
		return "", errEnded
	}
	if _, there := d.parts[part.Name]; there {
		return "", errors.New("it was put already")
	}
	object = d.freeObject(objectName(part.Role, part.Name))
	d.parts[part.Name] = Part{}
	d.tried[strings.ToLower(object)] = object
	d.puts.Add(1)
	return object, nil
}

func (d *Draft) freeObject(base string) string {
	suffix := sealedSuffix
	if len(d.o.Recipients.list) > 0 {
		suffix += encryptedSuffix
	}
	for n, object := 2, base+suffix; ; n++ {
		if _, taken := d.tried[strings.ToLower(object)]; !taken {
			return object
		}
		object = fmt.Sprintf("%s-%d%s", base, n, suffix)
	}
}

// Remove takes a part back, so that it can be put again or left out. One that
// was not put is no error.
func (d *Draft) Remove(ctx context.Context, name string) error {
	d.mu.Lock()
	part, there := d.parts[name]
	if part.Object != "" {
		delete(d.parts, name)
	}
	d.mu.Unlock()
	switch {
	case !there:
		return nil
	case part.Object == "":
		return fmt.Errorf("remove %s: it is being put", name)
	}
	return d.repo.store.Delete(ctx, d.key(part.Object))
}

// Commit makes the draft a backup. Of facts it takes what describes the data;
// format, id, cluster, times, parts, compression, recipients and labels are
// the draft's own.
//
// Every part must be in the store with its size. It fails with [ErrTooLong]
// more than [MaxSave] after Begin. When Commit returns nil the backup is
// durable. When it fails, the backup may be there all the same, and whole, if
// the store's answer was lost and it could not be asked again.
func (d *Draft) Commit(ctx context.Context, facts Manifest) (*Backup, error) {
	d.stopPuts()
	d.mu.Lock()
	defer d.mu.Unlock()
	b, err := d.commit(ctx, facts)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", d.id, err)
	}
	d.committed = true
	return b, nil
}

func (d *Draft) commit(ctx context.Context, facts Manifest) (*Backup, error) {
	if d.committed || d.uncertain {
		return nil, errors.New("it was committed before")
	}
	m := d.manifest(facts)
	sealed, digest, err := sealRecord(kindManifest, m)
	if err != nil {
		return nil, err
	}
	b := &Backup{Manifest: m, repo: d.repo, digest: digest}
	if err := b.check(); err != nil {
		return nil, err
	}
	if err := d.checkParts(ctx, m.Parts); err != nil {
		return nil, err
	}
	d.removeStray(ctx, m.Parts)
	if age := d.age(); age > MaxSave {
		return nil, fmt.Errorf("%w: %v of at most %v", ErrTooLong, age.Round(time.Minute), MaxSave)
	}
	d.uncertain = true
	if err := d.putManifest(ctx, sealed); err != nil {
		return nil, err
	}
	return b, nil
}

// putManifest asks again whatever the store answers: what is there with our
// bytes is a success, even if ctx ended meanwhile.
func (d *Draft) putManifest(ctx context.Context, sealed []byte) error {
	err := putSealed(ctx, d.repo.store, d.key(manifestName), sealed)
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if sameBytes(ctx, d.repo.store, d.key(manifestName), sealed) {
		return nil
	}
	return err
}

func (d *Draft) checkParts(ctx context.Context, parts []Part) error {
	if len(parts) == 0 {
		return errors.New("no part was put")
	}
	for _, p := range parts {
		if err := checkStored(ctx, d.repo.store, d.key(p.Object), p.StoredSize); err != nil {
			return err
		}
	}
	return nil
}

// removeStray removes what failed Puts left. What it can't remove is listed as
// stray.
func (d *Draft) removeStray(ctx context.Context, parts []Part) {
	for _, object := range d.tried {
		if !slices.ContainsFunc(parts, func(p Part) bool { return p.Object == object }) {
			_ = d.repo.store.Delete(ctx, d.key(object))
		}
	}
}

// age is how long ago the draft began, by the clock that counted more of it:
// one may have been set, the other may have slept.
func (d *Draft) age() time.Duration {
	now := d.o.Now()
	return max(now.Sub(d.started), now.Round(0).Sub(d.started.Round(0)))
}

func (d *Draft) manifest(facts Manifest) Manifest {
	m := facts
	m.Format, m.ID, m.Cluster = Format, d.id, d.cluster
	m.Started, m.Finished = stamp(d.started), stamp(d.o.Now())
	m.Parts = slices.SortedFunc(maps.Values(d.parts), func(a, b Part) int { return cmp.Compare(a.Name, b.Name) })
	m.Labels = d.o.Labels
	m.Compression, m.Encryption = compressionZstd, ""
	if m.Recipients = d.o.Recipients.Names(); len(m.Recipients) > 0 {
		m.Encryption = encryptionAge
	}
	return m
}

// Abort removes what was put, unless Commit began to write the manifest: then
// it leaves the parts, since the manifest may be there or yet arrive, and the
// cleaning of leftovers decides. It ends Puts that are under way, works with a
// ctx that has ended, and takes up to a minute then. After a Commit that
// returned nil it does nothing.
func (d *Draft) Abort(ctx context.Context) error {
	d.stopPuts()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.committed || d.uncertain {
		return nil
	}
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
	}
	var errs []error
	for _, object := range d.tried {
		errs = append(errs, d.repo.store.Delete(ctx, d.key(object)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what backup %s left: %w", d.id, err)
	}
	return nil
}

// stopPuts ends the Puts that are under way and lets no more begin.
func (d *Draft) stopPuts() {
	d.mu.Lock()
	d.end()
	d.mu.Unlock()
	d.puts.Wait()
}

// checkStored tells whether an object is there with a size.
func checkStored(ctx context.Context, s storage.Store, key string, size int64) error {
	o, err := s.Stat(ctx, key)
	if errors.Is(err, storage.ErrNotExist) {
		return &DamageError{Key: key, What: gone, Cause: err}
	}
	if err == nil && o.Size != size {
		return &DamageError{Key: key, What: "stored size", Found: fmt.Sprint(o.Size), Want: fmt.Sprint(size)}
	}
	return err
}
