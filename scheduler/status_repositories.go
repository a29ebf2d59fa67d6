package scheduler

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// lookEvery is how long the repositories are not looked at, if no run says
	// that something changed.
	lookEvery = time.Hour
	// lookLimit is how long a look may take.
	lookLimit = 2 * time.Minute
)

// looked is what a look at a repository found.
type looked struct {
	name    string
	backups []keptBackup
	err     error
}

// refresh has a job's repositories looked at.
func (d *Daemon) refresh(job string) {
	if t := d.track(trackKey{BackupRun, job}); t != nil {
		select {
		case t.stale <- struct{}{}:
		default:
		}
	}
}

// watch looks at the job's repositories when something changed there, and now
// and then: other daemons put backups there too.
func (t *track) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if !t.wanted() {
			return
		}
		t.note(ctx)
		timer := time.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
		case <-t.stale:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// note looks at the repositories and keeps what it saw.
func (t *track) note(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	all := t.lookAround(limited)
	if ctx.Err() != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.seen
	t.seen = make([]RepositoryStatus, len(all))
	for i, look := range all {
		t.seen[i] = look.status(before)
	}
}

// status is what was found, or what was known before if nothing was.
func (l looked) status(before []RepositoryStatus) RepositoryStatus {
	now := time.Now().Round(0)
	if l.err != nil {
		s := RepositoryStatus{Name: l.name}
		if i := slices.IndexFunc(before, func(b RepositoryStatus) bool { return b.Name == l.name }); i >= 0 {
			s = before[i]
		}
		s.Checked, s.Error = now, l.err.Error()
		return s
	}
	s := RepositoryStatus{Name: l.name, Checked: now, Backups: len(l.backups)}
	if n := len(l.backups); n > 0 {
		ref := l.backups[n-1].BackupRef
		s.Newest = &ref
	}
	for _, b := range slices.Backward(l.backups) {
		if b.Level != "" {
			s.NewestProven = &b.BackupRef
			break
		}
	}
	return s
}

// lookAround lists the backups in all of the job's repositories, at once.
func (t *track) lookAround(ctx context.Context) []looked {
	t.mu.Lock()
	cfg, job := t.cfg, t.job
	t.mu.Unlock()
	r := newRun(order{kind: t.key.kind, cfg: cfg, job: job}, t.d.out, t.d.o.Tool, t.d.o.Host, t.d.log)
	all := make([]looked, len(job.Repositories))
	var group sync.WaitGroup
	for i, name := range job.Repositories {
		group.Go(func() {
			all[i].name = name
			all[i].err = r.protect(func() error {
				d, err := t.d.out.open(ctx, r.task(i))
				if err == nil {
					all[i].backups, err = d.list(ctx)
				}
				return err
			})
		})
	}
	group.Wait()
	return all
}

// Backups lists the backups of a job's cluster in each of its repositories.
func (d *Daemon) Backups(ctx context.Context, job string) ([]RepositoryBackups, error) {
	t := d.track(trackKey{BackupRun, job})
	if t == nil {
		return nil, ErrNoJob
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	var all []RepositoryBackups
	for _, look := range t.lookAround(ctx) {
		r := RepositoryBackups{Name: look.name, Backups: []BackupRef{}}
		if look.err != nil {
			r.Error = look.err.Error()
		}
		for _, b := range slices.Backward(look.backups) {
			r.Backups = append(r.Backups, b.BackupRef)
		}
		all = append(all, r)
	}
	return all, nil
}

// repositories are what is known of them, the caller's own.
func (t *track) repositories() []RepositoryStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := []RepositoryStatus{}
	for _, name := range t.job.Repositories {
		s := RepositoryStatus{Name: name}
		if i := slices.IndexFunc(t.seen, func(b RepositoryStatus) bool { return b.Name == name }); i >= 0 {
			s = t.seen[i]
		}
		all = append(all, s)
	}
	return all
}
