package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// abortWait is how long aborted runs may take to clean up after themselves when
// the daemon is stopped, beyond the time that the configuration gives.
const abortWait = 5 * time.Second

// Options of a [Daemon]; the zero value works.
type Options struct {
	Log  *slog.Logger // nil: nothing is logged
	Tool string       // name and version, for what is written
	Host string       // for records and elections; "": the machine's name
}

// Daemon runs the jobs of a configuration when they are due. It is a
// [Controller].
type Daemon struct {
	o       Options
	log     *slog.Logger
	out     outside
	started time.Time

	mu       sync.Mutex
	cfg      *Config
	loaded   time.Time
	problem  string // of a newer configuration
	tracks   map[trackKey]*track
	state    stateStore // nil: it does not run yet
	stopping bool
	start    func(*track) // starts a track that is new
}

// trackKey is a job, or its drill.
type trackKey struct {
	kind RunKind
	job  string
}

// drillSuffix after a job's name is its drill.
const drillSuffix = "/drill"

func parseTrackKey(name string) trackKey {
	if job, ok := strings.CutSuffix(name, drillSuffix); ok {
		return trackKey{DrillRun, job}
	}
	return trackKey{BackupRun, name}
}

// New makes a daemon. Nothing happens before [Daemon.Run] or [Daemon.Once].
func New(cfg *Config, o Options) *Daemon {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Host == "" {
		o.Host, _ = os.Hostname()
	}
	now := time.Now().Round(0)
	return &Daemon{
		o: o, log: o.Log, out: realOutside(), cfg: cfg, started: now, loaded: now, tracks: map[trackKey]*track{},
	}
}

// who is the daemon for others that meet it.
func (d *Daemon) who() string { return fmt.Sprintf("%s, process %d", d.o.Host, os.Getpid()) }

// Run runs the jobs until ctx ends. Then no run starts any more; those under way
// may take the configuration's stop-timeout to end, and are aborted after it.
// What was aborted is begun again at the next start. It fails with a
// [*LockedError] if another daemon uses the state dir.
func (d *Daemon) Run(ctx context.Context) error {
	state, err := openStateDir(d.config().StateDir, d.who())
	if err != nil {
		return err
	}
	return errors.Join(d.run(ctx, state), state.close())
}

func (d *Daemon) config() *Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cfg
}

func (d *Daemon) run(ctx context.Context, state stateStore) error {
	// Runs outlive ctx by the stop-timeout.
	hard, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abort(nil)
	var group sync.WaitGroup
	d.mu.Lock()
	d.state = state
	d.start = func(t *track) { group.Go(func() { t.loop(ctx, hard) }) }
	for key := range tracksOf(d.cfg) {
		d.add(key)
	}
	d.mu.Unlock()
	d.log.Info("daemon started", "jobs", len(d.config().Jobs), "state", d.config().StateDir, "tool", d.o.Tool)
	<-ctx.Done()
	d.mu.Lock()
	d.stopping = true
	d.start = nil
	limit := d.cfg.StopTimeout
	d.mu.Unlock()
	return d.stop(&group, abort, limit)
}

// stop waits for what is under way.
func (d *Daemon) stop(group *sync.WaitGroup, abort context.CancelCauseFunc, limit time.Duration) error {
	d.log.Info("daemon stops", "runs", len(d.underWay()), "limit", limit.String())
	ended := make(chan struct{})
	go func() {
		group.Wait()
		close(ended)
	}()
	if endsWithin(ended, limit) {
		return nil
	}
	d.log.Warn("aborting runs: they took longer than stop-timeout", "runs", d.underWay())
	abort(errStopped)
	if endsWithin(ended, abortWait) {
		return nil
	}
	return fmt.Errorf("stopped with runs under way that do not end: %s", strings.Join(d.underWay(), ", "))
}

// endsWithin tells whether a channel was closed within a time.
func endsWithin(done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// underWay are the ids of the runs under way.
func (d *Daemon) underWay() []string {
	var ids []string
	for _, t := range d.all() {
		if rec := t.status().Running; rec != nil {
			ids = append(ids, rec.Job+" "+rec.ID)
		}
	}
	return ids
}

// all are the tracks, by job.
func (d *Daemon) all() []*track {
	d.mu.Lock()
	defer d.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(d.tracks), func(a, b trackKey) int {
		return strings.Compare(a.job+"\n"+string(a.kind), b.job+"\n"+string(b.kind))
	})
	tracks := make([]*track, len(keys))
	for i, key := range keys {
		tracks[i] = d.tracks[key]
	}
	return tracks
}

// tracksOf are what there is to run in a configuration.
func tracksOf(cfg *Config) map[trackKey]bool {
	keys := map[trackKey]bool{}
	for name, j := range cfg.Jobs {
		keys[trackKey{BackupRun, name}] = true
		if j.Drill != nil {
			keys[trackKey{DrillRun, name}] = true
		}
	}
	return keys
}

// add makes and starts a track. It is called with the lock held.
func (d *Daemon) add(key trackKey) {
	t := newTrack(d, key)
	d.tracks[key] = t
	d.start(t)
}

// forget lets go of a track whose loop has ended, unless it is wanted again.
func (d *Daemon) forget(t *track) (ended bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, wanted := tracksOf(d.cfg)[t.key]; wanted {
		return false
	}
	delete(d.tracks, t.key)
	return true
}

// Status implements [Controller].
func (d *Daemon) Status() Status {
	d.mu.Lock()
	s := Status{
		Tool: d.o.Tool, Host: d.o.Host, Started: d.started,
		Config: d.cfg.file, ConfigLoaded: d.loaded, ConfigError: d.problem, Stopping: d.stopping,
		Jobs: []JobStatus{},
	}
	cfg := d.cfg
	d.mu.Unlock()
	for name, j := range sorted(cfg.Jobs) {
		s.Jobs = append(s.Jobs, d.jobStatus(name, j))
	}
	return s
}

func (d *Daemon) jobStatus(name string, j *JobConfig) JobStatus {
	s := JobStatus{
		Name: name, Cluster: j.Cluster, Timezone: j.Timezone.String(),
		RunsStatus: RunsStatus{Schedule: timetable(j.Schedule), Failures: map[Cause]int64{}}, Repositories: []RepositoryStatus{},
	}
	if t := d.track(trackKey{BackupRun, name}); t != nil {
		s.RunsStatus = t.status()
		s.Leader, s.LeaderError = t.leadership()
		s.Repositories = t.repositories()
	}
	if t := d.track(trackKey{DrillRun, name}); t != nil && j.Drill != nil {
		drill := t.status()
		s.Drill = &drill
	}
	return s
}

// timetable is a schedule as it was written.
func timetable(s *Schedule) string {
	if s == nil {
		return OnDemand
	}
	return s.String()
}

func (d *Daemon) track(key trackKey) *track {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tracks[key]
}

// Runs implements [Controller].
func (d *Daemon) Runs(job string) []RunRecord {
	runs := []RunRecord{}
	for _, t := range d.all() {
		if job == "" || t.key.job == job {
			runs = append(runs, t.runs()...)
		}
	}
	slices.SortStableFunc(runs, func(a, b RunRecord) int { return b.Started.Compare(a.Started) })
	return runs
}

// Trigger implements [Controller].
func (d *Daemon) Trigger(job string) (string, error) {
	key := parseTrackKey(job)
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.tracks[key]
	_, wanted := tracksOf(d.cfg)[key]
	switch {
	case d.stopping:
		return "", ErrStopping
	case !ok || !wanted:
		return "", fmt.Errorf("%w: %s", ErrNoJob, job)
	}
	return t.ask(), nil
}

// Once runs a job, or with "NAME/drill" its drill, in this process now, and
// waits for it; it is aborted when ctx ends. The record says how it went. It is
// kept in the state dir unless a daemon is using that. The error is about runs
// that could not be begun at all, such as ErrNoJob.
func (d *Daemon) Once(ctx context.Context, job string) (RunRecord, error) {
	key := parseTrackKey(job)
	if !tracksOf(d.cfg)[key] {
		return RunRecord{}, fmt.Errorf("%w: %s", ErrNoJob, job)
	}
	state, err := d.stateOfOnce()
	if err != nil {
		return RunRecord{}, err
	}
	d.state = state
	rec := newTrack(d, key).once(ctx)
	return rec, state.close()
}

// stateOfOnce is the state dir, or nothing if a daemon has it.
func (d *Daemon) stateOfOnce() (stateStore, error) {
	state, err := openStateDir(d.cfg.StateDir, d.who())
	var locked *LockedError
	switch {
	case errors.As(err, &locked):
		d.log.Info("a daemon uses the state dir: its record of runs will not have this one", "dir", d.cfg.StateDir, "daemon", locked.Who)
		return noState{}, nil
	case err != nil:
		d.log.Warn("this run will not be on record", "error", err.Error())
		return noState{}, nil
	}
	return state, nil
}
