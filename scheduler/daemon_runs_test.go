package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-lifeboat/lifeboat/backup/live"
	"github.com/etcd-lifeboat/lifeboat/internal/prove"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

const nightly = head + `
jobs:
  nightly:
    cluster: c
    repositories: [a, b]
    schedule: "0 2 * * *"
    timeout: 1h
    hooks: {before: [{command: [before]}], after: [{command: [after]}]}
    ping: {url: http://ok, start-url: http://start, fail-url: http://fail}
notify:
  n: {on: [failure, recovery], command: {run: [n]}}
`

// begin runs a daemon until the test ends.
func begin(t *testing.T, d *Daemon, state stateStore) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx, state) }()
	synctest.Wait()
	return func() error {
		cancel()
		return <-done
	}
}

func (d *fakeDepot) set(change func(*fakeDepot)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

// Each way that a run may fail has its word, in the record and to those who are
// told, and the next run is fine.
func TestDaemonFailures(t *testing.T) {
	tests := []struct {
		name   string
		break_ func(*fakeDepot)
		hooks  func(context.Context, HookConfig) error
		stage  Stage
		cause  Cause
		in     string // the repository that has it; "": none
	}{
		{name: "endpoint", break_: func(d *fakeDepot) { d.saveErr = fmt.Errorf("save: %w", live.ErrUnreachable) }, stage: StageSave, cause: CauseEndpoint, in: "a"},
		{name: "store", break_: func(d *fakeDepot) { d.openErr = &storeError{storage.ErrUnreachable} }, stage: StageOpen, cause: CauseStore, in: "a"},
		{name: "store breaks off", break_: func(d *fakeDepot) { d.saveErr = &storeError{errors.New("reset")} }, stage: StageSave, cause: CauseStore, in: "a"},
		{name: "disk", break_: func(d *fakeDepot) { d.saveErr = &storeError{syscall.ENOSPC} }, stage: StageSave, cause: CauseDisk, in: "a"},
		{name: "certificate", break_: func(d *fakeDepot) { d.saveErr = &configError{errors.New("no such file")} }, stage: StageSave, cause: CauseConfig, in: "a"},
		{name: "damage", break_: func(d *fakeDepot) { d.proof = &proofError{prove.Damaged, "page 3"} }, stage: StageVerify, cause: CauseDamage, in: "a"},
		{name: "unproven", break_: func(d *fakeDepot) { d.proof = &proofError{prove.Unproven, "no boot"} }, stage: StageVerify, cause: CauseVerify, in: "a"},
		{name: "key", break_: func(d *fakeDepot) { d.proof = repository.ErrWrongKey }, stage: StageVerify, cause: CauseKey, in: "a"},
		{name: "panic", break_: func(d *fakeDepot) { d.panics = true }, stage: StageSave, cause: CauseInternal, in: "a"},
		{name: "hook", hooks: func(context.Context, HookConfig) error { return errors.New("exit 1") }, stage: StageBefore, cause: CauseHook},
		{name: "hook hangs", hooks: func(ctx context.Context, h HookConfig) error {
			if h.Command[0] == "after" {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}, stage: StageBefore, cause: CauseTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.hooks = tt.hooks
				if tt.break_ != nil {
					w.depot("a").set(tt.break_)
				}
				d := w.daemon(configOf(t, nightly))
				stop := begin(t, d, &memoryState{})
				time.Sleep(4 * time.Hour)
				synctest.Wait()
				job := d.Status().Jobs[0]
				if job.Last == nil || job.Last.Result != Failed || job.Last.Stage != tt.stage || job.Last.Cause != tt.cause || job.FailuresInRow != 1 {
					t.Fatalf("got %+v", job.Last)
				}
				for _, out := range job.Last.Repositories {
					if failed := out.Result == Failed; failed != (out.Name == tt.in) {
						t.Errorf("repository %s: %+v", out.Name, out)
					}
				}
				events := w.took()
				if !slices.Contains(events, "n: failure of nightly: "+string(tt.cause)) || !slices.Contains(events, "ping http://fail") || slices.Contains(events, "ping http://ok") {
					t.Errorf("told: %q", events)
				}
				w.hooks = nil
				w.depot("a").set(func(d *fakeDepot) { d.saveErr, d.openErr, d.proof, d.panics = nil, nil, nil, false })
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				job = d.Status().Jobs[0]
				if job.Last.Result != Succeeded || job.FailuresInRow != 0 || job.Successes != 1 || job.Failures[tt.cause] != 1 {
					t.Errorf("the next run: %+v", job.Last)
				}
				events = w.took()
				if !slices.Contains(events, "n: recovery of nightly: ") || !slices.Contains(events, "ping http://ok") {
					t.Errorf("told of the next run: %q", events)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Hooks are told of the run what there is to tell: before it whose it is, after
// it what became of it in each repository, and in one alone as well.
func TestDaemonTellsHooks(t *testing.T) {
	tests := map[string]struct {
		from, to string
		break_   func(*fakeDepot) // a
		after    string
	}{
		"two": {after: "LIFEBOAT_REPOSITORY=a b LIFEBOAT_RESULT=success LIFEBOAT_STAGE= LIFEBOAT_CAUSE= LIFEBOAT_ERROR= LIFEBOAT_BACKUP_ID=b1 b1 " +
			"LIFEBOAT_VERIFIED=digest digest LIFEBOAT_PLAIN_BYTES=9000 9000 LIFEBOAT_STORED_BYTES=800 800 LIFEBOAT_REVISION=1 1"},
		"one of two": {break_: func(d *fakeDepot) { d.saveErr = &storeError{errors.New("reset")} },
			after: "LIFEBOAT_REPOSITORY=a b LIFEBOAT_RESULT=failure LIFEBOAT_STAGE=save LIFEBOAT_CAUSE=store LIFEBOAT_ERROR=repository a: save: reset " +
				"LIFEBOAT_BACKUP_ID=- b1 LIFEBOAT_VERIFIED=- digest LIFEBOAT_PLAIN_BYTES=- 9000 LIFEBOAT_STORED_BYTES=- 800 LIFEBOAT_REVISION=- 1"},
		"one": {from: "[a, b]", to: "a", break_: func(d *fakeDepot) { d.proof = &proofError{prove.Damaged, "page 3"} },
			after: "LIFEBOAT_REPOSITORY=a LIFEBOAT_RESULT=failure LIFEBOAT_STAGE=verify LIFEBOAT_CAUSE=damage LIFEBOAT_ERROR=repository a: verify: page 3 " +
				"LIFEBOAT_BACKUP_ID=b1 LIFEBOAT_VERIFIED=- LIFEBOAT_PLAIN_BYTES=9000 LIFEBOAT_STORED_BYTES=800 LIFEBOAT_REVISION=1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				if tt.break_ != nil {
					w.depot("a").set(tt.break_)
				}
				d := w.daemon(configOf(t, strings.Replace(nightly, tt.from, tt.to, 1)))
				stop := begin(t, d, &memoryState{})
				time.Sleep(3 * time.Hour)
				stop()
				whose := "LIFEBOAT_JOB=nightly LIFEBOAT_CLUSTER=c LIFEBOAT_RUN=" + d.Status().Jobs[0].Last.ID + " "
				repositories, _, _ := strings.Cut(tt.after, " LIFEBOAT_RESULT")
				events := w.took()
				for _, want := range []string{"hook before " + whose + repositories, "hook after " + whose + tt.after} {
					if !slices.Contains(events, want) {
						t.Errorf("want %q of\n%s", want, strings.Join(events, "\n"))
					}
				}
			})
		})
	}
}

// A run that hangs in one repository is ended by its timeout; the other
// repository has its backup.
func TestDaemonTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		hang := make(chan struct{})
		d := w.daemon(configOf(t, nightly))
		d.out.open = func(ctx context.Context, t task) (depot, error) {
			if t.repository.Name == "a" && t.job.Name == "nightly" && time.Now().Hour() == 2 {
				select {
				case <-hang:
				case <-ctx.Done():
					return nil, fmt.Errorf("open: %w", ctx.Err())
				}
			}
			return w.open(ctx, t)
		}
		stop := begin(t, d, &memoryState{})
		time.Sleep(2*time.Hour + 30*time.Minute)
		synctest.Wait()
		running := d.Status().Jobs[0].Running
		if running == nil || running.Repositories[1].Result != Succeeded || running.Repositories[0].Result != "" {
			t.Fatalf("under way: %+v", running)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		last := d.Status().Jobs[0].Last
		if last == nil || last.Cause != CauseTimeout || last.Seconds() != 3600 || last.Repositories[1].Cause != "" {
			t.Errorf("got %+v", last)
		}
		if events := w.took(); !slices.ContainsFunc(events, func(e string) bool {
			return strings.HasPrefix(e, "hook after") && strings.Contains(e, "LIFEBOAT_RESULT=failure")
		}) {
			t.Errorf("the hook after it did not run: %q", events)
		}
		stop()
	})
}

func TestDaemonTrigger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.takes["nightly"] = time.Minute
		d := w.daemon(configOf(t, nightly))
		if _, err := d.Trigger("nightly"); !errors.Is(err, ErrNoJob) {
			t.Errorf("before the start: %v", err)
		}
		stop := begin(t, d, &memoryState{})
		first, err := d.Trigger("nightly")
		synctest.Wait()
		second, _ := d.Trigger("nightly")
		third, _ := d.Trigger("nightly")
		if err != nil || first == second || second != third {
			t.Errorf("ids %q, %q, %q, error %v", first, second, third, err)
		}
		if s := d.Status().Jobs[0]; s.Running == nil || s.Running.ID != first || s.Queued != second {
			t.Errorf("under way %+v, queued %q", s.Running, s.Queued)
		}
		time.Sleep(5 * time.Minute)
		runs := d.Runs("nightly")
		if len(runs) != 2 || runs[0].ID != second || runs[1].ID != first || runs[0].Reason != Asked || runs[0].Result != Succeeded {
			t.Errorf("runs: %+v", runs)
		}
		if _, err := d.Trigger("nightly/drill"); !errors.Is(err, ErrNoJob) {
			t.Errorf("a drill that is not there: %v", err)
		}
		stop()
		if _, err := d.Trigger("nightly"); !errors.Is(err, ErrStopping) {
			t.Errorf("after the stop: %v", err)
		}
	})
}

// A stop waits for runs, then aborts them; what was aborted comes again, once.
func TestDaemonStop(t *testing.T) {
	for name, takes := range map[string]time.Duration{"in time": 5 * time.Second, "too long": time.Hour / 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, state := newWorld(), &memoryState{}
				w.takes["nightly"] = takes
				d := w.daemon(configOf(t, nightly))
				stop := begin(t, d, state)
				time.Sleep(2*time.Hour + time.Second)
				began := time.Now()
				if err := stop(); err != nil {
					t.Error(err)
				}
				aborted := takes > 10*time.Second
				if took := time.Since(began); took > 15*time.Second || !aborted && took > takes {
					t.Errorf("the stop took %v", took)
				}
				if last := d.Status().Jobs[0].Last; last == nil || (last.Result == Failed) != aborted || aborted && last.Cause != CauseStopped {
					t.Errorf("ended as %+v", last)
				}
				if events := w.took(); slices.ContainsFunc(events, func(e string) bool { return strings.HasPrefix(e, "n:") }) {
					t.Errorf("told: %q", events)
				}
				d = w.daemon(configOf(t, nightly))
				stop = begin(t, d, state)
				time.Sleep(time.Hour)
				runs := d.Runs("")
				if want := map[bool]int{false: 1, true: 2}[aborted]; len(runs) != want || runs[0].Result != Succeeded || aborted && runs[0].Reason != Again {
					t.Errorf("after the restart: %+v", runs)
				}
				stop()
			})
		})
	}
}

// A run that was killed after the backup was committed does not make it twice.
func TestDaemonKilledAfterCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, state := newWorld(), &memoryState{}
		w.takes["nightly"] = time.Minute
		d := w.daemon(configOf(t, nightly))
		stop := begin(t, d, state)
		time.Sleep(2*time.Hour + time.Second)
		killed := state.copy()
		time.Sleep(10 * time.Minute)
		stop()
		before := w.depot("a").n
		d = w.daemon(configOf(t, nightly))
		stop = begin(t, d, killed)
		time.Sleep(time.Hour)
		runs := d.Runs("nightly")
		if len(runs) != 2 || runs[0].Reason != Again || runs[0].Result != Succeeded || runs[1].Cause != CauseStopped {
			t.Errorf("runs: %+v", runs)
		}
		if got := w.depot("a").n; got != before || runs[0].Repositories[0].BackupID == "" {
			t.Errorf("%d backups, want %d", got, before)
		}
		stop()
	})
}

func TestDaemonReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.takes["nightly"] = 10 * time.Minute
		d := w.daemon(configOf(t, nightly))
		stop := begin(t, d, &memoryState{})
		time.Sleep(2*time.Hour + time.Minute)
		other := strings.ReplaceAll(nightly, "nightly:", "hourly:")
		other = strings.ReplaceAll(other, "0 2 * * *", "0 * * * *")
		if err := d.Reload(configOf(t, other)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := w.depot("a").n; got != 2 { // the nightly run came to its end
			t.Errorf("%d backups", got)
		}
		status := d.Status()
		if len(status.Jobs) != 1 || status.Jobs[0].Name != "hourly" || status.Jobs[0].Successes != 1 || len(d.tracks) != 1 {
			t.Errorf("jobs %+v", status.Jobs)
		}
		broken := configOf(t, other)
		broken.Jobs["hourly"].Timeout = 0
		if err := d.Reload(broken); err == nil || d.Status().ConfigError == "" {
			t.Error("a wrong configuration was taken")
		}
		if err := d.Reload(configOf(t, nightly)); err != nil || d.Status().ConfigError != "" {
			t.Errorf("the right one: %v", err)
		}
		time.Sleep(24 * time.Hour)
		if job := d.Status().Jobs[0]; job.Name != "nightly" || job.Successes != 2 {
			t.Errorf("after it came back: %+v", job)
		}
		stop()
	})
}

// State that is damaged is begun anew from the newest backup.
func TestDaemonDamagedState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, state := newWorld(), &memoryState{}
		stop := begin(t, w.daemon(configOf(t, nightly)), state)
		time.Sleep(26*time.Hour + time.Minute)
		stop()
		if n := w.depot("a").n; n != 2 {
			t.Fatalf("%d backups", n)
		}
		state.write(stateKey{trackKey{BackupRun, "nightly"}, false}, []byte(`{"format":1,`))
		time.Sleep(time.Hour)
		stop = begin(t, w.daemon(configOf(t, nightly)), state)
		time.Sleep(time.Hour)
		stop()
		if n := w.depot("a").n; n != 2 {
			t.Errorf("nothing was missed, but there are %d backups", n)
		}
		state.write(stateKey{trackKey{BackupRun, "nightly"}, false}, nil)
		time.Sleep(48 * time.Hour)
		d := w.daemon(configOf(t, nightly))
		stop = begin(t, d, state)
		time.Sleep(time.Hour)
		if runs := d.Runs(""); w.depot("a").n != 3 || runs[0].Reason != CatchUp || runs[0].Missed != 1 || len(runs) != 3 {
			t.Errorf("two were missed: %d backups, %+v", w.depot("a").n, runs)
		}
		stop()
	})
}

func TestDaemonDrill(t *testing.T) {
	text := strings.Replace(nightly, "timeout: 1h", "timeout: 1h\n    drill: {schedule: \"0 4 * * *\", level: digest}", 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := w.daemon(configOf(t, text))
		stop := begin(t, d, &memoryState{})
		time.Sleep(5 * time.Hour) // one backup: nothing for random to pick
		if drill := d.Status().Jobs[0].Drill; drill.Last == nil || drill.Last.Result != Succeeded || len(drill.Last.Repositories[0].Drilled) != 1 {
			t.Errorf("first drill: %+v", drill.Last)
		}
		time.Sleep(24 * time.Hour)
		drilled := d.Status().Jobs[0].Drill.Last.Repositories[0].Drilled
		if len(drilled) != 2 || drilled[0].BackupID != "b2" || drilled[1].BackupID != "b1" || drilled[1].Pick != Random {
			t.Errorf("second drill: %+v", drilled)
		}
		w.depot("b").set(func(d *fakeDepot) { d.proof = &proofError{prove.Damaged, "page 3"} })
		if _, err := d.Trigger("nightly/drill"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if drill := d.Status().Jobs[0].Drill; drill.Last.Cause != CauseDamage || drill.FailuresInRow != 1 || d.Status().Jobs[0].FailuresInRow != 0 {
			t.Errorf("third drill: %+v", drill.Last)
		}
		stop()
	})
}

// Retention over a year, with the real repository: what is left is what the
// rules say, counted by hand.
func TestDaemonRetentionYear(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		store := storagetest.NewMemoryAt(time.Now)
		cfg := configOf(t, head+`
jobs:
  j: {cluster: c, repositories: a, schedule: "0 */6 * * *", retention: {last: 3, daily: 7, weekly: 4, monthly: 12}}
`)
		d := w.daemon(cfg)
		repo, err := repository.Init(t.Context(), store, repository.InitOptions{})
		if err != nil {
			t.Fatal(err)
		}
		d.out.open = func(_ context.Context, t task) (depot, error) {
			return &smallDepot{&openedDepot{t, repo}}, nil
		}
		stop := begin(t, d, &memoryState{})
		time.Sleep(time.Until(time.Date(2001, 1, 1, 1, 0, 0, 0, time.UTC)))
		if s := d.Status().Jobs[0]; s.Successes != 366*4 || s.Repositories[0].Newest == nil || s.Repositories[0].Newest.Level != LevelDigest {
			t.Errorf("%d runs, %+v, last %+v", s.Successes, s.Repositories, s.Last)
		}
		stop()
		listing, err := repo.List(t.Context(), "c")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, b := range listing.Backups {
			got = append(got, b.Manifest.Started.Format("2006-01-02T15"))
		}
		want := []string{
			// The last of each month, of the newest twelve; January 2001 is one.
			"2000-02-29T18", "2000-03-31T18", "2000-04-30T18", "2000-05-31T18", "2000-06-30T18", "2000-07-31T18",
			"2000-08-31T18", "2000-09-30T18", "2000-10-31T18", "2000-11-30T18",
			// The last of the newest four weeks, which end on Sundays; that of January 1 is one.
			"2000-12-17T18", "2000-12-24T18",
			// The last of the newest seven days; of December, and of the week before January 1, too.
			"2000-12-26T18", "2000-12-27T18", "2000-12-28T18", "2000-12-29T18", "2000-12-30T18",
			// The last three.
			"2000-12-31T12", "2000-12-31T18", "2001-01-01T00",
		}
		if !slices.Equal(got, want) {
			t.Errorf("left:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if len(listing.Unfinished)+len(listing.Damaged)+len(listing.Unknown) > 0 {
			t.Errorf("beside them: %+v", listing)
		}
	})
}

// smallDepot saves a few bytes in place of etcd's data. It is looked at near the
// end of the year only.
type smallDepot struct{ *openedDepot }

func (d *smallDepot) list(ctx context.Context) ([]keptBackup, error) {
	if time.Now().Year() == 2000 {
		return nil, nil
	}
	return d.openedDepot.list(ctx)
}

func (d *smallDepot) save(ctx context.Context, labels map[string]string, _ func(string)) (BackupRef, error) {
	draft, err := d.repo.Begin(ctx, d.cluster.Name, repository.DraftOptions{Labels: labels})
	if err != nil {
		return BackupRef{}, err
	}
	_, err = draft.Put(ctx, repository.Part{Name: "db", Role: repository.RoleDB}, func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "data")
		return err
	})
	if err != nil {
		return BackupRef{}, err
	}
	b, err := draft.Commit(ctx, repository.Manifest{Kind: repository.Live, Tool: "test"})
	if err != nil {
		return BackupRef{}, err
	}
	return newBackupRef(b), nil
}

func TestStateDir(t *testing.T) {
	dir := t.TempDir()
	first, err := openStateDir(dir, "this one")
	if err != nil {
		t.Fatal(err)
	}
	_, err = openStateDir(dir, "that one")
	var locked *LockedError
	if !errors.As(err, &locked) || locked.Who != "this one" {
		t.Errorf("got %v", err)
	}
	key := stateKey{trackKey{DrillRun, "runs"}, false}
	if err := first.write(key, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if got, err := first.read(key); string(got) != "x" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	second, err := openStateDir(dir, "that one")
	if err != nil {
		t.Fatal(err)
	}
	second.close()
}

func TestOnce(t *testing.T) {
	w := newWorld()
	cfg := configOf(t, nightly)
	cfg.StateDir = t.TempDir()
	d := w.daemon(cfg)
	if _, err := d.Once(t.Context(), "nihgtly"); !errors.Is(err, ErrNoJob) {
		t.Errorf("got %v", err)
	}
	for range 2 {
		rec, err := d.Once(t.Context(), "nightly")
		if err != nil || rec.Result != Succeeded || rec.Reason != Asked {
			t.Errorf("got %+v, %v", rec, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(cfg.StateDir, "backup", "runs", "nightly.json"))
	if err != nil {
		t.Fatal(err)
	}
	if runs, err := decodeHistory(data, BackupRun, "nightly"); err != nil || len(runs) != 2 {
		t.Errorf("on record: %+v, %v", runs, err)
	}
}

func TestWatchConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "c.yaml")
		write := func(text string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("one")
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		n := 0
		watching.Go(func() { WatchConfig(ctx, path, slog.New(slog.DiscardHandler), func() { n++ }) })
		for _, step := range []struct {
			text string
			want int
		}{{"one", 0}, {"two", 1}, {"two", 1}, {"one", 2}} {
			write(step.text)
			time.Sleep(time.Minute)
			synctest.Wait()
			if n != step.want {
				t.Errorf("%q: %d calls, want %d", step.text, n, step.want)
			}
		}
		os.Remove(path)
		time.Sleep(time.Minute)
		cancel()
		watching.Wait()
		if n != 2 {
			t.Errorf("%d calls after the file was gone", n)
		}
	})
}
