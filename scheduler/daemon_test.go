package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memoryState is a state dir that outlives daemons of a test.
type memoryState struct {
	mu    sync.Mutex
	files map[stateKey][]byte
}

func (m *memoryState) read(key stateKey) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

func (m *memoryState) write(key stateKey, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files == nil {
		m.files = map[stateKey][]byte{}
	}
	m.files[key] = slices.Clone(data)
	return nil
}

func (m *memoryState) close() error { return nil }

// copy is what a kill at this moment leaves.
func (m *memoryState) copy() *memoryState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memoryState{files: maps.Clone(m.files)}
}

// world is what daemons of a test act on.
type world struct {
	mu      sync.Mutex
	events  []string
	depots  map[string]*fakeDepot
	takes   map[string]time.Duration // that a save of a job takes
	hooks   func(ctx context.Context, h HookConfig) error
	electAs func(*ClusterConfig, LeadConfig, electorOptions) elector
}

func newWorld() *world {
	return &world{depots: map[string]*fakeDepot{}, takes: map[string]time.Duration{}}
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, fmt.Sprintf(format, args...))
}

// took are the events so far, which are forgotten.
func (w *world) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	return events
}

func (w *world) depot(name string) *fakeDepot {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.depots[name] == nil {
		w.depots[name] = &fakeDepot{}
	}
	return w.depots[name]
}

// fakeDepot is a repository that does as a test says.
type fakeDepot struct {
	mu      sync.Mutex
	openErr error
	saveErr error
	proof   error
	panics  bool
	n       int
	kept    []keptBackup
}

// fakeUse is a fakeDepot as one run has it.
type fakeUse struct {
	*fakeDepot
	w *world
	t task
}

func (d *fakeDepot) get() (open, save, proof error, panics bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.openErr, d.saveErr, d.proof, d.panics
}

func (w *world) open(_ context.Context, t task) (depot, error) {
	d := w.depot(t.repository.Name)
	if err, _, _, _ := d.get(); err != nil {
		return nil, err
	}
	return &fakeUse{d, w, t}, nil
}

func (d *fakeUse) save(ctx context.Context, labels map[string]string, _ func(string)) (BackupRef, error) {
	began := time.Now()
	d.w.mu.Lock()
	takes := d.w.takes[d.t.job.Name]
	d.w.mu.Unlock()
	if !delay(ctx, takes) {
		return BackupRef{}, ctx.Err()
	}
	_, failure, _, panics := d.get()
	if panics {
		panic("a fault of our own")
	}
	if failure != nil {
		return BackupRef{}, failure
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	ref := BackupRef{ID: fmt.Sprintf("b%d", d.n), Time: began, Revision: int64(d.n), PlainBytes: 9000, StoredBytes: 800}
	d.kept = append(d.kept, keptBackup{ref, labels})
	if len(d.kept) > 20 {
		d.kept = slices.Delete(d.kept, 0, 1)
	}
	return ref, nil
}

func (d *fakeUse) verify(_ context.Context, id string, level Level) error {
	_, _, proof, _ := d.get()
	return proof
}

func (d *fakeUse) prune(context.Context, *RetentionConfig, func(string)) (int, int64, error) {
	return 0, 0, nil
}

func (d *fakeUse) list(context.Context) ([]keptBackup, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.kept), nil
}

// daemon makes a daemon of the world.
func (w *world) daemon(cfg *Config) *Daemon {
	d := New(cfg, Options{Tool: "lifeboat test", Host: "here"})
	d.out = outside{
		open: w.open,
		hook: func(ctx context.Context, h HookConfig, env []string) error {
			w.note("hook %s %s", h.Command[0], strings.Join(env, " "))
			if w.hooks != nil {
				return w.hooks(ctx, h)
			}
			return nil
		},
		notify: func(_ context.Context, n *NotifyConfig, event Event, rec RunRecord) error {
			w.note("%s: %s of %s: %s", n.Name, event, rec.Job, rec.Cause)
			return nil
		},
		ping: func(_ context.Context, url Secret, _ time.Duration) error {
			w.note("ping %s", url.Inline.Reveal())
			return nil
		},
		elect: w.electAs,
	}
	return d
}

func configOf(t *testing.T, text string) *Config {
	t.Helper()
	cfg, err := ParseConfig("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

const head = `
stop-timeout: 10s
repositories:
  a: {url: /a}
  b: {url: /b}
clusters:
  c: {endpoints: "http://127.0.0.1:2379", data-dir: /d}
`

// daemonYear are the jobs that the real loop lives through the year with: those
// of every hour are left to TestYear, since they take long here.
var daemonYear = yearJobs[:4]

// The real loop lives through the year that the pure one did: the same jobs, the
// same downtimes, the same runs.
func TestDaemonYear(t *testing.T) {
	long(t)
	var text strings.Builder
	text.WriteString(head + "jobs:\n")
	for i, job := range daemonYear {
		fmt.Fprintf(&text, "  j%d: {cluster: c, repositories: a, schedule: %q, timezone: %s, catch-up: %v, timeout: 20h}\n", i, job.cron, job.zone, job.catchUp)
	}
	synctest.Test(t, func(t *testing.T) {
		cfg := configOf(t, text.String())
		w, state := newWorld(), &memoryState{}
		for i, job := range daemonYear {
			w.takes[fmt.Sprintf("j%d", i)] = job.takes
		}
		got := make([]outcome, len(daemonYear))
		liveWithKill := func(until time.Time) {
			d := w.daemon(cfg)
			records := map[string]RunRecord{}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			kept := &recordingState{memoryState: state, seen: records}
			go func() { done <- d.run(ctx, kept) }()
			time.Sleep(time.Until(until))
			synctest.Wait()
			state = state.copy() // what follows is not on disk
			cancel()
			<-done
			for _, id := range slices.SortedFunc(maps.Keys(records), func(a, b string) int { return records[a].Started.Compare(records[b].Started) }) {
				rec := records[id]
				var i int
				fmt.Sscanf(rec.Job, "j%d", &i)
				got[i].runs = append(got[i].runs, describe(rec.Started, rec.Slot, rec.Reason))
			}
		}
		for _, down := range periods(t) {
			liveWithKill(down[0])
			time.Sleep(time.Until(down[1]))
		}
		liveWithKill(instant(t, "2001-01-01T00:00:30Z"))
		for i, job := range daemonYear {
			s, err := decodeState(state.files[stateKey{trackKey{BackupRun, fmt.Sprintf("j%d", i)}, false}], BackupRun, fmt.Sprintf("j%d", i))
			if err != nil {
				t.Fatal(err)
			}
			got[i].missed, got[i].skipped, got[i].caughtUp = s.Progress.Missed, s.Progress.Skipped, s.Progress.CaughtUp
			want := expect(t, job)
			if !slices.Equal(got[i].runs, want.runs) {
				t.Errorf("%s: runs differ: %s", job.name, firstDifference(got[i].runs, want.runs))
			}
			if got[i].missed != want.missed || got[i].skipped != want.skipped || got[i].caughtUp != want.caughtUp {
				t.Errorf("%s: counted %d missed, %d skipped, %d caught up, want %d, %d, %d", job.name,
					got[i].missed, got[i].skipped, got[i].caughtUp, want.missed, want.skipped, want.caughtUp)
			}
		}
	})
}

// recordingState notes each run as it begins.
type recordingState struct {
	*memoryState
	mu   sync.Mutex
	seen map[string]RunRecord
}

func (r *recordingState) write(key stateKey, data []byte) error {
	if key.history {
		return r.memoryState.write(key, data)
	}
	s, err := decodeState(data, key.kind, key.job)
	if err == nil && s.Running != nil {
		r.mu.Lock()
		r.seen[s.Running.ID] = *s.Running
		r.mu.Unlock()
	}
	return errors.Join(err, r.memoryState.write(key, data))
}

// 10,000 runs leave nothing behind.
func TestDaemonManyRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := configOf(t, head+"jobs:\n  often: {cluster: c, repositories: [a, b], schedule: \"@every 10s\", drill: {schedule: \"@every 1m\", level: digest}, hooks: {after: [{command: [x]}]}}\nnotify:\n  n: {on: success, command: {run: [n]}}\n")
		w := newWorld()
		d := w.daemon(cfg)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- d.run(ctx, &memoryState{}) }()
		measure := func() (goroutines int, heap uint64) {
			synctest.Wait()
			w.took()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return runtime.NumGoroutine(), m.HeapAlloc
		}
		time.Sleep(2000*10*time.Second + 5*time.Second)
		goroutines, heap := measure()
		for range 8 {
			time.Sleep(1000 * 10 * time.Second)
			w.took()
		}
		after, grown := measure()
		if got := d.Status().Jobs[0].Successes; got < 9999 || got > 10001 {
			t.Errorf("%d runs went well, want 10000", got)
		}
		if after > goroutines {
			t.Errorf("goroutines went from %d to %d", goroutines, after)
		}
		if grown > heap+1<<20 {
			t.Errorf("the heap went from %d to %d bytes", heap, grown)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
