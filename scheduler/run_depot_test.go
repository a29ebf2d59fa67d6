package scheduler

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// depotIn is a repository in a store, as a job has it that saves a few bytes.
func depotIn(t *testing.T, store storage.Store, cfg *Config, job string) *smallDepot {
	t.Helper()
	repo, err := repository.OpenOrInit(t.Context(), toldStore{store}, repository.InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	j := cfg.Jobs[job]
	return &smallDepot{&openedDepot{task{
		cluster: cfg.Clusters[j.Cluster], job: j, repository: cfg.Repositories[j.Repositories[0]],
		log: New(cfg, Options{}).log,
	}, repo}}
}

// A run with lock-for extends the locks of what it keeps, and of nothing else;
// one without leaves them alone. What is locked still when no rule keeps it any
// more stays until its lock ends, which is no failure.
func TestDaemonExtendsLocks(t *testing.T) {
	const config = `
repositories: {a: {url: "s3://b"}}
clusters: {c: {endpoints: "http://127.0.0.1:2379"}}
jobs:
  j: {cluster: c, repositories: a, schedule: on-demand, retention: {last: 2, lock-for: 10d}}
  k: {cluster: c, repositories: a, schedule: on-demand, retention: {last: 2}}
`
	synctest.Test(t, func(t *testing.T) {
		memory := storagetest.NewMemoryAt(time.Now)
		cfg := configOf(t, config)
		lock, plain := depotIn(t, storagetest.Locking{Memory: memory}, cfg, "j"), depotIn(t, memory, cfg, "k")
		save := func() {
			t.Helper()
			time.Sleep(24 * time.Hour)
			if _, err := plain.save(t.Context(), nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		prune := func(d *smallDepot, left int) {
			t.Helper()
			if _, _, err := d.prune(t.Context(), d.job.Retention, nil); err != nil {
				t.Fatal(err)
			}
			l, err := d.repo.List(t.Context(), "c")
			if err != nil || len(l.Backups) != left || len(l.Unfinished) > 0 {
				t.Errorf("left: %+v (%v), want %d backups", l, err, left)
			}
		}
		save()
		save()
		prune(lock, 2)
		locked := time.Now()
		save()
		prune(plain, 3) // the oldest is locked for nine more days
		time.Sleep(12 * time.Hour)
		prune(lock, 3)
		time.Sleep(time.Until(locked.Add(10*24*time.Hour - time.Second)))
		prune(plain, 3)
		time.Sleep(2 * time.Second)
		prune(plain, 2)
		save()
		prune(plain, 3) // the second was kept by a later prune, and so locked for longer
		time.Sleep(24 * time.Hour)
		prune(plain, 2)
	})
}

// Asked to lock in a store that can't, a prune removes nothing and says so.
func TestDaemonCannotLock(t *testing.T) {
	d := depotIn(t, storagetest.NewMemory(), configOf(t, strings.Replace(nightly, "hooks:", "retention: {last: 1}\n    hooks:", 1)), "nightly")
	for range 2 {
		if _, err := d.save(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := d.prune(t.Context(), &RetentionConfig{Last: 1, LockFor: repository.Span{Days: 1}}, nil)
	l, listErr := d.repo.List(t.Context(), "c")
	if err == nil || !strings.Contains(err.Error(), "can't lock objects") || listErr != nil || len(l.Backups) != 2 {
		t.Errorf("got %v; left %+v (%v)", err, l, listErr)
	}
}
