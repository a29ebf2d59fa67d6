package repository

import (
	"context"
	"fmt"
	"maps"
	"slices"
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
	Damaged bool              // one that is known to be damaged is not passed over
}

// Find returns the backup that sel means, and why it is that one, in words for
// people.
//
// Where the choice is Find's, it passes over a backup that is known to be
// damaged or is being removed, and why says so. It fails with [ErrAmbiguous],
// naming the candidates, or [ErrNotExist], naming what there is; for a backup
// whose manifest can't be read with what is wrong with that.
func (r *Repository) Find(ctx context.Context, sel Selector) (b *Backup, why string, err error) {
	switch sel.ID {
	case "", Latest, LatestVerified:
		b, why, err = r.findNewest(ctx, sel)
	default:
		b, why, err = r.findByID(ctx, sel)
	}
	if err != nil {
		return nil, "", fmt.Errorf("find %s in %s: %w", sel, r.store, err)
	}
	if len(b.Unread) > 0 {
		why += "; " + unread + ": " + b.Unread[0].Key
	}
	return b, why, nil
}

// Backup reads one backup of a cluster by its id or a unique prefix of that.
// An empty cluster means all. It fails as [Repository.Find] does.
func (r *Repository) Backup(ctx context.Context, cluster, id string) (*Backup, error) {
	sel := Selector{Cluster: cluster, ID: id}
	b, _, err := r.findByID(ctx, sel)
	if err != nil {
		return nil, fmt.Errorf("find %s in %s: %w", sel, r.store, err)
	}
	return b, nil
}

// String says what is wanted.
func (sel Selector) String() string {
	s := "backup " + sel.ID
	if sel.ID == "" || sel.ID == Latest {
		s = "the newest backup"
	} else if sel.ID == LatestVerified {
		s = "the newest verified backup"
	}
	if sel.Cluster != "" {
		s += " of " + sel.Cluster
	}
	return s + sel.conditions()
}

// conditions says what else than the id is wanted.
func (sel Selector) conditions() string {
	s := ""
	for _, key := range slices.Sorted(maps.Keys(sel.Labels)) {
		s += fmt.Sprintf(" with %s=%s", key, sel.Labels[key])
	}
	if !sel.Before.IsZero() {
		s += " that was finished by " + when(sel.Before)
	}
	return s
}

// matches tells whether b meets the conditions.
func (sel Selector) matches(b *Backup) bool {
	if !sel.Before.IsZero() && b.Manifest.Finished.After(sel.Before) {
		return false
	}
	for key, value := range sel.Labels {
		if v, has := b.Manifest.Labels[key]; !has || v != value {
			return false
		}
	}
	return true
}

func when(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// findNewest chooses among the backups of one cluster.
func (r *Repository) findNewest(ctx context.Context, sel Selector) (*Backup, string, error) {
	l, err := r.List(ctx, sel.Cluster)
	if err != nil {
		return nil, "", err
	}
	if names := l.clusters(); len(names) > 1 {
		return nil, "", fmt.Errorf("%w: there are several clusters, name one: %s", ErrAmbiguous, strings.Join(names, ", "))
	}
	var passedOver []string
	for _, b := range slices.Backward(l.Backups) {
		if !sel.matches(b) {
			continue
		}
		if reason := sel.reject(b, time.Now()); reason != "" {
			passedOver = append(passedOver, b.ID()+", "+reason)
			continue
		}
		return b, sel.whyNewest(b) + l.passed(passedOver), nil
	}
	return nil, "", fmt.Errorf("%w%s", ErrNotExist, l.whatThereIs()+l.passed(passedOver))
}

// reject says why a backup is passed over, or nothing.
func (sel Selector) reject(b *Backup, now time.Time) string {
	if why := damage(b); why != "" && !sel.Damaged {
		return why
	}
	if b.Pruned != nil && now.Sub(b.Pruned.Time) < markLife {
		return "it is being removed"
	}
	switch {
	case sel.ID != LatestVerified || b.Proven(Digest) != nil:
		return ""
	case len(b.Unread) > 0:
		return unread
	}
	return "not verified"
}

func (sel Selector) whyNewest(b *Backup) string {
	why := "the newest of " + b.Cluster() + sel.conditions() + ", finished " + when(b.Manifest.Finished)
	if p := b.Proven(Digest); p != nil {
		return why + fmt.Sprintf(", verified %s: %s", when(p.Time), p.Level)
	}
	return why + ", not verified"
}

// maxTold is how many names a message tells.
const maxTold = 5

func tell(names []string) string {
	if more := len(names) - maxTold; more > 0 {
		return strings.Join(names[:maxTold], "; ") + fmt.Sprintf("; and %d more", more)
	}
	return strings.Join(names, "; ")
}

// passed says which backups were passed over, and which may have been but for
// their manifests.
func (l *Listing) passed(over []string) string {
	s := ""
	if len(over) > 0 {
		s = "; passed over: " + tell(over)
	}
	var unreadable []string
	for _, d := range l.Damaged {
		if strings.HasSuffix(d.Key, "/"+manifestName) {
			unreadable = append(unreadable, d.ID)
		}
	}
	if len(unreadable) > 0 {
		s += "; manifests that can't be read: " + tell(unreadable)
	}
	return s
}

// clusters are the names of those that backups are there of.
func (l *Listing) clusters() []string {
	names := map[string]bool{}
	for _, b := range l.Backups {
		names[b.Cluster()] = true
	}
	for _, d := range l.Damaged {
		names[d.Cluster] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// whatThereIs says what can be had instead.
func (l *Listing) whatThereIs() string {
	if len(l.Backups) == 0 {
		if n := len(l.Unfinished); n > 0 {
			return fmt.Sprintf(": nothing but %d unfinished ones", n)
		}
		return ": there is none at all"
	}
	first, last := l.Backups[0], l.Backups[len(l.Backups)-1]
	if first == last {
		return ": there is only " + first.ID()
	}
	return fmt.Sprintf(": there are %d, from %s to %s", len(l.Backups), first.ID(), last.ID())
}

// findByID finds the one backup whose id begins with sel.ID.
func (r *Repository) findByID(ctx context.Context, sel Selector) (*Backup, string, error) {
	if !idPrefixPattern.MatchString(sel.ID) {
		return nil, "", fmt.Errorf("%w: want latest, latest-verified or an id, YYYYMMDDThhmmssZ-xxxxxx", ErrNotExist)
	}
	l, err := r.scan(ctx, sel.Cluster, sel.ID)
	if err != nil {
		return nil, "", err
	}
	switch names := l.candidates(); {
	case len(names) > 1:
		return nil, "", fmt.Errorf("%w: it may be %s", ErrAmbiguous, tell(names))
	case len(l.Backups) == 0:
		return nil, "", r.notThere(ctx, sel, l)
	}
	b := l.Backups[0]
	if !sel.matches(b) {
		return nil, "", fmt.Errorf("%w: %s was finished %s and has the labels %v",
			ErrNotExist, b.ID(), when(b.Manifest.Finished), b.Manifest.Labels)
	}
	if sel.ID == b.ID() {
		return b, "named by its id", nil
	}
	return b, fmt.Sprintf("the only one whose id begins with %s", sel.ID), nil
}

// candidates are the backups there, and those that would be if their manifests
// could be read.
func (l *Listing) candidates() []string {
	names := map[string]bool{}
	for _, b := range l.Backups {
		names[b.ID()+" of "+b.Cluster()] = true
	}
	for _, d := range l.Damaged {
		names[d.ID+" of "+d.Cluster] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// notThere says why no backup was found.
func (r *Repository) notThere(ctx context.Context, sel Selector, l *Listing) error {
	if len(l.Damaged) > 0 {
		return l.Damaged[0].Err
	}
	if len(l.Unfinished) > 0 {
		return fmt.Errorf("%w: %s has no manifest: its save is under way or died, or it was removed", ErrNotExist, l.Unfinished[0].ID)
	}
	all, err := r.List(ctx, sel.Cluster)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w%s", ErrNotExist, all.whatThereIs())
}
