package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// errVanished says that a backup was removed while it was read.
var errVanished = errors.New("the manifest is gone")

// folderReader reads one backup's folder.
type folderReader struct {
	store   storage.Store
	folder  *folder
	backup  *Backup
	damaged []Damaged
}

// readBackup reads what a listing found in a backup's folder. Without a backup
// the manifest is among what is damaged. It fails with errVanished if the
// backup was removed meanwhile, or if the store stops answering.
func (r *Repository) readBackup(ctx context.Context, f *folder) (*Backup, []Damaged, error) {
	fr := &folderReader{store: r.store, folder: f, backup: &Backup{repo: r}}
	ok, err := fr.readManifest(ctx)
	if err != nil || !ok {
		return nil, fr.damaged, err
	}
	for _, read := range []func(context.Context) error{fr.readProofs, fr.readHold, fr.readPruned, fr.checkParts} {
		if err := read(ctx); err != nil {
			return nil, nil, err
		}
	}
	return fr.backup, fr.damaged, nil
}

// note takes down what is wrong with an object. It returns an error instead if
// that is not the object's fault, but the store's or the reader's.
func (fr *folderReader) note(ctx context.Context, key string, err error) error {
	if ctx.Err() != nil || errors.Is(err, storage.ErrUnreachable) {
		return err
	}
	fr.damaged = append(fr.damaged, Damaged{Key: key, Cluster: fr.folder.cluster, ID: fr.folder.id, Err: err})
	return nil
}

func (fr *folderReader) readManifest(ctx context.Context) (ok bool, err error) {
	key, b := fr.folder.objects[manifestName].Key, fr.backup
	b.digest, err = getRecord(ctx, fr.store, key, kindManifest, &b.Manifest)
	if errors.Is(err, storage.ErrNotExist) {
		return false, errVanished
	}
	if err == nil {
		err = b.check()
		if b.Manifest.ID != fr.folder.id || b.Manifest.Cluster != fr.folder.cluster {
			err = elsewhere(b.Manifest.Cluster, b.Manifest.ID)
		}
		if err != nil {
			err = &DamageError{Key: key, What: "not this backup's manifest", Cause: err}
		}
	}
	if err != nil {
		return false, fr.note(ctx, key, err)
	}
	return true, nil
}

func elsewhere(cluster, id string) error {
	return fmt.Errorf("it says that it is of backup %s of %s", id, cluster)
}

func (fr *folderReader) readProofs(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(fr.folder.objects)) {
		if !strings.HasPrefix(name, proofDir) {
			continue
		}
		key := fr.folder.objects[name].Key
		p, err := fr.readProof(ctx, key)
		if errors.Is(err, storage.ErrNotExist) {
			err = fr.goneOrVanished(ctx, key)
		}
		if errors.Is(err, errVanished) {
			return err
		}
		if err == nil {
			fr.backup.Proofs = append(fr.backup.Proofs, p)
			continue
		}
		if err := fr.note(ctx, key, err); err != nil {
			return err
		}
		fr.backup.Unread = append(fr.backup.Unread, fr.damaged[len(fr.damaged)-1])
	}
	sortProofs(fr.backup.Proofs)
	return nil
}

func (fr *folderReader) readProof(ctx context.Context, key string) (Proof, error) {
	var p Proof
	if _, err := getRecord(ctx, fr.store, key, kindProof, &p); err != nil {
		return Proof{}, err
	}
	b := fr.backup
	var wrong error
	switch {
	case p.ID != b.ID() || p.Cluster != b.Cluster():
		wrong = elsewhere(p.Cluster, p.ID)
	case p.Manifest != b.digest:
		wrong = fmt.Errorf("it is of a manifest with SHA-256 %s, but here is one with %s", p.Manifest, b.digest)
	case !slices.Contains(levels, p.Level), !slices.Contains(results, p.Result):
		wrong = fmt.Errorf("level %q, result %q", p.Level, p.Result)
	}
	if wrong != nil {
		return Proof{}, &DamageError{Key: key, What: "not a proof of this backup", Cause: wrong}
	}
	return p, nil
}

func sortProofs(proofs []Proof) {
	slices.SortStableFunc(proofs, func(a, b Proof) int { return a.Time.Compare(b.Time) })
}

// goneOrVanished says why an object is not there that was listed: because the
// whole backup was removed, or by itself.
func (fr *folderReader) goneOrVanished(ctx context.Context, key string) error {
	_, err := fr.store.Stat(ctx, fr.backup.key(manifestName))
	if errors.Is(err, storage.ErrNotExist) {
		return errVanished
	}
	return cmp.Or(err, error(&DamageError{Key: key, What: gone}))
}

// gone is what DamageErrors say of an object that is not there.
const gone = "it is gone"

func (fr *folderReader) readHold(ctx context.Context) error {
	if _, listed := fr.folder.objects[holdName]; !listed {
		return nil
	}
	var h Hold
	state, err := fr.readState(ctx, holdName, kindHold, &h, func() (string, string) { return h.Cluster, h.ID })
	switch state {
	case stateThere:
		fr.backup.Hold = &h
	case stateUnreadable:
		fr.backup.Hold = &Hold{Cluster: fr.folder.cluster, ID: fr.folder.id, Reason: "the hold can't be read"}
	}
	return err
}

// readPruned takes the newest mark for that of the backup.
func (fr *folderReader) readPruned(ctx context.Context) error {
	for name := range fr.folder.objects {
		if !isMark(name) {
			continue
		}
		var m PruneMark
		state, err := fr.readState(ctx, name, kindPruned, &m, func() (string, string) { return m.Cluster, m.ID })
		if err != nil {
			return err
		}
		if state == stateUnreadable {
			m = PruneMark{Cluster: fr.folder.cluster, ID: fr.folder.id}
		}
		if old := fr.backup.Pruned; state != stateGone && (old == nil || m.Time.After(old.Time)) {
			fr.backup.Pruned = &m
		}
	}
	return nil
}

// state of a record that comes and goes while its backup stays.
type state int

const (
	stateGone state = iota
	stateThere
	stateUnreadable
)

func (fr *folderReader) readState(ctx context.Context, name, kind string, v any, of func() (cluster, id string)) (state, error) {
	key := fr.folder.objects[name].Key
	_, err := getRecord(ctx, fr.store, key, kind, v)
	if errors.Is(err, storage.ErrNotExist) {
		return stateGone, nil
	}
	if cluster, id := of(); err == nil && (cluster != fr.folder.cluster || id != fr.folder.id) {
		err = &DamageError{Key: key, What: "not of this backup", Cause: elsewhere(cluster, id)}
	}
	if err != nil {
		return stateUnreadable, fr.note(ctx, key, err)
	}
	return stateThere, nil
}

// checkParts compares the parts with what was listed, and asks the store about
// those that don't fit: a listing is no single moment.
func (fr *folderReader) checkParts(ctx context.Context) error {
	b, named := fr.backup, map[string]bool{}
	for _, p := range b.Manifest.Parts {
		named[p.Object] = true
		if o, listed := fr.folder.objects[p.Object]; listed && o.Size == p.StoredSize {
			continue
		}
		if err := fr.checkPart(ctx, p); err != nil {
			return err
		}
	}
	for name, o := range fr.folder.objects {
		if isPartObject(name) && !named[name] {
			b.Stray = append(b.Stray, o.Key)
		}
	}
	slices.Sort(b.Stray)
	return nil
}

func (fr *folderReader) checkPart(ctx context.Context, p Part) error {
	key := fr.backup.key(p.Object)
	err := checkStored(ctx, fr.store, key, p.StoredSize)
	if errors.Is(err, storage.ErrNotExist) {
		err = fr.goneOrVanished(ctx, key)
	}
	if err == nil || errors.Is(err, errVanished) {
		return err
	}
	fr.backup.Damaged = append(fr.backup.Damaged, err)
	return fr.note(ctx, key, err)
}
