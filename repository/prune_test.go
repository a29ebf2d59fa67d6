package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

const day = 24 * time.Hour

// saved commits a backup of cluster "c" with some parts, begun a while ago;
// its objects are as old.
func saved(t testing.TB, r *Repository, store *storagetest.Memory, ago time.Duration, parts ...string) *Backup {
	t.Helper()
	ctx := t.Context()
	when := time.Now().Add(-ago)
	d, err := r.Begin(ctx, "c", DraftOptions{Now: func() time.Time { return when }})
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) == 0 {
		parts = []string{"db"}
	}
	for _, name := range parts {
		role := RoleWAL
		if name == "db" {
			role = RoleDB
		}
		if _, err := d.Put(ctx, Part{Name: name, Role: role}, put([]byte(d.ID()+name))); err != nil {
			t.Fatal(err)
		}
	}
	b, err := d.Commit(ctx, Manifest{Kind: Files, Tool: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ageAll(t, store, b.key(""), ago)
	return b
}

// ageAll moves the times of all objects below a prefix into the past.
func ageAll(t testing.TB, store *storagetest.Memory, prefix string, by time.Duration) {
	t.Helper()
	for _, key := range keysBelow(t, store, prefix) {
		if err := store.Age(key, by); err != nil {
			t.Fatal(err)
		}
	}
}

func keysBelow(t testing.TB, store storage.Store, prefix string) []string {
	t.Helper()
	var keys []string
	for o, err := range store.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func place(t testing.TB, store storage.Store, key, text string) {
	t.Helper()
	if _, err := store.Put(t.Context(), key, strings.NewReader(text), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func planned(t testing.TB, r *Repository, p Policy) *PrunePlan {
	t.Helper()
	plan, err := r.PlanPrune(t.Context(), "", p, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func pruned(t testing.TB, r *Repository, p Policy) *PruneResult {
	t.Helper()
	result, err := planned(t, r, p).Apply(t.Context(), PruneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func listedIDs(t testing.TB, store storage.Store) []string {
	t.Helper()
	var ids []string
	for _, b := range checkWhole(t, store).Backups {
		ids = append(ids, b.ID())
	}
	return ids
}

func TestPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		var all []*Backup
		for i := range 5 {
			all = append(all, saved(t, r, store, time.Duration(5-i)*day, "db", "wal/1.wal"))
		}
		if err := r.AddProof(t.Context(), all[1], Proof{Time: time.Now(), Level: Boot, Result: ResultPassed, Tool: "test"}); err != nil {
			t.Fatal(err)
		}
		place(t, store, all[0].key("notes.txt"), "not ours")
		place(t, store, "clusters/c/backups/somewhere/db.zst", "not ours either")
		before := keysBelow(t, store, all[2].key(""))

		var told []int
		plan := planned(t, r, Policy{Last: 2})
		result, err := plan.Apply(t.Context(), PruneOptions{Progress: func(done, total int) { told = append(told, done, total) }})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := listedIDs(t, store), []string{all[1].ID(), all[3].ID(), all[4].ID()}; !slices.Equal(got, want) {
			t.Errorf("left are %q, want %q", got, want)
		}
		if got := keysBelow(t, store, all[0].key("")); !slices.Equal(got, []string{all[0].key("notes.txt")}) {
			t.Errorf("of a removed one is left: %q", got)
		}
		if got := keysBelow(t, store, all[2].key("")); len(got) > 0 || len(before) != 3 {
			t.Errorf("of %q is left: %q", before, got)
		}
		if len(plan.Unknown) != 2 || len(result.Removals) != 2 || result.Freed == 0 || !slices.Equal(told, []int{0, 2, 1, 2}) {
			t.Errorf("unknown %q, removals %+v, freed %d, told %v", plan.Unknown, result.Removals, result.Freed, told)
		}
		for _, removal := range result.Removals {
			if removal.Outcome != Removed || removal.Err != nil || removal.Freed == 0 {
				t.Errorf("%+v", removal)
			}
		}
		if again := pruned(t, r, Policy{Last: 2}); len(again.Removals)+len(again.Leftovers) != 0 {
			t.Errorf("once more: %+v", again)
		}
		if result, err := plan.Apply(t.Context(), PruneOptions{}); err != nil || result.Removals[0].Outcome != Gone {
			t.Errorf("the old plan again: %+v, %v", result, err)
		}
	})
}

func TestPrunePlanRefuses(t *testing.T) {
	r, store := newRepository(t)
	saved(t, r, store, day)
	if _, err := r.PlanPrune(t.Context(), "", Policy{}, time.Now()); !errors.Is(err, ErrNoRule) {
		t.Errorf("a policy without a rule: %v", err)
	}
	if _, err := r.PlanPrune(t.Context(), "", Policy{Last: -3}, time.Now()); err == nil {
		t.Error("a negative rule: no error")
	}
	if _, err := r.PlanPrune(t.Context(), "other", Policy{Last: 1}, time.Now()); !errors.Is(err, ErrNotExist) {
		t.Errorf("an unknown cluster: %v", err)
	}
}

func TestPruneKeepsWhatItCannotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		unreadable, beside := saved(t, r, store, 3*day), saved(t, r, store, 2*day)
		saved(t, r, store, day)
		place(t, store, beside.key(proofDir+newID(time.Now())+".json"), "{")
		place(t, store, unreadable.key(manifestName), "{")
		before := keysBelow(t, store, "")

		plan := planned(t, r, Policy{Last: 1})
		if len(plan.Damaged) != 2 || len(plan.Remove()) != 0 || len(plan.Leftovers)+len(plan.Waiting) != 0 {
			t.Errorf("damaged %v, removed %v, leftovers %v, %v", plan.Damaged, plan.Remove(), plan.Leftovers, plan.Waiting)
		}
		if why := plan.Decisions[0].Reasons; len(why) != 1 || !strings.HasPrefix(why[0], "a proof can't be read: ") {
			t.Errorf("reasons %q", why)
		}
		pruned(t, r, Policy{Last: 1})
		if got := keysBelow(t, store, ""); !slices.Equal(got, before) {
			t.Errorf("left is %q, want %q", got, before)
		}
	})
}

// TestPruneDoubtsWhatItCannotRead has the proof unread that found the newest
// proven backup damaged: the one before it is the newest proven.
func TestPruneDoubtsWhatItCannotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		old, mid := saved(t, r, store, 3*day), saved(t, r, store, 2*day)
		saved(t, r, store, day)
		for _, b := range []*Backup{old, mid} {
			if err := r.AddProof(t.Context(), b, Proof{Time: time.Now(), Level: Boot, Result: ResultPassed, Tool: "test"}); err != nil {
				t.Fatal(err)
			}
		}
		place(t, store, mid.key(proofDir+newID(time.Now())+".json"), "{")
		plan := planned(t, r, Policy{Last: 1})
		if d := plan.Decisions[0]; !d.Keep || !slices.Contains(d.Reasons, "newest proven by boot") {
			t.Errorf("the older one: %+v", d)
		}
		if d := plan.Decisions[1]; !d.Keep {
			t.Errorf("the newer one: %+v", d)
		}
	})
}

// TestPruneLooksAgain changes things between the plan and what comes of it.
func TestPruneLooksAgain(t *testing.T) {
	proofOf := func(level Level, result Result) Proof {
		return Proof{Time: time.Now(), Level: level, Result: result, Tool: "test"}
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, r *Repository, store *storagetest.Memory, old, mid, newest *Backup) error
		want   Outcome // of the oldest
		why    string
	}{
		{"nothing", func(*testing.T, *Repository, *storagetest.Memory, *Backup, *Backup, *Backup) error { return nil }, Removed, ""},
		{"held", func(t *testing.T, r *Repository, _ *storagetest.Memory, old, _, _ *Backup) error {
			return r.Hold(t.Context(), old, "audit")
		}, Held, ""},
		{"the only one proven", func(t *testing.T, r *Repository, _ *storagetest.Memory, old, _, _ *Backup) error {
			return r.AddProof(t.Context(), old, proofOf(Boot, ResultPassed))
		}, Kept, "newest proven by digest; newest proven by structure; newest proven by boot"},
		{"a newer one proven too", func(t *testing.T, r *Repository, _ *storagetest.Memory, old, mid, _ *Backup) error {
			return errors.Join(r.AddProof(t.Context(), old, proofOf(Boot, ResultPassed)), r.AddProof(t.Context(), mid, proofOf(Boot, ResultPassed)))
		}, Removed, ""},
		{"those that stay found damaged", func(t *testing.T, r *Repository, _ *storagetest.Memory, old, mid, newest *Backup) error {
			return errors.Join(r.AddProof(t.Context(), mid, proofOf(Digest, ResultDamaged)), r.AddProof(t.Context(), newest, proofOf(Digest, ResultDamaged)))
		}, Kept, "newest; last 1 of 2"},
		{"another prune removed one that stays", func(t *testing.T, r *Repository, _ *storagetest.Memory, _, _, _ *Backup) error {
			pruned(t, r, Policy{Last: 1})
			return nil
		}, Gone, ""},
		{"one that stays lost its manifest", func(t *testing.T, r *Repository, store *storagetest.Memory, _, mid, _ *Backup) error {
			return store.Delete(t.Context(), mid.key(manifestName))
		}, Kept, "last 2 of 2"},
		{"it can't be read", func(t *testing.T, r *Repository, store *storagetest.Memory, old, _, _ *Backup) error {
			place(t, store, old.key(proofDir+newID(time.Now())+".json"), "{")
			place(t, store, old.key(manifestName), "{")
			return nil
		}, Kept, "it can't be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store := newRepository(t)
				old, mid, newest := saved(t, r, store, 3*day), saved(t, r, store, 2*day), saved(t, r, store, day)
				plan := planned(t, r, Policy{Last: 2})
				if err := c.change(t, r, store, old, mid, newest); err != nil {
					t.Fatal(err)
				}
				result, err := plan.Apply(t.Context(), PruneOptions{})
				if err != nil {
					t.Fatal(err)
				}
				got := result.Removals[0]
				if why := strings.Join(got.Reasons, "; "); got.Outcome != c.want || why != c.why {
					t.Errorf("%s: %q, want %s: %q", got.Outcome, why, c.want, c.why)
				}
				for _, key := range keysBelow(t, store, clustersDir) {
					if strings.Contains(key, "/"+prunedDir) {
						t.Errorf("a mark is left: %s", key)
					}
				}
			})
		})
	}
}

// TestPruneDies has a prune die at each of its operations, and another one
// later.
func TestPruneDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, base := newRepository(t)
		old, newest := saved(t, r, base, 3*day, "db", "wal/1.wal"), saved(t, r, base, 2*day)
		for _, keep := range []Policy{{Last: 1}, {Last: 2}} {
			for _, kind := range []storagetest.Kind{storagetest.Crash, storagetest.CrashAfter} {
				for s := range storagetest.Each(storagetest.Fault{Kind: kind}, func() storage.Store { return cloneMemory(t, base) }) {
					prune := &Repository{store: s, head: r.head}
					if plan, err := prune.PlanPrune(t.Context(), "c", Policy{Last: 1}, time.Now()); err == nil {
						_, _ = plan.Apply(t.Context(), PruneOptions{})
					}
					store := s.Inner().(*storagetest.Memory)
					ids := listedIDs(t, store)
					time.Sleep(2 * day)
					later := &Repository{store: store, head: r.head}
					pruned(t, later, keep)
					want := ids
					if keep.Last == 1 {
						want = []string{newest.ID()}
					}
					if got := listedIDs(t, store); !slices.Equal(got, want) {
						t.Errorf("%v: %q are listed, want %q", s.Met(), got, want)
					}
					if l := checkWhole(t, store); len(l.Unfinished) > 0 {
						// A prune that died as it withdrew what another left.
						t.Errorf("%v: left is %v", s.Met(), l.Unfinished)
					}
					for _, b := range checkWhole(t, store).Backups {
						if b.Pruned != nil {
							t.Errorf("%v: %s is marked still", s.Met(), b.ID())
						}
					}
				}
			}
		}
		_ = old
	})
}

func TestPruneLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		b := saved(t, r, store, 3*day)
		folder := func(ago time.Duration) string { return backupPrefix("c", newID(time.Now().Add(-ago))) }
		died, young, heldOne, foreign, onlyHold := folder(2*day), folder(2*day), folder(2*day), folder(2*day), folder(2*day)
		for _, f := range []string{died, young, heldOne, foreign} {
			place(t, store, f+"db.zst", "cut")
		}
		place(t, store, heldOne+holdName, "{}")
		place(t, store, onlyHold+holdName, "{}")
		place(t, store, foreign+"notes.txt", "not ours")
		ageAll(t, store, "clusters/", LeftoverAge+time.Second)
		place(t, store, young+"wal-1.zst", "cut")
		kept := append(keysBelow(t, store, young), keysBelow(t, store, heldOne)...)
		kept = append(kept, foreign+"notes.txt", repositoryKey)
		kept = append(kept, keysBelow(t, store, b.key(""))...)

		plan := planned(t, r, Policy{Last: 1})
		if len(plan.Leftovers) != 3 || len(plan.Waiting) != 2 {
			t.Errorf("leftovers %+v, waiting %+v", plan.Leftovers, plan.Waiting)
		}
		result, err := plan.Apply(t.Context(), PruneOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range result.Leftovers {
			if l.Outcome != Removed || l.Freed == 0 {
				t.Errorf("%+v", l)
			}
		}
		slices.Sort(kept)
		if got := keysBelow(t, store, ""); !slices.Equal(got, kept) {
			t.Errorf("left is %q, want %q", got, kept)
		}
	})
}

// TestCleanLooksAgain changes a leftover between the plan and what comes of it.
func TestCleanLooksAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		comes string // object
		age   time.Duration
		want  Outcome
	}{
		{"nothing", "", 0, Removed},
		{"a part", "wal-1.zst", LeftoverAge, Kept},
		{"a part long ago", "wal-1.zst", LeftoverAge + time.Second, Removed},
		{"a manifest", manifestName, 2 * day, Kept},
		{"a hold", holdName, 2 * day, Held},
		{"a mark", prunedDir + "20000101T000000Z-abcdef.json", 0, Kept},
		{"a mark long ago", prunedDir + "20000101T000000Z-abcdef.json", 2 * day, Removed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store := newRepository(t)
				folder := backupPrefix("c", newID(time.Now()))
				place(t, store, folder+"db.zst", "cut")
				time.Sleep(LeftoverAge + time.Second)
				plan := planned(t, r, Policy{Last: 1})
				if c.comes != "" {
					place(t, store, folder+c.comes, "{}")
					if err := store.Age(folder+c.comes, c.age); err != nil {
						t.Fatal(err)
					}
				}
				before := keysBelow(t, store, folder)
				result, err := plan.Apply(t.Context(), PruneOptions{})
				if err != nil || len(result.Leftovers) != 1 || result.Leftovers[0].Outcome != c.want {
					t.Fatalf("%+v, %v, want %s", result.Leftovers, err, c.want)
				}
				if c.want == Removed {
					before = nil
				}
				if left := keysBelow(t, store, folder); !slices.Equal(left, before) {
					t.Errorf("left is %q, want %q", left, before)
				}
			})
		})
	}
}

// TestHoldAfterAnUncertainRemoval has a prune get no answer to the removal of
// the manifest: it may yet come to pass, so nobody may count on the hold.
func TestHoldAfterAnUncertainRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		old := saved(t, r, store, 3*day)
		saved(t, r, store, 2*day)
		prune := &Repository{head: r.head, store: storagetest.NewFaulty(store, func(op storagetest.Op) storagetest.Fault {
			if op.Method == "Delete" && op.Key == old.key(manifestName) {
				return storagetest.Fault{Kind: storagetest.Fail, Err: storage.ErrUnreachable}
			}
			return storagetest.Fault{}
		})}
		result, err := planned(t, prune, Policy{Last: 1}).Apply(t.Context(), PruneOptions{})
		if !errors.Is(err, storage.ErrUnreachable) || result.Removals[0].Outcome != Failed {
			t.Errorf("%+v, %v", result.Removals, err)
		}
		if err := r.Hold(t.Context(), old, "audit"); !errors.Is(err, ErrPruning) {
			t.Errorf("hold: %v", err)
		}
		time.Sleep(markLife)
		if err := r.Hold(t.Context(), old, "audit"); err != nil {
			t.Errorf("hold later: %v", err)
		}
		time.Sleep(day)
		pruned(t, r, Policy{Last: 1})
		if got := reread(t, r, old); got.Pruned != nil {
			t.Errorf("it is marked still: %+v", got.Pruned)
		}
	})
}

// sweepStore notes what it is to sweep.
type sweepStore struct {
	storage.Store
	swept *string
	err   error
}

func (s sweepStore) Sweep(_ context.Context, prefix string, before time.Time) (int, error) {
	*s.swept = prefix + " " + before.Format(time.RFC3339)
	return 3, s.err
}

func TestPruneSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		saved(t, r, store, day)
		var swept string
		r.store = sweepStore{store, &swept, nil}
		if got := pruned(t, r, Policy{Last: 1}); got.Swept != 3 || swept != "clusters/ 1999-12-31T00:00:00Z" {
			t.Errorf("%d swept of %q", got.Swept, swept)
		}
		r.store = sweepStore{store, &swept, storage.ErrDenied}
		if _, err := planned(t, r, Policy{Last: 1}).Apply(t.Context(), PruneOptions{}); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("denied: %v", err)
		}
	})
}

// lockStore is a store with locks that tells them. The zero time is a lock
// without an end.
type lockStore struct {
	storagetest.Locking
	until map[string]time.Time
}

func (s lockStore) LockedUntil(_ context.Context, key string) (time.Time, error) {
	until, locked := s.until[key]
	if locked && until.IsZero() {
		return until, storage.ErrRetained
	}
	return until, nil
}

// TestPruneWithdrawsDeadMarks has prunes die over a backup that is kept. The
// store may have locked a mark.
func TestPruneWithdrawsDeadMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		b := saved(t, r, store, 3*day)
		locked, err := r.putMark(t.Context(), "c", b.ID())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := r.putMark(t.Context(), "c", b.ID()); err != nil {
			t.Fatal(err)
		}
		locking := storagetest.Locking{Memory: store}
		if err := locking.Retain(t.Context(), locked.key(), time.Now().Add(2*day)); err != nil {
			t.Fatal(err)
		}
		r.store = locking
		for i, want := range []int{0, 1, 1} {
			if got := pruned(t, r, Policy{Last: 1}).Withdrawn; got != want {
				t.Errorf("prune %d: %d withdrawn, want %d", i, got, want)
			}
			time.Sleep(day + time.Hour)
		}
		if reread(t, r, b).Pruned != nil {
			t.Errorf("left is %s", objectsIn(t, store))
		}
	})
}

func TestPruneLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		old, newest := saved(t, r, store, 3*day, "db", "wal/1.wal"), saved(t, r, store, 2*day, "db", "wal/1.wal")
		r.store = storagetest.Locking{Memory: store}

		result, err := planned(t, r, Policy{Last: 2}).Apply(t.Context(), PruneOptions{LockFor: 5 * day})
		if err != nil || result.Extended != 6 {
			t.Fatalf("%d objects locked, %v", result.Extended, err)
		}
		result, err = planned(t, r, Policy{Last: 1}).Apply(t.Context(), PruneOptions{})
		if err != nil || result.Removals[0].Outcome != Locked || !errors.Is(result.Removals[0].Err, storage.ErrRetained) {
			t.Errorf("a locked one: %+v, %v", result.Removals, err)
		}
		if got := listedIDs(t, store); !slices.Equal(got, []string{old.ID(), newest.ID()}) {
			t.Errorf("left are %q", got)
		}
		for _, until := range []time.Time{time.Now().Add(day), {}} {
			telling := lockStore{storagetest.Locking{Memory: store}, map[string]time.Time{old.key(manifestName): until}}
			r.store = storage.Limit(telling, 1<<40, 0) // a wrapper
			plan := planned(t, r, Policy{Last: 1})
			if len(plan.Locked) != 1 || plan.Locked[0].Backup.ID() != old.ID() || !plan.Locked[0].Until.Equal(until) {
				t.Errorf("planned: locked are %+v", plan.Locked)
			}
			result, err = plan.Apply(t.Context(), PruneOptions{})
			if err != nil || result.Removals[0].Outcome != Locked || !result.Removals[0].Until.Equal(until) {
				t.Errorf("one whose lock is known: %+v, %v", result.Removals, err)
			}
			if reread(t, r, old).Pruned != nil {
				t.Error("a mark was put, which would be locked as well")
			}
		}
		if plan := planned(t, r, Policy{Last: 2}); len(plan.Locked) > 0 {
			t.Errorf("none is to be removed, but locked are %+v", plan.Locked)
		}
		time.Sleep(6 * day)
		r.store = storagetest.Locking{Memory: store}
		result, err = planned(t, r, Policy{Last: 1}).Apply(t.Context(), PruneOptions{LockFor: day})
		if err != nil || result.Removals[0].Outcome != Removed || result.Extended != 3 {
			t.Errorf("later: %+v, %d objects locked, %v", result.Removals, result.Extended, err)
		}
		r.store = store
		if _, err := planned(t, r, Policy{Last: 1}).Apply(t.Context(), PruneOptions{LockFor: day}); err == nil {
			t.Error("a store that can't lock: no error")
		}
	})
}

// slowStore takes its time to remove manifests.
type slowStore struct {
	storage.Store
	delay time.Duration
}

func (s slowStore) Put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	obj, err := s.Store.Put(ctx, key, body, o)
	time.Sleep(s.delay)
	return obj, err
}

// TestPruneGivesUpWhenLate has the answer to the mark take longer than marks
// are heeded: others may have taken it for dead.
func TestPruneGivesUpWhenLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		saved(t, r, store, 3*day)
		saved(t, r, store, 2*day)
		r.store = slowStore{store, maxRemoval + time.Second}
		result, err := planned(t, r, Policy{Last: 1}).Apply(t.Context(), PruneOptions{})
		if !errors.Is(err, errLate) || result.Removals[0].Outcome != Failed {
			t.Errorf("%+v, %v", result.Removals, err)
		}
		for _, b := range checkWhole(t, store).Backups {
			if b.Pruned != nil {
				t.Errorf("%s is marked still", b.ID())
			}
		}
		if got := listedIDs(t, store); len(got) != 2 {
			t.Errorf("left are %q", got)
		}
	})
}

// TestPruneGoesOn meets an error with each backup in turn.
func TestPruneGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, base := newRepository(t)
		for i := range 4 {
			saved(t, r, base, time.Duration(4-i)*day)
		}
		for fail := range 3 {
			store := cloneMemory(t, base)
			at := fmt.Sprintf("%d", fail)
			deny := storagetest.NewFaulty(store, func(op storagetest.Op) storagetest.Fault {
				ids := listedIDs(t, base)
				if op.Method == "Delete" && strings.Contains(op.Key, ids[fail]) {
					return storagetest.Fault{Kind: storagetest.Fail, Err: storage.ErrDenied}
				}
				return storagetest.Fault{}
			})
			plan, err := (&Repository{store: deny, head: r.head}).PlanPrune(t.Context(), "", Policy{Last: 1}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			result, err := plan.Apply(t.Context(), PruneOptions{})
			if !errors.Is(err, storage.ErrDenied) {
				t.Errorf("%s denied: %v", at, err)
			}
			for i, removal := range result.Removals {
				want := Removed
				if i == fail {
					want = Failed
				}
				if removal.Outcome != want {
					t.Errorf("%s denied: %d is %s, want %s", at, i, removal.Outcome, want)
				}
			}
		}
	})
}
