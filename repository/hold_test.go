package repository

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

func reread(t testing.TB, r *Repository, b *Backup) *Backup {
	t.Helper()
	again, err := r.Backup(t.Context(), b.Cluster(), b.ID())
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestHoldAndRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		old := saved(t, r, store, 3*day)
		saved(t, r, store, 2*day)
		if err := r.Hold(t.Context(), old, "audit of 1999"); err != nil {
			t.Fatal(err)
		}
		if h := reread(t, r, old).Hold; h == nil || h.Reason != "audit of 1999" || !h.Time.Equal(time.Now()) {
			t.Errorf("the hold reads %+v", h)
		}
		time.Sleep(time.Hour)
		if err := r.Hold(t.Context(), old, "audit of 1999"); err != nil {
			t.Errorf("once more: %v", err)
		}
		if err := r.Hold(t.Context(), old, "another"); err == nil || !strings.Contains(err.Error(), `held already, since 2000-01-01T01:00:00Z: "audit of 1999"`) {
			t.Errorf("for another reason: %v", err)
		}
		if err := r.Hold(t.Context(), old, "two\nlines"); err == nil {
			t.Error("a reason of two lines: no error")
		}
		if got := pruned(t, r, Policy{Last: 1}).Removals; len(got) != 0 {
			t.Errorf("removed %+v", got)
		}
		for range 2 {
			if err := r.Release(t.Context(), old); err != nil || old.Hold != nil {
				t.Errorf("release: %v, %+v", err, old.Hold)
			}
		}
		if got := pruned(t, r, Policy{Last: 1}).Removals; len(got) != 1 || got[0].Outcome != Removed {
			t.Errorf("once released: %+v", got)
		}
		if err := r.Hold(t.Context(), old, "late"); !errors.Is(err, ErrNotExist) {
			t.Errorf("hold what is gone: %v", err)
		}
		if left := keysBelow(t, store, old.key("")); len(left) > 0 {
			t.Errorf("left is %q", left)
		}
	})
}

// TestHoldOverMarks has removals that are under way or died.
func TestHoldOverMarks(t *testing.T) {
	for _, c := range []struct {
		name string
		age  time.Duration
		want error
	}{
		{"just now", 0, ErrPruning},
		{"it may be alive", markLife - time.Second, ErrPruning},
		{"dead", markLife, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store := newRepository(t)
				b := saved(t, r, store, day)
				if _, err := r.putMark(t.Context(), "c", b.ID()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(c.age)
				began := time.Now()
				err := r.Hold(t.Context(), b, "audit")
				if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
					t.Errorf("hold: %v, want %v", err, c.want)
				}
				if waited := time.Since(began); (c.want == nil) != (waited == 0) || waited > 2*pruneWait {
					t.Errorf("it took %v", waited)
				}
				if reread(t, r, b).Hold == nil {
					t.Error("the hold is not there")
				}
				time.Sleep(markLife)
				if err := r.Hold(t.Context(), b, "audit"); err != nil {
					t.Errorf("later: %v", err)
				}
			})
		})
	}
}

// TestHoldWaits has a removal withdraw while Hold waits, and the caller leave.
func TestHoldWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t)
		b := saved(t, r, store, day)
		m, err := r.putMark(t.Context(), "c", b.ID())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Hold(ctx, b, "audit"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cut short: %v", err)
		}
		time.AfterFunc(3*time.Second, func() {
			if err := m.withdraw(t.Context()); err != nil {
				t.Error(err)
			}
		})
		if err := r.Hold(t.Context(), b, "audit"); err != nil {
			t.Errorf("hold: %v", err)
		}
	})
}

// TestHoldFails meets each fault at each operation: what Hold says must be so.
func TestHoldFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, base := newRepository(t)
		b := saved(t, r, base, day)
		for _, kind := range []storagetest.Kind{storagetest.Fail, storagetest.LoseAnswer, storagetest.Cut, storagetest.End, storagetest.Repeat, storagetest.Crash, storagetest.CrashAfter} {
			for s := range storagetest.Each(storagetest.Fault{Kind: kind}, func() storage.Store { return cloneMemory(t, base) }) {
				faulty := &Repository{store: s, head: r.head}
				mine := *b
				err := faulty.Hold(t.Context(), &mine, "audit")
				there := &Repository{store: s.Inner(), head: r.head}
				if err == nil && reread(t, there, b).Hold == nil {
					t.Errorf("%v: it said that it is held", s.Met())
				}
				if err == nil && len(s.Met()) > 0 && kind != storagetest.Repeat {
					t.Errorf("%v: no error", s.Met())
				}
				if err := there.Hold(t.Context(), &mine, "audit"); err != nil {
					t.Errorf("%v, tried again: %v", s.Met(), err)
				}
			}
		}
	})
}
