package repository

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Listing is what a repository holds.
type Listing struct {
	Backups    []*Backup    // committed, the oldest first
	Unfinished []Unfinished // the oldest first
	Damaged    []Damaged    // what can't be read or is not what it was, by key
	Unknown    []string     // keys that are nothing of ours
}

// Unfinished is a backup's folder without a manifest: a save that is under way
// or died, or a removal that did.
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
	Cluster string // empty if the key tells none
	ID      string // empty if the key tells none
	Err     error
}

// Clusters returns the names of the clusters that anything lies there of.
func (r *Repository) Clusters(ctx context.Context) ([]string, error) {
	var names []string
	for o, err := range r.store.List(ctx, clustersDir) {
		if err != nil {
			return nil, fmt.Errorf("list clusters: %w", err)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(o.Key, clustersDir), "/")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// List reads what the repository holds of a cluster, or of all if the name is
// empty. Nothing is left out in silence: what can't be read is in Damaged, and
// the rest is listed all the same. It fails if the store can't be listed or
// stops answering, and with [ErrNotExist] if a cluster is named of which
// nothing is there.
func (r *Repository) List(ctx context.Context, cluster string) (*Listing, error) {
	prefix := clustersDir
	if cluster != "" {
		prefix += cluster + "/"
	}
	var l Listing
	for o, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", r.store, err)
		}
		if !strings.HasSuffix(o.Key, "/"+manifestName) {
			continue
		}
		b := &Backup{repo: r}
		if b.digest, err = getRecord(ctx, r.store, o.Key, kindManifest, &b.Manifest); err != nil {
			l.Damaged = append(l.Damaged, Damaged{Key: o.Key, Err: err})
			continue
		}
		l.Backups = append(l.Backups, b)
	}
	return &l, nil
}
