package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// How a removal stays out of the way of those who keep or bring back the same
// backup. Each removal puts a mark of its own into the backup's folder before
// it looks for what forbids it, and takes the mark away when it has ended.
// Each of the others puts what forbids it, a hold or a part of a copy, before
// it looks for marks. So at least one of the two sees the other.
//
// A removal that dies leaves its mark. Its own clock stops a removal after
// maxRemoval, so that a mark older than markLife by the store's clock binds
// nobody.
const (
	maxRemoval = time.Hour
	markLife   = 2 * maxRemoval
)

// LeftoverAge is how long nothing must have been put into a backup's folder
// without a manifest before a prune takes it for what a save or a prune left
// that died. It is longer than [MaxSave], after which no save commits.
const LeftoverAge = 24 * time.Hour

// errLate is the cause of what maxRemoval ended.
var errLate = fmt.Errorf("it took longer than %v; the next prune goes on", maxRemoval)

// mark is one removal's mark.
type mark struct {
	repo   *Repository
	folder string    // prefix of the backup's keys
	name   string    // in the folder
	put    time.Time // by the store's clock
	began  time.Time // by ours
	freed  int64     // bytes deleted so far
}

// isMark tells whether a file name in a backup's folder is that of a mark.
func isMark(name string) bool {
	id, ok := strings.CutPrefix(name, prunedDir)
	return ok && strings.HasSuffix(id, ".json") && !strings.Contains(id, "/")
}

// putMark puts a new mark. After an error none is left if the store lets us.
func (r *Repository) putMark(ctx context.Context, cluster, id string) (*mark, error) {
	began := time.Now()
	m := &mark{repo: r, folder: backupPrefix(cluster, id), name: prunedDir + newID(began) + ".json", began: began}
	sealed, _, err := sealRecord(kindPruned, PruneMark{
		Format: Format, Cluster: cluster, ID: id, Time: stamp(began), Host: hostname(),
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.key(), err)
	}
	o, err := r.store.Put(ctx, m.key(), bytes.NewReader(sealed), storage.PutOptions{CreateOnly: true})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mark it: %w", err), m.withdraw(ctx))
	}
	m.put = o.Modified
	return m, nil
}

// hostname is this host's name, or empty if the system does not tell.
func hostname() string {
	name, _ := os.Hostname()
	return name
}

func (m *mark) key() string { return m.folder + m.name }

// withdraw removes the mark and nothing else. It works with a ctx that has
// ended. One that the store has locked stays, and binds nobody after markLife.
func (m *mark) withdraw(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := m.repo.store.Delete(ctx, m.key()); err != nil && !errors.Is(err, storage.ErrRetained) {
		return fmt.Errorf("a mark is left, holds wait for it up to %v: %w", markLife, err)
	}
	return nil
}

// giveUp withdraws the mark after an error, unless what the mark stands for may
// yet come to pass.
func (m *mark) giveUp(ctx context.Context, err error) error {
	if errors.Is(err, errUncertain) {
		return err
	}
	return errors.Join(err, m.withdraw(ctx))
}

// delete removes an object of the folder, unless the mark is too old to be
// heeded by others for long enough.
func (m *mark) delete(ctx context.Context, o storage.Object) error {
	left := maxRemoval - elapsed(m.began)
	if left <= 0 {
		return errLate
	}
	ctx, cancel := context.WithTimeoutCause(ctx, left, errLate)
	defer cancel()
	if err := m.repo.store.Delete(ctx, o.Key); err != nil {
		return err
	}
	m.freed += o.Size
	return nil
}

// errUncertain says that an object may or may not be there.
var errUncertain = errors.New("it may be removed yet")

// deleteManifest removes the manifest, and fails with errUncertain if the store
// leaves open whether it did or will.
func (m *mark) deleteManifest(ctx context.Context) error {
	o := storage.Object{Key: m.folder + manifestName}
	err := m.delete(ctx, o)
	if err == nil || errors.Is(err, errLate) || errors.Is(err, storage.ErrRetained) || errors.Is(err, storage.ErrDenied) {
		return err
	}
	if _, statErr := m.repo.store.Stat(ctx, o.Key); errors.Is(statErr, storage.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%w: %w", errUncertain, err)
}

// elapsed is how long ago t was, by the clock that counted more of it: one may
// have been set, the other may have slept.
func elapsed(t time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

// clearRounds is how often clear looks for what came meanwhile.
const clearRounds = 5

// clear removes all that is ours in the folder but live marks of others, and
// its own mark once nothing came meanwhile. A manifest may: that of a copy
// which began before the mark, and has to see that its parts are gone. After
// an error the mark stays, since what the store did not answer may yet come to
// pass.
func (m *mark) clear(ctx context.Context) error {
	for range clearRounds {
		f, err := m.repo.folder(ctx, m.folder)
		if err != nil {
			return err
		}
		rest := m.rest(f)
		if len(rest) == 0 {
			return m.withdraw(ctx)
		}
		if f.committed() && f.has(holdName) {
			return errors.New("a copy of it came meanwhile, and is held")
		}
		switch err := m.deleteAll(ctx, rest); {
		case errors.Is(err, storage.ErrRetained):
			return errors.Join(err, m.withdraw(ctx))
		case err != nil:
			return err
		}
	}
	return errors.New("copies of it come as it is removed")
}

// rest is what clear has to remove, a manifest first.
func (m *mark) rest(f *folder) []storage.Object {
	var rest []storage.Object
	for _, name := range f.names(m.name) {
		o := f.objects[name]
		switch {
		case isMark(name) && alive(o, m.put):
		case name == manifestName:
			rest = append([]storage.Object{o}, rest...)
		default:
			rest = append(rest, o)
		}
	}
	return rest
}

// deleteAll tries all. Its error is storage.ErrRetained only if that is all
// that went wrong.
func (m *mark) deleteAll(ctx context.Context, objects []storage.Object) error {
	var errs, retained []error
	for _, o := range objects {
		switch err := m.delete(ctx, o); {
		case errors.Is(err, storage.ErrRetained):
			retained = append(retained, err)
		case err != nil:
			errs = append(errs, err)
		}
	}
	if errs == nil {
		errs = retained
	}
	return errors.Join(errs...)
}

// alive tells whether a mark still binds at a time of the store's clock.
func alive(mark storage.Object, now time.Time) bool { return now.Sub(mark.Modified) < markLife }

// folder lists what is ours in a backup's folder.
func (r *Repository) folder(ctx context.Context, prefix string) (*folder, error) {
	found := &folder{}
	all, err := r.folders(ctx, prefix)
	for _, f := range all {
		found = f
	}
	return found, err
}

// folders lists what is ours in the backups' folders below a prefix, by their
// own prefixes.
func (r *Repository) folders(ctx context.Context, prefix string) (map[string]*folder, error) {
	all := make(map[string]*folder)
	s := &scanner{repo: r, listing: &Listing{}}
	err := s.list(ctx, prefix, func(f *folder) { all[backupPrefix(f.cluster, f.id)] = f })
	if err != nil {
		return nil, err
	}
	return all, nil
}

func (f *folder) has(name string) bool {
	_, there := f.objects[name]
	return there
}

// names are those of the objects in the folder but one, in order.
func (f *folder) names(but string) []string {
	if f == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(f.objects)), func(name string) bool { return name == but })
}

func (f *folder) committed() bool { return f.has(manifestName) }

// hasMark tells whether there is a mark that live accepts.
func (f *folder) hasMark(live func(storage.Object) bool) bool {
	for name, o := range f.objects {
		if isMark(name) && live(o) {
			return true
		}
	}
	return false
}
