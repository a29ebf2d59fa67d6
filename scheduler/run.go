package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// outside is what runs do beyond this package; tests put their own in its
// place.
type outside struct {
	open   func(context.Context, task) (depot, error)
	hook   func(ctx context.Context, h HookConfig, env []string) error
	notify func(context.Context, *NotifyConfig, Event, RunRecord) error
	ping   func(ctx context.Context, url Secret, timeout time.Duration) error
	elect  func(*ClusterConfig, LeadConfig, electorOptions) elector
}

func realOutside() outside {
	return outside{open: openDepot, hook: runHook, notify: notify, ping: ping, elect: newEtcdElector}
}

// order is a run that is to be done.
type order struct {
	id     string
	kind   RunKind
	reason Reason
	slot   time.Time // zero: somebody asked for it
	missed int
	cfg    *Config
	job    *JobConfig
	// taken says that the slot's run may have been begun before, so that its
	// backup may be there already.
	taken  bool
	refuse error // why it can't be done: nobody can tell who is to
	claim  claim // nil: there is no election
}

// run is a run under way.
type run struct {
	order
	out  outside
	tool string
	log  *slog.Logger

	mu     sync.Mutex
	record RunRecord
	failed []failure // of the run itself
}

type failure struct {
	stage Stage
	cause Cause
	text  string
}

func newRun(o order, out outside, tool, host string, log *slog.Logger) *run {
	r := &run{order: o, out: out, tool: tool}
	r.log = log.With("job", o.job.Name, "run", o.id, "kind", string(o.kind))
	r.record = RunRecord{
		ID: o.id, Job: o.job.Name, Cluster: o.job.Cluster, Kind: o.kind, Reason: o.reason,
		Slot: o.slot, Missed: o.missed, Host: host, Started: time.Now().Round(0),
		Repositories: make([]RepositoryOutcome, len(o.job.Repositories)),
	}
	for i, name := range o.job.Repositories {
		r.record.Repositories[i].Name = name
	}
	return r
}

// runID is a new name of a run.
func runID(now time.Time) string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	var random [6]byte
	for i := range random {
		random[i] = letters[rand.IntN(len(letters))]
	}
	return now.UTC().Format("20060102T150405Z-") + string(random[:])
}

// snapshot is the record as it is now, the caller's own.
func (r *run) snapshot() RunRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.record.clone()
}

func (rec RunRecord) clone() RunRecord {
	rec.Warnings = slices.Clone(rec.Warnings)
	rec.Repositories = slices.Clone(rec.Repositories)
	for i := range rec.Repositories {
		rec.Repositories[i].Drilled = slices.Clone(rec.Repositories[i].Drilled)
	}
	return rec
}

// runJob does all of a run: hooks, the work in each repository, hooks. Whatever
// goes wrong is in the record. This is the one way that anything is run,
// whoever asked for it.
func (r *run) runJob(ctx context.Context) RunRecord {
	log := r.log
	if !r.slot.IsZero() {
		log = log.With("slot", r.slot)
	}
	log.Info("run starts", "reason", string(r.reason))
	if r.refuse != nil {
		r.fail(StageLead, CauseEndpoint, r.refuse)
		return r.end()
	}
	err := r.protect(func() error {
		if r.kind == DrillRun {
			r.everywhere(ctx, r.drillIn)
		} else {
			r.backup(ctx)
		}
		return nil
	})
	if err != nil { // a panic: all else has a place of its own in the record
		r.fail(StageSave, CauseInternal, err)
	}
	return r.end()
}

func (r *run) backup(ctx context.Context) {
	limited, cancel := context.WithTimeoutCause(ctx, r.job.Timeout, errOverrun)
	defer cancel()
	var told sync.WaitGroup
	defer told.Wait()
	told.Go(func() { r.pingStart(limited) })
	if r.hooks(limited, StageBefore, r.job.Hooks.Before) {
		r.everywhere(limited, r.saveIn)
	}
	// What the first hooks have done is to be undone, even if time is up.
	r.hooks(context.WithoutCancel(ctx), StageAfter, r.job.Hooks.After)
}

// pingStart tells the dead man's switch that a run starts.
func (r *run) pingStart(ctx context.Context) {
	p := r.job.Ping
	if p == nil || p.StartURL.IsZero() {
		return
	}
	if err := r.protect(func() error { return r.out.ping(ctx, p.StartURL, p.Timeout) }); err != nil {
		r.warn(fmt.Sprintf("ping of start-url: %v", err))
	}
}

// hooks runs hooks, and tells whether the run may go on.
func (r *run) hooks(ctx context.Context, stage Stage, hooks []HookConfig) bool {
	env := hookEnv(stage, r.sumUp())
	ok := true
	for _, h := range hooks {
		ok = r.hook(ctx, stage, h, env) && ok
		if !ok && stage == StageBefore {
			return false
		}
	}
	return ok
}

func (r *run) hook(ctx context.Context, stage Stage, h HookConfig, env []string) bool {
	r.enter(stage)
	err := r.protect(func() error { return r.out.hook(ctx, h, env) })
	switch {
	case err == nil:
		return true
	case h.OnFailure == Continue && ctx.Err() == nil:
		r.warn(err.Error())
		return true
	}
	r.fail(stage, causeOf(ctx, stage, err), err)
	return false
}

// everywhere does the work in all repositories at once, so that one that hangs
// stops none of the others.
func (r *run) everywhere(ctx context.Context, work func(context.Context, int)) {
	var group sync.WaitGroup
	for i := range r.job.Repositories {
		group.Go(func() {
			work(ctx, i)
			r.mu.Lock()
			defer r.mu.Unlock()
			if out := &r.record.Repositories[i]; out.Error == "" {
				out.Result = Succeeded
			} else {
				out.Result = Failed
			}
		})
	}
	group.Wait()
}

// saveIn makes a backup in one of the repositories, verifies it, and removes
// what need not be kept any more.
func (r *run) saveIn(ctx context.Context, i int) {
	t := r.task(i)
	var d depot
	var b BackupRef
	_ = r.step(ctx, i, StageOpen, func() (err error) {
		d, err = r.out.open(ctx, t)
		return err
	}) && r.step(ctx, i, StageSave, func() (err error) {
		b, err = r.save(ctx, d, i)
		return err
	}) && r.step(ctx, i, StageVerify, func() error {
		return r.verify(ctx, d, i, b.ID)
	}) && r.step(ctx, i, StagePrune, func() error {
		return r.prune(ctx, d, i)
	})
}

func (r *run) task(i int) task {
	name := r.job.Repositories[i]
	return task{
		cluster: r.cfg.Clusters[r.job.Cluster], job: r.job, repository: r.cfg.Repositories[name],
		scratch: r.cfg.ScratchDir, tool: r.tool, log: r.log.With("repository", name),
	}
}

// step does a part of the work in a repository, and tells whether it went well.
func (r *run) step(ctx context.Context, i int, stage Stage, do func() error) bool {
	r.enter(stage)
	err := r.protect(do)
	if err == nil {
		return true
	}
	cause := causeOf(ctx, stage, err)
	text := err.Error()
	if cause == CauseTimeout {
		text = fmt.Sprintf("took longer than the %v that it may: %s", r.limit(), strings.TrimPrefix(text, string(stage)+": "))
	}
	name := r.job.Repositories[i]
	r.log.Error("run failed in a repository", "repository", name, "stage", string(stage), "cause", string(cause), "error", text)
	r.outcome(i, func(out *RepositoryOutcome) { out.Stage, out.Cause, out.Error = stage, cause, shorten(text) })
	return false
}

func (r *run) limit() time.Duration {
	if r.kind == DrillRun {
		return r.job.Drill.Timeout
	}
	return r.job.Timeout
}

// outcome changes what became of a repository.
func (r *run) outcome(i int, change func(*RepositoryOutcome)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.record.Repositories[i])
}

// protect makes a panic an error.
func (r *run) protect(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = &panicError{fmt.Sprintf("panic: %v", p)}
		}
	}()
	return do()
}

// save makes the backup, unless that was done in an earlier run for the slot.
func (r *run) save(ctx context.Context, d depot, i int) (BackupRef, error) {
	labels := map[string]string{LabelJob: r.job.Name}
	if !r.slot.IsZero() {
		labels[LabelSlot] = r.slot.UTC().Format(time.RFC3339)
	}
	b, found, err := r.savedBefore(ctx, d, labels)
	began := time.Now()
	if err == nil && !found {
		warn := func(text string) { r.warn(r.job.Repositories[i] + ": " + text) }
		b, err = d.save(ctx, labels, warn)
	}
	if err != nil {
		return b, err
	}
	r.outcome(i, func(out *RepositoryOutcome) {
		out.BackupID, out.Revision, out.PlainBytes, out.StoredBytes = b.ID, b.Revision, b.PlainBytes, b.StoredBytes
		if !found {
			out.SaveSeconds = time.Since(began).Seconds()
		}
	})
	return b, nil
}

// savedBefore finds the backup of an earlier run for the slot.
func (r *run) savedBefore(ctx context.Context, d depot, labels map[string]string) (BackupRef, bool, error) {
	if !r.taken {
		return BackupRef{}, false, nil
	}
	all, err := d.list(ctx)
	if err != nil {
		return BackupRef{}, false, err
	}
	for _, b := range slices.Backward(all) {
		if b.labels[LabelJob] == labels[LabelJob] && b.labels[LabelSlot] == labels[LabelSlot] {
			r.log.Info("an earlier run has made the backup", "backup", b.ID)
			return b.BackupRef, true, nil
		}
	}
	return BackupRef{}, false, nil
}

func (r *run) verify(ctx context.Context, d depot, i int, id string) error {
	level := r.job.Verify.Level
	if level == LevelNone {
		return nil
	}
	began := time.Now()
	err := d.verify(ctx, id, level)
	r.outcome(i, func(out *RepositoryOutcome) {
		out.VerifySeconds = time.Since(began).Seconds()
		if err == nil {
			out.Verified = level
		}
	})
	return err
}

func (r *run) prune(ctx context.Context, d depot, i int) error {
	keep := r.cfg.Retention(r.job, r.job.Repositories[i])
	if keep == nil {
		return nil
	}
	warn := func(text string) { r.warn(r.job.Repositories[i] + ": " + text) }
	removed, freed, err := d.prune(ctx, keep, warn)
	r.outcome(i, func(out *RepositoryOutcome) { out.Pruned, out.PrunedBytes = removed, freed })
	return err
}

// drillIn verifies backups of one of the repositories.
func (r *run) drillIn(ctx context.Context, i int) {
	t := r.task(i)
	var d depot
	if !r.step(ctx, i, StageOpen, func() (err error) {
		d, err = r.out.open(ctx, t)
		return err
	}) {
		return
	}
	for _, pick := range r.job.Drill.Pick {
		limited, cancel := context.WithTimeoutCause(ctx, r.job.Drill.Timeout, errOverrun)
		ok := r.step(limited, i, StageVerify, func() error { return r.drill(limited, d, i, pick) })
		cancel()
		if !ok {
			return
		}
	}
}

// maxGone is how often a drill takes another backup for one that was pruned
// meanwhile.
const maxGone = 3

func (r *run) drill(ctx context.Context, d depot, i int, pick Pick) error {
	for try := 1; ; try++ {
		all, err := d.list(ctx)
		if err != nil {
			return err
		}
		b, ok, err := choose(all, pick, len(r.job.Drill.Pick) == 1)
		if err != nil || !ok {
			return err
		}
		began := time.Now()
		err = d.verify(ctx, b.ID, r.job.Drill.Level)
		if errors.Is(err, repository.ErrNotExist) && try < maxGone {
			continue
		}
		r.drilled(i, b, pick, time.Since(began), err)
		return err
	}
}

var errNothing = errors.New("there is no backup to verify")

// choose picks a backup; none if there is but one and the other pick has it.
func choose(all []keptBackup, pick Pick, only bool) (keptBackup, bool, error) {
	switch n := len(all); {
	case n == 0:
		return keptBackup{}, false, errNothing
	case pick == Newest, n == 1 && only:
		return all[n-1], true, nil
	case n == 1:
		return keptBackup{}, false, nil
	default:
		return all[rand.IntN(n-1)], true, nil
	}
}

func (r *run) drilled(i int, b keptBackup, pick Pick, took time.Duration, err error) {
	drill := Drill{BackupID: b.ID, Pick: pick, Level: r.job.Drill.Level, Passed: err == nil, Seconds: took.Seconds()}
	if err != nil {
		drill.Error = shorten(err.Error())
	}
	r.outcome(i, func(out *RepositoryOutcome) {
		out.BackupID, out.Revision, out.PlainBytes, out.StoredBytes = b.ID, b.Revision, b.PlainBytes, b.StoredBytes
		out.VerifySeconds += took.Seconds()
		if err == nil {
			out.Verified = r.job.Drill.Level
		}
		out.Drilled = append(out.Drilled, drill)
	})
	r.log.Info("drill", "repository", r.job.Repositories[i], "backup", b.ID, "pick", string(pick), "level", string(drill.Level), "passed", drill.Passed)
}

// enter notes what the run is doing.
func (r *run) enter(stage Stage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.Stage = stage
}

// maxWarnings is how many warnings a record keeps.
const maxWarnings = 20

func (r *run) warn(text string) {
	r.log.Warn(text)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.record.Warnings) < maxWarnings {
		r.record.Warnings = append(r.record.Warnings, shorten(text))
	}
}

// fail notes a failure of the run itself.
func (r *run) fail(stage Stage, cause Cause, err error) {
	r.log.Error("run failed", "stage", string(stage), "cause", string(cause), "error", err.Error())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, failure{stage, cause, err.Error()})
}

// sumUp is the record with what all failures come to so far.
func (r *run) sumUp() RunRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.failed)
	for _, out := range r.record.Repositories {
		if out.Error != "" {
			all = append(all, failure{out.Stage, out.Cause, fmt.Sprintf("repository %s: %s", out.Name, atStage(out.Stage, out.Error))})
		}
	}
	rec := r.record.clone()
	rec.Result, rec.Stage, rec.Cause, rec.Error = Succeeded, "", "", ""
	if len(all) == 0 {
		return rec
	}
	// Hooks after it come last, wherever they stand in the list.
	slices.SortStableFunc(all, func(a, b failure) int { return boolInt(a.stage == StageAfter) - boolInt(b.stage == StageAfter) })
	var texts []string
	for _, f := range all {
		texts = append(texts, f.text)
	}
	rec.Result, rec.Stage, rec.Cause = Failed, all[0].stage, all[0].cause
	rec.Error = shorten(strings.Join(texts, "; "))
	return rec
}

// maxText is how much of a text a record keeps, in bytes. A store that fails
// may fail thousands of times in one prune; no hook starts with as much in its
// environment.
const maxText = 8 << 10

func shorten(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + " …"
}

// atStage is the text of an error with the stage before it, unless the text
// begins with what was done there: "save: …", "open store /backup: …".
func atStage(stage Stage, text string) string {
	first, _, _ := strings.Cut(text, ":")
	if slices.Contains(strings.Fields(first), string(stage)) {
		return text
	}
	return string(stage) + ": " + text
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// end closes the record.
func (r *run) end() RunRecord {
	rec := r.sumUp()
	rec.Finished = time.Now().Round(0)
	if !rec.safe() && rec.Result == Succeeded && r.kind == BackupRun {
		r.log.Warn("run ended well, but its backups were not verified")
	}
	r.mu.Lock()
	r.record = rec
	r.mu.Unlock()
	log := r.log
	if rec.Cause != "" {
		log = log.With("cause", string(rec.Cause))
	}
	log.Info("run ended", "result", string(rec.Result), "seconds", rec.Seconds())
	return rec.clone()
}

// safe tells whether a backup was committed and verified in all repositories.
func (rec RunRecord) safe() bool {
	for _, out := range rec.Repositories {
		if out.BackupID == "" || out.Verified == "" {
			return false
		}
	}
	return len(rec.Repositories) > 0
}

// tell calls the dead man's switch, and notifies whom the job names.
func (r *run) tell(ctx context.Context, rec RunRecord, failedBefore bool) {
	if r.kind == BackupRun && r.job.Ping != nil {
		r.pingEnd(ctx, rec)
	}
	events := eventsOf(rec, failedBefore)
	for _, name := range r.notified() {
		n := r.cfg.Notify[name]
		for _, event := range events {
			if slices.Contains(n.On, event) {
				if err := r.protect(func() error { return r.out.notify(ctx, n, event, rec) }); err != nil {
					r.log.Error("notification failed", "notify", name, "event", string(event), "error", err.Error())
				}
				break // one is enough
			}
		}
	}
}

func (r *run) pingEnd(ctx context.Context, rec RunRecord) {
	call := func(name string, url Secret) {
		if url.IsZero() {
			return
		}
		if err := r.protect(func() error { return r.out.ping(ctx, url, r.job.Ping.Timeout) }); err != nil {
			r.log.Error("ping failed", "which", name, "error", err.Error())
		}
	}
	if rec.safe() {
		call("url", r.job.Ping.URL)
	}
	if rec.Result == Failed && rec.Cause != CauseStopped {
		call("fail-url", r.job.Ping.FailURL)
	}
}

// eventsOf are the events of a run, of which somebody gets the first that he
// wants. That the daemon was stopped is none.
func eventsOf(rec RunRecord, failedBefore bool) []Event {
	switch {
	case rec.Result == Failed && rec.Cause == CauseStopped:
		return nil
	case rec.Result == Failed:
		return []Event{Failure}
	case failedBefore:
		return []Event{Recovery, Success}
	}
	return []Event{Success}
}

// notified are the names of whom the job tells.
func (r *run) notified() []string {
	if r.job.Notify != nil {
		return r.job.Notify
	}
	var names []string
	for name := range sorted(r.cfg.Notify) {
		names = append(names, name)
	}
	return names
}
