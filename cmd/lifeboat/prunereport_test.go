package main

import (
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/storage"
)

// TestPruneReportOfLocks wants locks told before anything is removed, and not
// counted as removals.
func TestPruneReportOfLocks(t *testing.T) {
	var decisions []repository.Decision
	for _, id := range []string{"20240101T000000Z-aaaaaa", "20240102T000000Z-bbbbbb", "20240103T000000Z-cccccc"} {
		b := &repository.Backup{Manifest: repository.Manifest{ID: id, Cluster: "c"}}
		decisions = append(decisions, repository.Decision{Backup: b})
	}
	plan := &repository.PrunePlan{Policy: repository.Policy{Last: 1}, Decisions: decisions, Locked: []repository.Removal{
		{Backup: decisions[1].Backup, Outcome: repository.Locked, Until: time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC), Err: storage.ErrRetained},
		{Backup: decisions[2].Backup, Outcome: repository.Locked, Err: storage.ErrRetained},
	}}
	r := newPruneReport(plan)
	r.DryRun = true
	for i, want := range []string{"remove", "locked until 2024-05-01 12:00", "locked"} {
		if got := r.Backups[i].Outcome; got != want {
			t.Errorf("%s: %s, want %s", r.Backups[i].ID, got, want)
		}
	}
	if got, want := r.summary(), "Would keep 2 and remove 1 (last 1)\n"; got != want {
		t.Errorf("it sums up to %q, want %q", got, want)
	}
}
