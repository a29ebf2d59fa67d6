package repository

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/s3"
)

// TestPrunePlansAroundLocks has a bucket lock what is saved: a plan says until
// when, and neither it nor the prune writes anything.
func TestPrunePlansAroundLocks(t *testing.T) {
	server := s3server.Start(t, s3server.Options{Lock: true})
	server.Setenv(t)
	store, err := s3.Open(t.Context(), s3.Options{
		Bucket: s3server.Bucket, Endpoint: server.Endpoint(), PathStyle: true, ObjectLock: s3.Governance, LockFor: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Init(t.Context(), store, InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	old := mustSave(t, r, "c", contents{"db": bytes.Repeat([]byte("old"), 100)}, DraftOptions{Now: func() time.Time { return began.Add(-time.Hour) }})
	mustSave(t, r, "c", contents{"db": []byte("new")}, DraftOptions{})

	plan := planned(t, r, Policy{Last: 1})
	if len(plan.Locked) != 1 || plan.Locked[0].Backup.ID() != old.ID() {
		t.Fatalf("locked are %+v, want %s", plan.Locked, old.ID())
	}
	if until := plan.Locked[0].Until; until.Before(began.Add(time.Hour-time.Second)) || until.After(time.Now().Add(time.Hour+time.Second)) {
		t.Errorf("it is locked until %v, want an hour from %v", until, began)
	}
	before := keysBelow(t, store, "")
	result, err := plan.Apply(t.Context(), PruneOptions{})
	if err != nil || result.Removals[0].Outcome != Locked || !errors.Is(result.Removals[0].Err, storage.ErrRetained) {
		t.Errorf("%+v, %v", result.Removals, err)
	}
	if after := keysBelow(t, store, ""); len(after) != len(before) {
		t.Errorf("there is %q, want %q", after, before)
	}
}
