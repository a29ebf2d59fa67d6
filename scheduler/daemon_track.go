package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// track is the runs of a job, or of its drill: one after the other, each when it
// is due. Its loop alone changes its state; others read it under the lock.
type track struct {
	d    *Daemon
	key  trackKey
	log  *slog.Logger
	wake chan struct{} // holds one: somebody changed what is to be done
	told chan struct{} // holds one: what of a run is told to others is told in order

	mu      sync.Mutex
	cfg     *Config
	job     *JobConfig
	state   jobState
	next    time.Time // the next slot's start
	queued  string    // id of a run that was asked for
	running *run
	ended   *RunRecord // of the run that just ended
	lead    elector    // nil: there is no election
	seen    []RepositoryStatus

	telling atomic.Int64  // runs that are told of, or wait to be
	stale   chan struct{} // holds one: the repositories are to be looked at

	pending *order // of a slot that has come, until somebody has run it
}

func newTrack(d *Daemon, key trackKey) *track {
	t := &track{d: d, key: key, wake: make(chan struct{}, 1), told: make(chan struct{}, 1), stale: make(chan struct{}, 1)}
	t.log = d.log.With("job", key.job, "kind", string(key.kind))
	t.follow(d.cfg)
	return t
}

// follow takes a configuration, of which nothing changes for runs under way.
func (t *track) follow(cfg *Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if j := cfg.Jobs[t.key.job]; j != nil && (t.key.kind == BackupRun || j.Drill != nil) {
		t.cfg, t.job = cfg, j
	}
}

// nudge makes the loop look again.
func (t *track) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// schedule is the track's timetable, nil if it runs on demand only. It is called
// with the lock held.
func (t *track) schedule() *Schedule {
	if t.key.kind == DrillRun {
		return t.job.Drill.Schedule
	}
	return t.job.Schedule
}

// loop runs what is due until ctx ends or the job is gone, and waits for the run
// under way. Runs end with hard.
func (t *track) loop(ctx, hard context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	t.restore(ctx)
	if t.key.kind == BackupRun {
		work.Go(func() { t.watch(ctx) })
	}
	e := election{t: t}
	defer e.close()
	for {
		e.follow(ctx)
		t.collect(hard, &work)
		nap := t.step(ctx, hard, &work)
		if t.over(ctx) {
			return
		}
		timer := time.NewTimer(nap)
		select {
		case <-done(ctx, t.busy()):
		case <-t.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// done is when ctx ends, or never while a run is under way, for which the loop
// waits anyway.
func done(ctx context.Context, busy bool) <-chan struct{} {
	if busy && ctx.Err() != nil {
		return nil
	}
	return ctx.Done()
}

// over tells whether the loop has nothing to do any more.
func (t *track) over(ctx context.Context) bool {
	if t.busy() {
		return false
	}
	return ctx.Err() != nil || !t.wanted() && t.d.forget(t)
}

func (t *track) busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.running != nil
}

// wanted tells whether the configuration still has the track.
func (t *track) wanted() bool { return tracksOf(t.d.config())[t.key] }

// step looks at the clock and starts what is to run now. It returns how long to
// wait for the next look.
func (t *track) step(ctx, hard context.Context, work *sync.WaitGroup) time.Duration {
	if ctx.Err() != nil || !t.wanted() {
		return lookAgain
	}
	nap := t.look(time.Now())
	if t.busy() {
		return nap
	}
	if t.pending != nil {
		if o, wait := t.decide(ctx); o != nil {
			t.begin(*o, hard, work)
			return nap
		} else if wait {
			nap = min(nap, leadPoll)
		}
	}
	if o, ok := t.asked(); ok {
		t.begin(o, hard, work)
	}
	return nap
}

// look takes note of the slots that have come.
func (t *track) look(now time.Time) time.Duration {
	t.mu.Lock()
	schedule, p := t.schedule(), &t.state.Progress
	if schedule == nil {
		t.next = time.Time{}
		t.mu.Unlock()
		return lookAgain
	}
	decision := p.Look(schedule, now, LookOptions{Busy: t.running != nil, CatchUp: t.job.CatchUp})
	t.next = decision.Next
	var passed *order
	if !decision.Slot.IsZero() {
		passed, t.pending = t.pending, t.order(decision)
	}
	t.mu.Unlock()
	if passed != nil {
		t.log.Info("a slot has come before any daemon was seen to have run the last one, which is let go", "slot", passed.slot)
	}
	t.report(decision)
	if decision.Changed {
		t.write()
	}
	return decision.Sleep(now)
}

// order is the run that was decided on. It is called with the lock held.
func (t *track) order(d Decision) *order {
	return &order{
		kind: t.key.kind, reason: d.Reason, slot: d.Slot, missed: d.Missed, cfg: t.cfg, job: t.job,
		taken: d.Reason == Again,
	}
}

// report logs what was decided beside a run.
func (t *track) report(d Decision) {
	if d.Missed > 0 {
		t.log.Warn("slots passed without a run of their own", "missed", d.Missed, "made_up_for", !d.Slot.IsZero())
	}
	if d.Skipped > 0 {
		t.log.Warn("skipped: the last run still runs", "slots", d.Skipped)
	}
	if d.Back > 0 {
		t.log.Warn("the clock was set back: nothing is due until it is there again, unless it is more than a day", "back", d.Back.String())
	}
}

// ask queues a run that somebody wants.
func (t *track) ask() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queued == "" {
		t.queued = runID(time.Now())
	}
	t.nudge()
	return t.queued
}

// asked takes the run that somebody wants.
func (t *track) asked() (order, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queued == "" {
		return order{}, false
	}
	o := order{id: t.queued, kind: t.key.kind, reason: Asked, cfg: t.cfg, job: t.job}
	t.queued = ""
	return o, true
}

// begin starts a run.
func (t *track) begin(o order, hard context.Context, work *sync.WaitGroup) {
	r := t.newRun(o)
	t.write()
	work.Go(func() {
		rec := r.runJob(hard)
		t.mu.Lock()
		t.ended = &rec
		t.mu.Unlock()
		t.nudge()
	})
}

func (t *track) newRun(o order) *run {
	if o.id == "" {
		o.id = runID(time.Now())
	}
	r := newRun(o, t.d.out, t.d.o.Tool, t.d.o.Host, t.d.log)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !o.slot.IsZero() {
		t.pending = nil
	}
	t.running = r
	t.state.begin(r.snapshot())
	return r
}

// collect takes note of a run that has ended.
func (t *track) collect(hard context.Context, work *sync.WaitGroup) {
	t.mu.Lock()
	rec, r := t.ended, t.running
	t.mu.Unlock()
	if rec == nil {
		return
	}
	if r.claim != nil {
		r.claim.end(context.WithoutCancel(hard), rec.Result == Succeeded)
	}
	failedBefore := t.finish(*rec)
	t.pass(hard, work, func() { r.tell(hard, *rec, failedBefore) })
	t.d.refresh(t.key.job)
}

// maxTelling is how many runs may wait to be told to others.
const maxTelling = 16

// pass tells others what became of a run, in order: not that a recovery comes
// before the failure.
func (t *track) pass(hard context.Context, work *sync.WaitGroup, tell func()) {
	if t.telling.Add(1) > maxTelling {
		t.telling.Add(-1)
		t.log.Error("nobody is told of this run: notifications take longer than there is time between runs")
		return
	}
	work.Go(func() {
		defer t.telling.Add(-1)
		select {
		case t.told <- struct{}{}:
			tell()
			<-t.told
		case <-hard.Done():
		}
	})
}

// finish notes the end of the run, and tells whether the one before had failed.
func (t *track) finish(rec RunRecord) (failedBefore bool) {
	t.mu.Lock()
	failedBefore = t.state.FailuresInRow > 0
	t.running, t.ended = nil, nil
	t.state.finish(rec)
	if !rec.Slot.IsZero() && rec.Cause != CauseStopped {
		t.state.Progress.Finish()
	}
	t.mu.Unlock()
	t.write()
	t.writeHistory()
	return failedBefore
}

// write keeps the state. What can't be kept is known for as long as the daemon
// lives: that is no reason not to make backups.
func (t *track) write() {
	t.mu.Lock()
	data, err := json.Marshal(t.state)
	t.mu.Unlock()
	t.put(stateKey{t.key, false}, data, err)
}

// writeHistory keeps the records of the last runs.
func (t *track) writeHistory() {
	t.mu.Lock()
	data, err := json.Marshal(jobHistory{stateFormat, t.key.job, t.key.kind, t.state.Runs})
	t.mu.Unlock()
	t.put(stateKey{t.key, true}, data, err)
}

func (t *track) put(key stateKey, data []byte, err error) {
	if err == nil {
		err = t.d.state.write(key, append(data, '\n'))
	}
	if err != nil {
		t.log.Error("the state can't be written: after a restart some runs may come again", "error", err.Error())
	}
}

// restore reads the state, or finds out what to go on from.
func (t *track) restore(ctx context.Context) {
	state, err := t.read()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			t.log.Error("the state can't be read: it is begun anew", "error", err.Error())
		}
		runs := state.Runs
		state = newJobState(t.key.kind, t.key.job, t.rebuild(ctx))
		state.Runs = runs
	}
	died := state.Running != nil
	state.restart(time.Now())
	t.mu.Lock()
	t.state = state
	if t.schedule() == nil {
		t.state.Progress.Finish()
	}
	t.mu.Unlock()
	t.write()
	if died {
		t.writeHistory()
	}
}

// read reads the state and the records of the last runs. Without those it goes
// on.
func (t *track) read() (jobState, error) {
	var state jobState
	data, err := t.d.state.read(stateKey{t.key, false})
	if err == nil {
		state, err = decodeState(data, t.key.kind, t.key.job)
	}
	runs, historyErr := t.d.state.read(stateKey{t.key, true})
	if historyErr == nil {
		state.Runs, historyErr = decodeHistory(runs, t.key.kind, t.key.job)
	}
	if historyErr != nil && !errors.Is(historyErr, fs.ErrNotExist) {
		t.log.Error("the records of the last runs can't be read: they are begun anew", "error", historyErr.Error())
	}
	return state, err
}

// rebuildLimit is how long to look for the newest backup.
const rebuildLimit = 30 * time.Second

// rebuild finds how far the job came from its newest backup, or from the newest
// of its cluster's if none is the job's own.
func (t *track) rebuild(ctx context.Context) Progress {
	now := time.Now()
	if t.key.kind == DrillRun {
		return NewProgress(now)
	}
	ctx, cancel := context.WithTimeout(ctx, rebuildLimit)
	defer cancel()
	var own, others time.Time
	for _, look := range t.lookAround(ctx) {
		for _, b := range look.backups {
			if b.labels[LabelJob] == t.key.job && b.Time.After(own) {
				own = b.Time
			} else if b.Time.After(others) {
				others = b.Time
			}
		}
	}
	last := own
	if own.IsZero() {
		last = others
	}
	if last.IsZero() || last.After(now) {
		t.log.Info("no state of earlier runs: the job counts from now on")
		return NewProgress(now)
	}
	t.log.Info("no state of earlier runs: the job counts from its newest backup on", "newest", last)
	return NewProgress(last)
}

// once does a run that is asked for, without the loop.
func (t *track) once(ctx context.Context) RunRecord {
	t.mu.Lock()
	t.state = newJobState(t.key.kind, t.key.job, NewProgress(time.Now()))
	if state, err := t.read(); err == nil {
		t.state = state
	}
	interrupted := t.state.Running // of a daemon that died; it finds that out itself
	t.mu.Unlock()
	t.ask()
	o, _ := t.asked()
	r := t.newRun(o)
	rec := r.runJob(ctx)
	failedBefore := t.state.FailuresInRow > 0
	t.running = nil
	t.state.finish(rec)
	t.state.Running = interrupted
	t.write()
	t.writeHistory()
	r.tell(context.WithoutCancel(ctx), rec, failedBefore)
	return rec
}

// status is how the runs do, the caller's own.
func (t *track) status() RunsStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.state.Progress
	s := RunsStatus{
		Schedule: timetable(t.schedule()), Next: t.next, Queued: t.queued, FailuresInRow: t.state.FailuresInRow,
		Skipped: p.Skipped, Missed: p.Missed, CaughtUp: p.CaughtUp, Elsewhere: t.state.Elsewhere,
		Successes: t.state.Successes, Failures: map[Cause]int64{},
	}
	for cause, n := range t.state.Failures {
		s.Failures[cause] = n
	}
	if t.running != nil {
		rec := t.running.snapshot()
		s.Running = &rec
	}
	if n := len(t.state.Runs); n > 0 {
		rec := t.state.Runs[n-1].clone()
		s.Last = &rec
	}
	if t.state.LastSuccess != nil {
		rec := t.state.LastSuccess.clone()
		s.LastSuccess = &rec
	}
	return s
}

// runs are the records, the newest first.
func (t *track) runs() []RunRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	var runs []RunRecord
	if t.running != nil {
		runs = append(runs, t.running.snapshot())
	}
	for _, rec := range slices.Backward(t.state.Runs) {
		runs = append(runs, rec.clone())
	}
	return runs
}
