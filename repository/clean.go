package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

func (a *pruning) cleanAll(ctx context.Context) error {
	var errs []error
	for _, u := range a.plan.Leftovers {
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
		a.progress()
		done := a.repo.clean(ctx, u)
		a.result.Leftovers = append(a.result.Leftovers, done)
		a.result.Freed += done.Freed
		if done.Outcome == Failed {
			errs = append(errs, fmt.Errorf("leftover %s of %s: %w", u.ID, u.Cluster, done.Err))
		}
	}
	return errors.Join(errs...)
}

// clean removes a leftover, unless anything was put into its folder meanwhile:
// the next try of a copy begins there. A copy puts something before it looks
// for marks, so that either sees the other.
func (r *Repository) clean(ctx context.Context, u Unfinished) Cleaning {
	done := Cleaning{Unfinished: u, Outcome: Removed}
	if u.onlyMarks() {
		done.Freed, done.Err = r.cleanMarks(ctx, u)
		done.Outcome = outcomeOf(done.Err)
		return done
	}
	m, err := r.putMark(ctx, u.Cluster, u.ID)
	if err != nil {
		done.Outcome, done.Err = Failed, err
		return done
	}
	f, err := r.folder(ctx, m.folder)
	switch {
	case err != nil:
		done.Outcome, done.Err = Failed, m.giveUp(ctx, err)
	case f.committed() || f.touched(m):
		done.Outcome, done.Err = Kept, m.withdraw(ctx)
	case holdsParts(f.names(m.name)):
		done.Outcome, done.Err = Held, m.withdraw(ctx)
	default:
		done.Err = m.clear(ctx)
		done.Outcome, done.Freed = outcomeOf(done.Err), m.freed
	}
	return done
}

// touched tells whether anything but the mark was put into the folder within
// LeftoverAge.
func (f *folder) touched(m *mark) bool {
	for name, o := range f.objects {
		if name != m.name && m.put.Sub(o.Modified) <= LeftoverAge {
			return true
		}
	}
	return false
}

func (u Unfinished) onlyMarks() bool {
	return !slices.ContainsFunc(u.names(), func(name string) bool { return !isMark(name) })
}

// cleanMarks removes the marks that prunes left which died at their very end.
// They bind nobody any more.
func (r *Repository) cleanMarks(ctx context.Context, u Unfinished) (freed int64, err error) {
	var errs []error
	for _, key := range u.Keys {
		errs = append(errs, r.store.Delete(ctx, key))
	}
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	return u.Size, nil
}

func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return Removed
	case errors.Is(err, storage.ErrRetained):
		return Locked
	}
	return Failed
}

// sweep removes the pieces of uploads that died, where the store keeps such.
func (a *pruning) sweep(ctx context.Context) error {
	sweeper, ok := storage.As[storage.Sweeper](a.repo.store)
	if !ok {
		return nil
	}
	n, err := sweeper.Sweep(ctx, a.plan.prefix(), a.plan.Now.Add(-LeftoverAge))
	a.result.Swept = n
	if err != nil {
		return fmt.Errorf("sweep uploads that died: %w", err)
	}
	return nil
}
