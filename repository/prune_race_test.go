package repository

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// pruner is an actor that plans and applies.
func pruner(name string, p Policy) actor {
	return actor{name, func(ctx context.Context, s storage.Store) error {
		r, err := Open(ctx, s)
		if err != nil {
			return err
		}
		plan, err := r.PlanPrune(ctx, "c", p, time.Now())
		if err != nil {
			return err
		}
		_, err = plan.Apply(ctx, PruneOptions{})
		return err
	}}
}

// remover is an actor that applies a plan that was made before.
func remover(name string, plan *PrunePlan) actor {
	return actor{name, func(ctx context.Context, s storage.Store) error {
		mine := *plan
		mine.repo = &Repository{store: s, head: plan.repo.head}
		_, err := mine.Apply(ctx, PruneOptions{})
		return err
	}}
}

// on is an actor that does something to a backup.
func on(name string, b *Backup, do func(ctx context.Context, r *Repository, b *Backup) error) actor {
	return actor{name, func(ctx context.Context, s storage.Store) error {
		mine := *b
		mine.Proofs = slices.Clone(b.Proofs)
		mine.repo = &Repository{store: s, head: b.repo.head}
		return do(ctx, mine.repo, &mine)
	}}
}

func holder(b *Backup) actor {
	return on("hold", b, func(ctx context.Context, r *Repository, b *Backup) error { return r.Hold(ctx, b, "audit") })
}

// find returns a listed backup, or nil.
func (l *Listing) find(id string) *Backup {
	for _, b := range l.Backups {
		if b.ID() == id {
			return b
		}
	}
	return nil
}

// checkHeld wants a backup that is held to be there, now and after more prunes.
func checkHeld(t *testing.T, end ending, b *Backup) {
	t.Helper()
	checkTold(t, end)
	l := checkWhole(t, end.store)
	if there := l.find(b.ID()); end.errs["hold"] == nil && (there == nil || there.Hold == nil) {
		t.Errorf("%s is not there, but Hold said that it is held", b.ID())
	}
	if end.errs["hold"] == nil {
		ageAll(t, end.store, "clusters/", 2*day)
		r := &Repository{store: end.store, head: b.repo.head}
		pruned(t, r, Policy{Last: 1})
		if checkWhole(t, end.store).find(b.ID()) == nil {
			t.Errorf("a later prune removed %s, but Hold said that it is held", b.ID())
		}
	}
}

// checkTold wants no errors but those that tell of what the others do.
func checkTold(t *testing.T, end ending) {
	t.Helper()
	for name, err := range end.errs {
		expected := errors.Is(err, storagetest.ErrCrashed) || errors.Is(err, ErrPruning) || errors.Is(err, ErrNotExist)
		if err != nil && !expected {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHoldWhilePruning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		old := saved(t, r, store, 3*day)
		saved(t, r, store, 2*day)
		plan := planned(t, r, Policy{Last: 1})
		scene{
			store: store, actors: []actor{remover("prune", plan), holder(old)}, switches: 3, mortal: "prune",
			check: func(t *testing.T, end ending) { checkHeld(t, end, old) },
		}.play(t)
	})
}

func TestHoldWhileTwoPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		old := saved(t, r, store, 3*day)
		saved(t, r, store, 2*day)
		plan := planned(t, r, Policy{Last: 1})
		scene{
			store: store, actors: []actor{remover("first", plan), remover("second", plan), holder(old)}, switches: 1, mortal: "first",
			check: func(t *testing.T, end ending) { checkHeld(t, end, old) },
		}.play(t)
	})
}

// TestHoldWhilePruningOverADeadMark begins with the mark of a prune that died.
func TestHoldWhilePruningOverADeadMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		old := saved(t, r, store, 3*day)
		newest := saved(t, r, store, 2*day)
		for _, b := range []*Backup{old, newest} {
			if _, err := r.putMark(t.Context(), "c", b.ID()); err != nil {
				t.Fatal(err)
			}
		}
		ageAll(t, store, "clusters/", day)
		scene{
			store: store, actors: []actor{pruner("first", Policy{Last: 1}), pruner("second", Policy{Last: 2}), holder(old)}, switches: 1,
			check: func(t *testing.T, end ending) { checkHeld(t, end, old) },
		}.play(t)
	})
}

func TestPruneTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		saved(t, r, store, 4*day)
		saved(t, r, store, 3*day)
		newest := saved(t, r, store, 2*day)
		plan := planned(t, r, Policy{Last: 1})
		scene{
			store: store, actors: []actor{remover("first", plan), remover("second", plan)}, switches: 1, mortal: "first",
			check: func(t *testing.T, end ending) {
				checkTold(t, end)
				if end.errs["second"] != nil {
					t.Errorf("the second prune: %v", end.errs["second"])
				}
				l := checkWhole(t, end.store)
				if len(l.Backups) != 1 || l.Backups[0].ID() != newest.ID() {
					t.Errorf("left are %d backups", len(l.Backups))
				}
				if end.errs["first"] == nil && len(l.Unfinished) > 0 {
					t.Errorf("left over: %+v", l.Unfinished)
				}
			},
		}.play(t)
	})
}

func TestListWhilePruning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		old := saved(t, r, store, 3*day, "db", "wal/1.wal")
		if err := r.AddProof(t.Context(), old, Proof{Time: time.Now(), Level: Boot, Result: ResultDamaged, Tool: "test"}); err != nil {
			t.Fatal(err)
		}
		newest := saved(t, r, store, 2*day)
		var listed *Listing
		list := actor{"list", func(ctx context.Context, s storage.Store) (err error) {
			listed, err = (&Repository{store: s, head: r.head}).List(ctx, "c")
			return err
		}}
		scene{
			store: store, actors: []actor{remover("prune", planned(t, r, Policy{Last: 1})), list}, switches: 3, mortal: "prune",
			check: func(t *testing.T, end ending) {
				if err := end.errs["list"]; err != nil {
					t.Fatalf("list: %v", err)
				}
				if len(listed.Damaged) > 0 || listed.find(newest.ID()) == nil {
					t.Errorf("listed are %d backups; damaged: %v", len(listed.Backups), listed.Damaged)
				}
				for _, b := range listed.Backups {
					if len(b.Damaged) > 0 {
						t.Errorf("%s is listed with %v", b.ID(), b.Damaged)
					}
				}
				checkTold(t, end)
				checkWhole(t, end.store)
			},
		}.play(t)
	})
}

// TestVerifyWhilePruning has a proof come that makes the backup that a prune
// lets go the newest one proven.
func TestVerifyWhilePruning(t *testing.T) {
	boot := func(b *Backup, r Result) actor {
		return on("verify", b, func(ctx context.Context, repo *Repository, b *Backup) error {
			return repo.AddProof(ctx, b, Proof{Time: time.Now(), Level: Boot, Result: r, Tool: "test"})
		})
	}
	for _, c := range []struct {
		name   string
		verify func(old, mid *Backup) actor
	}{
		{"it passes", func(old, _ *Backup) actor { return boot(old, ResultPassed) }},
		{"a newer one fails", func(_, mid *Backup) actor { return boot(mid, ResultDamaged) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store := newRepository(t)
				old, mid := saved(t, r, store, 4*day), saved(t, r, store, 3*day)
				saved(t, r, store, 2*day)
				if strings.Contains(c.name, "newer") {
					for _, b := range []*Backup{old, mid} {
						if err := r.AddProof(t.Context(), b, Proof{Time: time.Now(), Level: Boot, Result: ResultPassed, Tool: "test"}); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(time.Second)
				}
				scene{
					store: store, switches: 2, mortal: "prune",
					actors: []actor{remover("prune", planned(t, r, Policy{Last: 1})), c.verify(old, mid)},
					check: func(t *testing.T, end ending) {
						l := checkWhole(t, end.store)
						checkTold(t, end)
						if l.find(old.ID()) == nil && knewBefore(end, old) {
							t.Errorf("%s is gone, but the proof was there before the prune looked", old.ID())
						}
						if l.find(mid.ID()) == nil && strings.Contains(c.name, "newer") {
							t.Errorf("%s is gone, which was the newest proven", mid.ID())
						}
					},
				}.play(t)
			})
		})
	}
}

// knewBefore tells whether the proof was put before the mark, after which the
// prune looked again.
func knewBefore(end ending, removed *Backup) bool {
	marked := lastStep(end, func(s step) bool {
		return s.actor == "prune" && s.method == "Put" && strings.HasPrefix(s.key, removed.key(prunedDir))
	})
	proven := lastStep(end, func(s step) bool { return s.actor == "verify" && s.method == "Put" })
	return proven >= 0 && proven < marked
}

// lastStep is the number of the last operation that matches, or -1.
func lastStep(end ending, match func(step) bool) int {
	for i, s := range slices.Backward(end.log) {
		if match(s) {
			return i
		}
	}
	return -1
}

// TestSaveWhileCleaning has saves that began before or after what the limits
// allow commit while a prune cleans up.
func TestSaveWhileCleaning(t *testing.T) {
	for _, c := range []struct {
		name string
		ago  time.Duration
		may  bool // commit
	}{
		{"in time", MaxSave - time.Minute, true},
		{"too late", LeftoverAge + time.Minute, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store := newRepository(t)
				saved(t, r, store, 2*day)
				d, err := r.Begin(t.Context(), "c", DraftOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := d.Put(t.Context(), Part{Name: "db", Role: RoleDB}, put([]byte("data"))); err != nil {
					t.Fatal(err)
				}
				time.Sleep(c.ago)
				save := actor{"save", func(ctx context.Context, s storage.Store) error {
					mine := &Draft{
						repo: &Repository{store: s, head: r.head}, cluster: d.cluster, id: d.id, started: d.started,
						o: d.o, sealer: d.sealer, parts: d.parts, tried: d.tried, ended: d.ended, end: d.end,
					}
					_, err := mine.Commit(ctx, Manifest{Kind: Files, Tool: "test"})
					return err
				}}
				scene{
					store: store, actors: []actor{pruner("prune", Policy{Last: 1}), save}, switches: 2, mortal: "save",
					check: func(t *testing.T, end ending) {
						l := checkWhole(t, end.store)
						err := end.errs["save"]
						if err == nil && l.find(d.ID()) == nil {
							t.Error("it was committed, but is not listed")
						}
						if !errors.Is(err, storagetest.ErrCrashed) && (err == nil) != c.may {
							t.Errorf("the save ended with %v", err)
						}
					},
				}.play(t)
			})
		})
	}
}

// copyScene is a backup to copy, and where to.
type copyScene struct {
	from, to       *Repository
	source, target *storagetest.Memory
	backup, other  *Backup // other is newer and in both places
}

func newCopyScene(t *testing.T) copyScene {
	t.Helper()
	var c copyScene
	c.from, c.source = newRepository(t)
	c.to, c.target = newRepository(t)
	c.backup = saved(t, c.from, c.source, 4*day, "db", "wal/1.wal", "wal/2.wal")
	c.other = saved(t, c.from, c.source, 2*day)
	if err := Copy(t.Context(), c.from, c.to, c.other, nil); err != nil {
		t.Fatal(err)
	}
	ageAll(t, c.target, c.other.key(""), 2*day)
	return c
}

// copier copies to a store from one that nobody else uses.
func (c copyScene) copier(name string) actor {
	return actor{name, func(ctx context.Context, s storage.Store) error {
		from := &Repository{store: c.source, head: c.from.head}
		return Copy(ctx, from, &Repository{store: s, head: c.to.head}, c.backup, nil)
	}}
}

func (c copyScene) checkCopied(t *testing.T, end ending, names ...string) {
	t.Helper()
	checkTold(t, end)
	l := checkWhole(t, end.store)
	for _, name := range names {
		if errors.Is(end.errs[name], ErrNotExist) {
			t.Errorf("%s committed what was being removed: %v", name, end.errs[name])
		}
		if end.errs[name] == nil && l.find(c.backup.ID()) == nil {
			t.Errorf("%s said that it is copied, but it is not listed", name)
		}
	}
	if l.find(c.other.ID()) == nil {
		t.Error("the newest is gone")
	}
}

// TestCopyWhileCleaning has a copy resume what a prune takes for a leftover.
func TestCopyWhileCleaning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		for _, p := range c.backup.Manifest.Parts {
			data, err := readAll(t.Context(), c.source, c.backup.key(p.Object))
			if err != nil {
				t.Fatal(err)
			}
			place(t, c.target, c.backup.key(p.Object), string(data))
		}
		place(t, c.target, c.backup.key(proofDir+newID(time.Now())+".json"), "of an earlier life")
		ageAll(t, c.target, c.backup.key(""), 2*day)
		clean := remover("clean", planned(t, c.to, Policy{Last: 1}))
		scene{
			store: c.target, actors: []actor{clean, c.copier("copy")}, switches: 2, mortal: "clean",
			check: func(t *testing.T, end ending) { c.checkCopied(t, end, "copy") },
		}.play(t)
		scene{
			store: c.target, actors: []actor{clean, c.copier("copy")}, switches: 1, mortal: "copy",
			check: func(t *testing.T, end ending) { c.checkCopied(t, end) },
		}.play(t)
	})
}

// TestCopyWhileTwoClean has one prune still at it when the other has ended.
func TestCopyWhileTwoClean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		p := c.backup.Manifest.Parts[1]
		data, err := readAll(t.Context(), c.source, c.backup.key(p.Object))
		if err != nil {
			t.Fatal(err)
		}
		place(t, c.target, c.backup.key(p.Object), string(data))
		ageAll(t, c.target, c.backup.key(""), 2*day)
		plan := planned(t, c.to, Policy{Last: 1})
		scene{
			store: c.target, actors: []actor{remover("first", plan), remover("second", plan), c.copier("copy")}, switches: 2,
			check: func(t *testing.T, end ending) { c.checkCopied(t, end, "copy") },
		}.play(t)
	})
}

// TestCopyWhileTheSourceIsPruned reads from what a prune removes.
func TestCopyWhileTheSourceIsPruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		var target *storagetest.Memory
		reader := actor{"copy", func(ctx context.Context, s storage.Store) error {
			target = cloneMemory(t, c.target)
			from := &Repository{store: s, head: c.from.head}
			return Copy(ctx, from, &Repository{store: target, head: c.to.head}, c.backup, nil)
		}}
		scene{
			store: c.source, actors: []actor{remover("prune", planned(t, c.from, Policy{Last: 1})), reader}, switches: 2,
			check: func(t *testing.T, end ending) {
				checkWhole(t, end.store)
				there := checkWhole(t, target).find(c.backup.ID()) != nil
				if there != (end.errs["copy"] == nil) {
					t.Errorf("there is a copy: %v, but Copy ended with %v", there, end.errs["copy"])
				}
			},
		}.play(t)
	})
}

// TestTwoCopiesAndAPrune has a prune remove what the first copy brought while
// the second is at it.
func TestTwoCopiesAndAPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		scene{
			store: c.target, actors: []actor{c.copier("first"), c.copier("second"), pruner("prune", Policy{Last: 1})}, switches: 2,
			check: func(t *testing.T, end ending) {
				checkTold(t, end)
				checkWhole(t, end.store)
				c.checkThere(t, end, "first")
				c.checkThere(t, end, "second")
			},
		}.play(t)
	})
}

// checkThere wants a copy that ended well to be there at its end, with nobody
// about to remove it, and later unless the prune removed it.
func (c copyScene) checkThere(t *testing.T, end ending, name string) {
	t.Helper()
	if end.errs[name] != nil {
		return
	}
	there := map[string]bool{}
	last := lastStep(end, func(s step) bool { return s.actor == name })
	for i, s := range end.log {
		switch {
		case s.err != nil || !strings.HasPrefix(s.key, c.backup.key("")):
		case s.method == "Put":
			there[s.key] = true
		case s.method == "Delete":
			if i > last && s.actor != "prune" && len(there) == len(c.backup.objects()) && there[s.key] {
				t.Errorf("%s said that it is copied, and %s removed it", name, s.actor)
			}
			delete(there, s.key)
		}
		if i == last && len(there) != len(c.backup.objects()) {
			t.Errorf("%s said that it is copied, and there was %v", name, there)
		}
	}
}

// TestCommitACopyWhilePruning has a prune remove what another copy brought
// while this one puts the manifest, and dies.
func TestCommitACopyWhilePruning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		if err := Copy(t.Context(), c.from, c.to, c.backup, nil); err != nil {
			t.Fatal(err)
		}
		commit := actor{"copy", func(ctx context.Context, s storage.Store) error {
			sealed, _, err := sealRecord(kindManifest, c.backup.Manifest)
			if err != nil {
				return err
			}
			again := &copying{to: &Repository{store: s, head: c.to.head}, b: c.backup, began: time.Now(), claimed: time.Now()}
			return again.finish(ctx, sealed)
		}}
		scene{
			store: c.target, actors: []actor{remover("prune", planned(t, c.to, Policy{Last: 1})), commit}, switches: 3, mortal: "copy",
			check: func(t *testing.T, end ending) {
				checkTold(t, end)
				if end.errs["prune"] != nil {
					t.Errorf("prune: %v", end.errs["prune"])
				}
				// A copy that dies with the manifest put, after a prune that ended, leaves it without parts.
				removed := lastStep(end, func(s step) bool {
					return s.actor == "prune" && s.method == "Delete" && strings.HasSuffix(s.key, sealedSuffix)
				})
				came := lastStep(end, func(s step) bool { return s.method == "Put" && s.key == c.backup.key(manifestName) })
				if errors.Is(end.errs["copy"], storagetest.ErrCrashed) && came >= removed {
					c.copyLater(t, end)
				}
				checkWhole(t, end.store)
			},
		}.play(t)
	})
}

// TestMendWhilePruning has a prune remove a backup that a copy is mending, and
// die.
func TestMendWhilePruning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		if err := Copy(t.Context(), c.from, c.to, c.backup, nil); err != nil {
			t.Fatal(err)
		}
		lost := c.backup.key(c.backup.Manifest.Parts[1].Object)
		if err := c.target.Delete(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
		scene{
			store: c.target, actors: []actor{remover("prune", planned(t, c.to, Policy{Last: 1})), c.copier("copy")}, switches: 2, mortal: "prune",
			check: func(t *testing.T, end ending) {
				if end.errs["copy"] == nil && !errors.Is(end.errs["prune"], storagetest.ErrCrashed) {
					checkWhole(t, end.store)
				}
				c.copyLater(t, end)
				checkWhole(t, end.store)
			},
		}.play(t)
	})
}

// copyLater copies again once marks of the dead bind nobody.
func (c copyScene) copyLater(t *testing.T, end ending) {
	t.Helper()
	time.Sleep(markLife)
	if err := c.copier("").do(t.Context(), end.store); err != nil {
		t.Errorf("copied again: %v", err)
	}
}

// TestCopyAndHoldWhileTwoPrune has one prune end, the backup copied again, and
// held, while the other prune that was to remove it is still about to.
func TestCopyAndHoldWhileTwoPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCopyScene(t)
		if err := Copy(t.Context(), c.from, c.to, c.backup, nil); err != nil {
			t.Fatal(err)
		}
		plan := planned(t, c.to, Policy{Last: 1})
		hold := holder(c.backup)
		again := actor{"hold", func(ctx context.Context, s storage.Store) error {
			if err := c.copier("").do(ctx, s); err != nil {
				return err
			}
			return hold.do(ctx, s)
		}}
		scene{
			store: c.target, actors: []actor{remover("first", plan), remover("second", plan), again}, switches: 1,
			check: func(t *testing.T, end ending) { checkHeld(t, end, c.backup) },
		}.play(t)
	})
}
