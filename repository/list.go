package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Listing is what a repository holds.
type Listing struct {
	Backups    []*Backup    // committed, the oldest first
	Unfinished []Unfinished // the oldest first
	Damaged    []Damaged    // what can't be read or is not what it was, by key
	Unknown    []string     // keys that are nothing of ours
}

// Unfinished is a backup's folder without a manifest: a save that is under way
// or died, or a removal that is or did.
type Unfinished struct {
	Cluster  string
	ID       string
	Keys     []string  // of what lies there
	Size     int64     // of all of it, bytes
	Modified time.Time // of the newest object, by the store's clock
	Pruned   bool      // a removal began
}

// Damaged is an object that can't be read or is not what it was.
type Damaged struct {
	Key     string
	Cluster string
	ID      string
	Err     error
}

// archiveDir is where a cluster's archived log is, beside its backups.
const archiveDir = "wal/"

// readers is how many backups are read at once.
const readers = 8

// Clusters returns the names of the clusters that anything lies there of, in
// order.
func (r *Repository) Clusters(ctx context.Context) ([]string, error) {
	var names []string
	for o, err := range r.store.List(ctx, clustersDir) {
		if err != nil {
			return nil, err
		}
		name, _, inFolder := strings.Cut(strings.TrimPrefix(o.Key, clustersDir), "/")
		if inFolder && CheckCluster(name) == nil && (len(names) == 0 || names[len(names)-1] != name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// List reads what the repository holds of a cluster, or all of it if the name
// is empty. Nothing is left out in silence: what can't be read is in Damaged,
// and the rest is listed all the same. It fails if the store can't be listed
// or stops answering, and with [ErrNotExist] if a cluster is named of which
// nothing is there.
func (r *Repository) List(ctx context.Context, cluster string) (*Listing, error) {
	l, err := r.scan(ctx, cluster, "")
	if err == nil && cluster != "" && l.empty() {
		err = r.noCluster(ctx, cluster)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Listing) empty() bool {
	return len(l.Backups)+len(l.Unfinished)+len(l.Damaged)+len(l.Unknown) == 0
}

// noCluster says which clusters there are instead.
func (r *Repository) noCluster(ctx context.Context, cluster string) error {
	names, err := r.Clusters(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(names, cluster) {
		return nil // its log is there
	}
	there := "none is there"
	if len(names) > 0 {
		there = "there are " + strings.Join(names, ", ")
		if len(names) == 1 {
			there = "there is " + names[0]
		}
	}
	return fmt.Errorf("%s: cluster %s: %w: %s", r.store, cluster, ErrNotExist, there)
}

// scan reads the backups of a cluster, or of all, whose ids begin with
// idPrefix, in one pass over the keys.
func (r *Repository) scan(ctx context.Context, cluster, idPrefix string) (*Listing, error) {
	prefix := ""
	if cluster != "" {
		if err := CheckCluster(cluster); err != nil {
			return nil, err
		}
		prefix = clustersDir + cluster + "/"
		if idPrefix != "" {
			prefix = backupsPrefix(cluster) + idPrefix
		}
	}
	s := &scanner{repo: r, idPrefix: idPrefix, listing: &Listing{}}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	err := s.list(gctx, prefix, func(f *folder) { g.Go(func() error { return s.read(gctx, f) }) })
	// What a reader failed with also ended the listing.
	if err := cmp.Or(g.Wait(), err); err != nil {
		return nil, err
	}
	s.listing.sort()
	return s.listing, nil
}

func (l *Listing) sort() {
	slices.SortFunc(l.Backups, func(a, b *Backup) int {
		return cmp.Or(a.Manifest.Started.Compare(b.Manifest.Started), cmp.Compare(a.ID(), b.ID()),
			cmp.Compare(a.Cluster(), b.Cluster()))
	})
	slices.SortFunc(l.Unfinished, func(a, b Unfinished) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Cluster, b.Cluster))
	})
	slices.SortFunc(l.Damaged, func(a, b Damaged) int { return cmp.Compare(a.Key, b.Key) })
	slices.Sort(l.Unknown)
}

// folder is what lies in one backup's folder.
type folder struct {
	cluster, id string
	objects     map[string]storage.Object // by their name in it
	modified    time.Time                 // of the newest
}

// parseKey takes apart the key of an object in a backup's folder.
func parseKey(key string) (cluster, id, name string, ok bool) {
	p := strings.SplitN(key, "/", 5)
	if len(p) < 5 || p[0]+"/" != clustersDir || p[2] != "backups" {
		return "", "", "", false
	}
	if _, err := idBegan(p[3]); err != nil || CheckCluster(p[1]) != nil {
		return "", "", "", false
	}
	return p[1], p[3], p[4], isOurs(p[4])
}

// isOurs tells whether a backup's folder may have an object of that name.
func isOurs(name string) bool {
	return name == manifestName || name == holdName || isPartObject(name) || isMark(name) ||
		isRecordIn(proofDir, name)
}

// isRecordIn tells whether a name is that of a record in one of the folders
// that a backup's has.
func isRecordIn(dir, name string) bool {
	file, ok := strings.CutPrefix(name, dir)
	return ok && strings.HasSuffix(file, ".json") && !strings.Contains(file, "/")
}

// isArchive tells whether a key is of a cluster's archived log.
func isArchive(key string) bool {
	p := strings.SplitN(key, "/", 4)
	return len(p) == 4 && p[0]+"/" == clustersDir && CheckCluster(p[1]) == nil && p[2]+"/" == archiveDir
}

// scanner turns keys into a listing.
type scanner struct {
	repo     *Repository
	idPrefix string

	mu      sync.Mutex
	listing *Listing
}

// list calls found for each backup's folder. The keys come in order, so that a
// folder's are together.
func (s *scanner) list(ctx context.Context, prefix string, found func(*folder)) error {
	var f *folder
	for o, err := range s.repo.store.List(ctx, prefix) {
		if err != nil {
			return err
		}
		cluster, id, name, ok := parseKey(o.Key)
		switch {
		case o.Key == repositoryKey, isArchive(o.Key), ok && !strings.HasPrefix(id, s.idPrefix):
			continue
		case !ok:
			s.listed(func(l *Listing) { l.Unknown = append(l.Unknown, o.Key) })
			continue
		}
		if f == nil || f.cluster != cluster || f.id != id {
			if f != nil {
				found(f)
			}
			f = &folder{cluster: cluster, id: id, objects: map[string]storage.Object{}}
		}
		f.objects[name] = o
		if o.Modified.After(f.modified) {
			f.modified = o.Modified
		}
	}
	if f != nil {
		found(f)
	}
	return nil
}

func (s *scanner) listed(add func(*Listing)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add(s.listing)
}

// read adds to the listing what a folder holds. It fails if the store stops
// answering.
func (s *scanner) read(ctx context.Context, f *folder) error {
	if _, committed := f.objects[manifestName]; !committed {
		s.listed(func(l *Listing) { l.Unfinished = append(l.Unfinished, f.unfinished()) })
		return nil
	}
	b, damaged, err := s.repo.readBackup(ctx, f)
	switch {
	case errors.Is(err, errVanished):
		s.listed(func(l *Listing) { l.Unfinished = append(l.Unfinished, f.unfinished()) })
		return nil
	case err != nil:
		return err
	}
	s.listed(func(l *Listing) {
		if b != nil {
			l.Backups = append(l.Backups, b)
		}
		l.Damaged = append(l.Damaged, damaged...)
	})
	return nil
}

func (f *folder) unfinished() Unfinished {
	u := Unfinished{Cluster: f.cluster, ID: f.id, Modified: f.modified}
	for name, o := range f.objects {
		if name == manifestName {
			continue // it vanished
		}
		u.Keys = append(u.Keys, o.Key)
		u.Size += o.Size
		u.Pruned = u.Pruned || isMark(name)
	}
	slices.Sort(u.Keys)
	return u
}
