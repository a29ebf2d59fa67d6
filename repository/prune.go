package repository

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// PrunePlan is what a prune would do, and why. Nothing was changed yet.
type PrunePlan struct {
	Policy    Policy
	Now       time.Time
	Decisions []Decision   // one for each backup, the oldest first
	Locked    []Removal    // those of Remove that the store does not let go of yet, as far as it tells
	Leftovers []Unfinished // what died saves and prunes left: it is removed
	Waiting   []Unfinished // without a manifest too, but younger than LeftoverAge or on hold: it stays
	Damaged   []Damaged    // what can't be read stays, and so does a backup with a proof that can't
	Unknown   []string     // keys that are nothing of ours: they stay

	repo    *Repository
	cluster string
	seen    map[string]*folder // by prefix, from before the listing
}

// PlanPrune decides what of a cluster's backups, or of all clusters' if its
// name is empty, to remove. It changes nothing. It fails with [ErrNoRule] for
// a policy without a rule, and as [Repository.List] does.
func (r *Repository) PlanPrune(ctx context.Context, cluster string, p Policy, now time.Time) (*PrunePlan, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("plan a prune: %w", err)
	}
	plan := &PrunePlan{Policy: p, Now: now, repo: r, cluster: cluster}
	var err error
	if plan.seen, err = r.folders(ctx, plan.prefix()); err != nil {
		return nil, fmt.Errorf("plan a prune: %w", err)
	}
	l, err := r.List(ctx, cluster)
	if err != nil {
		return nil, fmt.Errorf("plan a prune: %w", err)
	}
	plan.Decisions = decide(p, l, now)
	if plan.Locked, err = r.lockedAmong(ctx, plan.Remove()); err != nil {
		return nil, fmt.Errorf("plan a prune: %w", err)
	}
	plan.Damaged, plan.Unknown = l.Damaged, l.Unknown
	for _, u := range l.Unfinished {
		if now.Sub(u.Modified) > LeftoverAge && !u.held() {
			plan.Leftovers = append(plan.Leftovers, u)
		} else {
			plan.Waiting = append(plan.Waiting, u)
		}
	}
	return plan, nil
}

func (p *PrunePlan) prefix() string {
	if p.cluster == "" {
		return clustersDir
	}
	return backupsPrefix(p.cluster)
}

// Remove are the backups that the plan removes, the oldest first.
func (p *PrunePlan) Remove() []*Backup {
	var all []*Backup
	for _, d := range p.Decisions {
		if !d.Keep {
			all = append(all, d.Backup)
		}
	}
	return all
}

// decide is what the policy says. A proof that can't be read may be the one that
// passed, so that its backup stays.
func decide(p Policy, l *Listing, now time.Time) []Decision {
	decisions := p.Decide(l.Backups, now)
	for i := range decisions {
		d := &decisions[i]
		if len(d.Backup.Unread) == 0 {
			continue
		}
		why := "a proof can't be read: " + d.Backup.Unread[0].Key
		if d.Keep {
			d.Reasons = append(d.Reasons, why)
		} else {
			d.Keep, d.Reasons = true, []string{why}
		}
	}
	return decisions
}

// held tells whether a hold keeps parts whose manifest is gone, and not because
// a prune removed it.
func (u Unfinished) held() bool { return holdsParts(u.names()) }

// names are those of the objects in the folder.
func (u Unfinished) names() []string {
	var names []string
	for _, key := range u.Keys {
		names = append(names, strings.TrimPrefix(key, backupPrefix(u.Cluster, u.ID)))
	}
	return names
}

func holdsParts(names []string) bool {
	return slices.Contains(names, holdName) && slices.ContainsFunc(names, isPartObject) && !slices.ContainsFunc(names, isMark)
}

// PruneOptions of an Apply; the zero value works.
type PruneOptions struct {
	// LockFor extends the locks of all objects of the backups that are kept to
	// at least so long from now. It is an error if the store can't lock. 0:
	// locks are left alone.
	LockFor time.Duration
	// Progress is called before each backup and leftover; nil: nobody is told.
	Progress func(done, total int)
}

// Outcome is what became of a backup, or of a leftover, that a plan removes.
type Outcome string

// The outcomes.
const (
	Removed Outcome = "removed"
	Gone    Outcome = "gone already" // somebody else removed it
	Held    Outcome = "held"         // a hold came meanwhile
	Kept    Outcome = "kept"         // the policy keeps it by what came meanwhile, or a save does
	Locked  Outcome = "locked"       // the store does not let go of it yet
	Failed  Outcome = "failed"
)

// Removal is what became of a backup that a plan removes.
type Removal struct {
	Backup  *Backup
	Outcome Outcome
	Until   time.Time // Locked: when the lock ends; zero if that is not known
	Reasons []string  // Kept: why
	Freed   int64     // bytes
	Err     error     // Failed and Locked: why. Removed: what of it is left for a later prune, and why
}

// Cleaning is what became of a leftover that a plan removes.
type Cleaning struct {
	Unfinished Unfinished
	Outcome    Outcome
	Freed      int64 // bytes
	Err        error
}

// PruneResult is what an Apply did.
type PruneResult struct {
	Removals  []Removal // in the order of the plan
	Leftovers []Cleaning
	Swept     int   // uploads that died, of which the store kept pieces
	Freed     int64 // bytes, without those of Swept
	Withdrawn int   // marks of prunes that died, on backups that stay
	Extended  int   // objects whose locks were extended
}

// Apply removes what the plan says, oldest first, and looks again before each
// removal: what is held meanwhile stays, and what the policy would keep by what
// was added or removed meanwhile. Backups that came after the plan are not
// removed. It goes on after an error; the result says what became of each,
// and the error is that of all that failed.
//
// Prunes may run at once, and one that dies at any point leaves each backup
// either whole or unlisted. An Apply can be repeated.
func (p *PrunePlan) Apply(ctx context.Context, o PruneOptions) (*PruneResult, error) {
	a := &pruning{
		plan: p, repo: p.repo, o: o, decisions: byPrefix(p.Decisions), seen: maps.Clone(p.seen), result: &PruneResult{},
	}
	var lock storage.Retainer
	if o.LockFor > 0 {
		var ok bool
		if lock, ok = storage.As[storage.Retainer](p.repo.store); !ok {
			return a.result, fmt.Errorf("prune %s: lock what is kept: the store can't lock objects", p.repo.store)
		}
	}
	err := errors.Join(a.removeAll(ctx), a.withdrawAll(ctx), a.cleanAll(ctx), a.sweep(ctx), a.lockAll(ctx, lock))
	if err != nil {
		err = fmt.Errorf("prune %s: %w", p.repo.store, err)
	}
	return a.result, err
}

// pruning is an Apply at work.
type pruning struct {
	plan      *PrunePlan
	repo      *Repository
	o         PruneOptions
	decisions map[string]Decision // the newest, by prefix
	seen      map[string]*folder  // from before the listing that decisions are of
	done      int
	result    *PruneResult
}

func byPrefix(decisions []Decision) map[string]Decision {
	all := make(map[string]Decision, len(decisions))
	for _, d := range decisions {
		all[d.Backup.key("")] = d
	}
	return all
}

func (a *pruning) progress() {
	if a.o.Progress != nil {
		a.o.Progress(a.done, len(a.plan.Remove())+len(a.plan.Leftovers))
	}
	a.done++
}

func (a *pruning) removeAll(ctx context.Context) error {
	var errs []error
	for _, b := range a.plan.Remove() {
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
		a.progress()
		removal := a.remove(ctx, b)
		a.result.Removals = append(a.result.Removals, removal)
		a.result.Freed += removal.Freed
		if removal.Err != nil && !errors.Is(removal.Err, storage.ErrRetained) {
			errs = append(errs, fmt.Errorf("backup %s of %s: %w", b.ID(), b.Cluster(), removal.Err))
		}
	}
	return errors.Join(errs...)
}

// remove removes one backup: it puts the mark, looks whether anything forbids
// it, removes the manifest, with which the backup is gone, and then the rest.
func (a *pruning) remove(ctx context.Context, b *Backup) (done Removal) {
	if done = a.repo.lockOf(ctx, b); done.Outcome == Locked {
		return done
	}
	m, err := a.repo.putMark(ctx, b.Cluster(), b.ID())
	if err != nil {
		done.Outcome, done.Err = Failed, err
		return done
	}
	defer func() { done.Freed = m.freed }()
	if done.Outcome, done.Reasons, err = a.reconsider(ctx, b, m); err == nil && done.Outcome == Removed {
		err = m.deleteManifest(ctx)
	}
	switch {
	case err != nil:
		done.Outcome, done.Err = outcomeOf(err), m.giveUp(ctx, err)
	case done.Outcome != Removed:
		done.Err = m.withdraw(ctx)
	default:
		if err := m.clear(ctx); err != nil {
			done.Err = fmt.Errorf("it is removed, but what is left has to wait for a later prune: %w", err)
		}
	}
	return done
}

// reconsider looks, once the mark is there, whether the backup may be removed:
// Removed says so.
func (a *pruning) reconsider(ctx context.Context, b *Backup, m *mark) (Outcome, []string, error) {
	now, err := a.repo.folders(ctx, backupsPrefix(b.Cluster()))
	if err != nil {
		return Failed, nil, err
	}
	f := now[m.folder]
	switch {
	case f == nil || !f.committed():
		return Gone, nil, nil
	case f.has(holdName):
		return Held, nil, nil
	case a.changed(b.Cluster(), now, m):
		if err := a.decideAgain(ctx, b.Cluster(), now, m); err != nil {
			return Failed, nil, err
		}
	}
	d, listed := a.decisions[m.folder]
	switch {
	case !listed:
		return Kept, []string{"it can't be read"}, nil
	case d.Keep:
		return Kept, d.Reasons, nil
	}
	return Removed, nil, nil
}

// changed tells whether anything came or went, since the decisions, in the
// folders of the backups that are kept, or in that of the mark.
func (a *pruning) changed(cluster string, now map[string]*folder, m *mark) bool {
	for prefix, d := range a.decisions {
		matters := d.Keep || prefix == m.folder
		if matters && d.Backup.Cluster() == cluster && !slices.Equal(now[prefix].names(m.name), a.seen[prefix].names(m.name)) {
			return true
		}
	}
	return false
}

// decideAgain decides on a cluster's backups as they are now, but for the own
// mark; seen is from just before.
func (a *pruning) decideAgain(ctx context.Context, cluster string, seen map[string]*folder, m *mark) error {
	l, err := a.repo.List(ctx, cluster)
	if err != nil {
		return err
	}
	others := slices.ContainsFunc(seen[m.folder].names(m.name), isMark)
	for _, b := range l.Backups {
		if b.key("") == m.folder && !others {
			b.Pruned = nil
		}
	}
	maps.DeleteFunc(a.decisions, func(_ string, d Decision) bool { return d.Backup.Cluster() == cluster })
	maps.Copy(a.decisions, byPrefix(decide(a.plan.Policy, l, a.plan.Now)))
	maps.DeleteFunc(a.seen, func(_ string, f *folder) bool { return f.cluster == cluster })
	maps.Copy(a.seen, seen)
	return nil
}

// lockedAmong returns what the store says that it has locked still.
func (r *Repository) lockedAmong(ctx context.Context, backups []*Backup) ([]Removal, error) {
	asked := make([]Removal, len(backups))
	var g errgroup.Group
	g.SetLimit(readers)
	for i, b := range backups {
		g.Go(func() error {
			asked[i] = r.lockOf(ctx, b)
			return context.Cause(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(asked, func(removal Removal) bool { return removal.Outcome != Locked }), nil
}

// lockOf is Locked if the store says that the manifest is; else removing it
// will tell. That is asked before a mark is put, which would be locked as well.
func (r *Repository) lockOf(ctx context.Context, b *Backup) Removal {
	store, ok := storage.As[storage.Locker](r.store)
	if !ok {
		return Removal{Backup: b}
	}
	until, err := store.LockedUntil(ctx, b.key(manifestName))
	switch {
	case errors.Is(err, storage.ErrRetained):
	case err == nil && until.After(time.Now()):
		err = fmt.Errorf("%w until %s", storage.ErrRetained, until.UTC().Format(time.RFC3339))
	default:
		return Removal{Backup: b}
	}
	return Removal{Backup: b, Outcome: Locked, Until: until, Err: err}
}

// withdrawAll removes the marks of prunes that died from backups that the
// policy keeps, but for those that the store has locked. They are dead even if
// the store's clock and ours differ by most of a day: no mark is put to ask the
// store for the time, since that one could be locked as well.
func (a *pruning) withdrawAll(ctx context.Context) error {
	var errs []error
	for _, d := range a.plan.Decisions {
		f := a.plan.seen[d.Backup.key("")]
		if !d.Keep || f == nil {
			continue
		}
		for _, name := range f.names("") {
			o := f.objects[name]
			if !isMark(name) || time.Since(o.Modified) <= LeftoverAge {
				continue
			}
			switch err := a.repo.store.Delete(ctx, o.Key); {
			case err == nil:
				a.result.Withdrawn++
			case !errors.Is(err, storage.ErrRetained):
				errs = append(errs, fmt.Errorf("withdraw a mark: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

// lockAll extends the locks of what is kept, the parts before the manifest.
func (a *pruning) lockAll(ctx context.Context, lock storage.Retainer) error {
	if lock == nil {
		return nil
	}
	until := time.Now().Add(a.o.LockFor)
	var errs []error
	for _, prefix := range slices.Sorted(maps.Keys(a.decisions)) {
		d := a.decisions[prefix]
		if !d.Keep {
			continue
		}
		for _, key := range d.Backup.objects() {
			if err := lock.Retain(ctx, key, until); err != nil {
				errs = append(errs, fmt.Errorf("lock %s: %w", key, err))
				break
			}
			a.result.Extended++
		}
	}
	return errors.Join(errs...)
}

// objects are the keys of what a backup can't be read or kept without, the
// manifest last.
func (b *Backup) objects() []string {
	var keys []string
	for _, p := range b.Manifest.Parts {
		keys = append(keys, b.key(p.Object))
	}
	if b.Hold != nil {
		keys = append(keys, b.key(holdName))
	}
	return append(keys, b.key(manifestName))
}
