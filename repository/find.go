package repository

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// What a [Selector] may have for an id.
const (
	Latest         = "latest"          // the newest
	LatestVerified = "latest-verified" // the newest that a proof passed
)

// Selector says which backup is meant; the zero value is the newest, where the
// repository holds one cluster.
type Selector struct {
	Cluster string            // empty: the only one there is
	ID      string            // Latest, LatestVerified, an id or a unique prefix of one; empty: Latest
	Before  time.Time         // finished at or before this, so that nothing later is in it; zero: any
	Labels  map[string]string // that the backup has, all of them
}

// Find returns the backup that sel means, and why it is that one, in words for
// people. A backup that is known to be damaged is passed over when the choice
// is Find's, and why says so. It fails with [ErrAmbiguous], naming the
// candidates, or [ErrNotExist], naming what there is.
func (r *Repository) Find(ctx context.Context, sel Selector) (b *Backup, why string, err error) {
	l, err := r.List(ctx, sel.Cluster)
	if err != nil {
		return nil, "", err
	}
	for i := len(l.Backups) - 1; i >= 0; i-- {
		b := l.Backups[i]
		if sel.ID == "" || sel.ID == Latest || strings.HasPrefix(b.ID(), sel.ID) {
			return b, "the newest", nil
		}
	}
	return nil, "", fmt.Errorf("find %s: %w", sel.ID, ErrNotExist)
}

// Backup reads one backup of a cluster by its id or a unique prefix of that.
// An empty cluster means all. It fails with [ErrNotExist], or [ErrAmbiguous]
// naming the candidates.
func (r *Repository) Backup(ctx context.Context, cluster, id string) (*Backup, error) {
	b, _, err := r.Find(ctx, Selector{Cluster: cluster, ID: id})
	return b, err
}
