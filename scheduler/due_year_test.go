package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// yearJob is a job of the simulated year. Its schedule is written twice: as
// cron has it, and as what the oracle understands.
type yearJob struct {
	name, cron, zone string
	minute, hour     string // as walk takes them
	takes            time.Duration
	catchUp          bool
}

var yearJobs = []yearJob{
	{"daily in Berlin", "30 2 * * *", "Europe/Berlin", "30", "2", 20 * time.Minute, true},
	{"daily in New York", "30 1 * * *", "America/New_York", "30", "1", 20 * time.Minute, true},
	{"daily on Lord Howe", "15 2 * * *", "Australia/Lord_Howe", "15", "2", 20 * time.Minute, false},
	{"thrice a day in Kolkata", "45 1,9,17 * * *", "Asia/Kolkata", "45", "1,9,17", 10*time.Hour + 30*time.Second, true},
	{"each hour in Berlin", "5 * * * *", "Europe/Berlin", "5", "*", 90 * time.Second, true},
	{"each half hour in UTC, but slow", "0,30 * * * *", "UTC", "0,30", "*", 40*time.Minute + 30*time.Second, false},
}

// downtimes are when the daemon of the simulated year is dead. Some begin and
// end within a slot's minute, some cover the changes of the clock.
var downtimes = [][2]string{
	{"2000-01-20T10:00:30Z", "2000-01-23T08:00:30Z"},
	{"2000-03-25T20:00:30Z", "2000-03-26T12:00:30Z"}, // Europe's spring
	{"2000-04-02T00:00:30Z", "2000-04-02T05:59:30Z"}, // New York's spring
	{"2000-06-01T00:30:30Z", "2000-06-01T00:31:30Z"}, // while Berlin's backup runs
	{"2000-06-10T00:29:30Z", "2000-06-10T00:30:30Z"}, // over the minute of Berlin's slot
	{"2000-07-01T00:00:30Z", "2000-07-15T00:00:30Z"},
	{"2000-10-29T00:10:30Z", "2000-10-29T01:10:30Z"}, // between the two passes of Berlin's 02:30
	{"2000-12-30T00:00:30Z", "2000-12-30T23:00:30Z"},
}

// outcome is what became of a job's slots.
type outcome struct {
	runs                      []string
	missed, skipped, caughtUp int64
}

// long leaves a test to runs that are not short: it takes minutes under the race
// detector, which sees nothing in it that shorter ones don't show.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it goes through a year")
	}
}

// TestYear runs a daemon's loop for a year of a fake clock: killed and
// restarted, with runs that take longer than there is time, through all changes
// of the clock.
func TestYear(t *testing.T) {
	long(t)
	var all []outcome
	synctest.Test(t, func(t *testing.T) { all = simulate(t) })
	for i, job := range yearJobs {
		t.Run(job.name, func(t *testing.T) {
			got, want := all[i], expect(t, job)
			if !slices.Equal(got.runs, want.runs) {
				t.Errorf("runs differ: %s", firstDifference(got.runs, want.runs))
			}
			t.Logf("%d runs, missed %d, skipped %d, caught up %d", len(want.runs), want.missed, want.skipped, want.caughtUp)
			got.runs, want.runs = nil, nil
			if !reflect.DeepEqual(got, want) {
				t.Errorf("counted %+v, want %+v", got, want)
			}
		})
	}
}

func firstDifference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("run %d: got %s, want %s", i, got[i], want[i])
		}
	}
	return fmt.Sprintf("got %d runs, want %d", len(got), len(want))
}

// describe is a run in words: when it started, for which slot and why.
func describe(start, slot time.Time, reason Reason) string {
	return fmt.Sprintf("%s for %s (%s)", start.UTC().Format(time.RFC3339), slot.UTC().Format(time.RFC3339), reason)
}

// simulate lives through the year 2000, in which a bubble's clock begins.
func simulate(t *testing.T) []outcome {
	jobs := make([]*simulatedJob, len(yearJobs))
	for i, job := range yearJobs {
		jobs[i] = &simulatedJob{yearJob: job, schedule: schedule(t, job.cron, job.zone)}
		jobs[i].write(NewProgress(time.Now()))
	}
	for _, down := range periods(t) {
		liveUntil(t, jobs, down[0])
		time.Sleep(time.Until(down[1]))
	}
	liveUntil(t, jobs, instant(t, "2001-01-01T00:00:30Z"))
	var all []outcome
	for _, j := range jobs {
		p := j.read(t)
		j.got.missed, j.got.skipped, j.got.caughtUp = p.Missed, p.Skipped, p.CaughtUp
		all = append(all, j.got)
	}
	return all
}

type simulatedJob struct {
	yearJob
	schedule *Schedule
	disk     []byte // the progress as JSON: all that outlives a kill
	got      outcome
}

func (j *simulatedJob) write(p Progress) { j.disk, _ = json.Marshal(p) }

func (j *simulatedJob) read(t *testing.T) (p Progress) {
	t.Helper()
	if err := json.Unmarshal(j.disk, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// liveUntil runs the daemon's loop until it is killed.
func liveUntil(t *testing.T, jobs []*simulatedJob, killed time.Time) {
	ctx, cancel := context.WithDeadline(context.Background(), killed)
	defer cancel()
	progress, busy := make([]Progress, len(jobs)), make([]bool, len(jobs))
	for i, j := range jobs {
		progress[i] = j.read(t)
		progress[i].Restart()
	}
	finished := make(chan int)
	var running sync.WaitGroup
	defer running.Wait()
	for ctx.Err() == nil {
		nap := lookAgain
		for i, j := range jobs {
			p, now := &progress[i], time.Now()
			decision := p.Look(j.schedule, now, LookOptions{Busy: busy[i], CatchUp: j.catchUp})
			if decision.Changed {
				j.write(*p)
			}
			if !decision.Slot.IsZero() {
				j.got.runs = append(j.got.runs, describe(now, decision.Slot, decision.Reason))
				busy[i] = true
				running.Go(func() {
					if !slept(ctx, j.takes) {
						return
					}
					select {
					case finished <- i:
					case <-ctx.Done():
					}
				})
			}
			nap = min(nap, decision.Sleep(now))
		}
		select {
		case <-ctx.Done():
		case i := <-finished:
			busy[i] = false
			progress[i].Finish()
			jobs[i].write(progress[i])
		case <-time.After(nap):
		}
	}
}

// slept tells whether it slept to its end.
func slept(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// expect says what the year must bring, from the oracle's slots and rules of its
// own: it walks over half minutes and knows nothing of Progress.
func expect(t *testing.T, job yearJob) outcome {
	begin, end := instant(t, "2000-01-01T00:00:00Z"), instant(t, "2001-01-01T00:00:30Z")
	slots := walk(zone(t, job.zone), begin, end, job.minute, job.hour)
	var want outcome
	var died, running, until time.Time
	lost := 0 // slots since the last look of a living daemon
	newest := time.Time{}
	run := func(now, slot time.Time, reason Reason) {
		want.runs = append(want.runs, describe(now, slot, reason))
		if reason != OnTime {
			want.caughtUp++
		}
		running, until, died = slot, now.Add(job.takes), time.Time{}
	}
	down := periods(t)
	for now := begin; now.Before(end); now = now.Add(30 * time.Second) {
		for len(slots) > 0 && !slots[0].After(now) {
			lost, newest, slots = lost+1, slots[0], slots[1:]
		}
		for len(down) > 0 && !now.Before(down[0][1]) {
			down = down[1:]
		}
		if len(down) > 0 && !now.Before(down[0][0]) {
			if !running.IsZero() && now.Before(until) {
				died = running
			}
			running = time.Time{}
			continue
		}
		late := now.Sub(newest) > time.Minute
		busy := !running.IsZero() && now.Before(until)
		switch {
		case lost > 0 && busy:
			want.skipped += int64(lost)
		case lost > 0 && late && !job.catchUp:
			want.missed += int64(lost)
		case lost > 0:
			want.missed += int64(lost - 1)
			if !died.IsZero() {
				want.missed++
			}
			run(now, newest, map[bool]Reason{true: CatchUp, false: OnTime}[late])
		case !died.IsZero() && job.catchUp:
			run(now, died, Again)
		case !died.IsZero():
			want.missed, died = want.missed+1, time.Time{}
		}
		lost = 0
	}
	return want
}

func periods(t *testing.T) [][2]time.Time {
	var all [][2]time.Time
	for _, d := range downtimes {
		all = append(all, [2]time.Time{instant(t, d[0]), instant(t, d[1])})
	}
	return all
}

// What the year expects is itself looked at: a run for each day of the year but
// those that downtime took, on both days of change too.
func TestYearOfTheOracle(t *testing.T) {
	want := expect(t, yearJobs[0])
	for _, line := range []string{
		"2000-03-26T12:00:30Z for 2000-03-26T01:00:00Z (catch-up)", // 02:30 was skipped by the clock
		"2000-06-01T00:31:30Z for 2000-06-01T00:30:00Z (again)",
		"2000-06-10T00:30:30Z for 2000-06-10T00:30:00Z (schedule)",
		"2000-07-15T00:00:30Z for 2000-07-14T00:30:00Z (catch-up)",
		"2000-10-29T01:10:30Z for 2000-10-29T00:30:00Z (catch-up)",
	} {
		if !slices.Contains(want.runs, line) {
			t.Errorf("not expected: %s\n%s", line, strings.Join(want.runs, "\n"))
		}
	}
	// Without downtime 366; of 14 days in July one is made up for, of 3 in
	// January too, and one run dies and comes again.
	if len(want.runs) != 366-2-13+1 {
		t.Errorf("%d runs are expected", len(want.runs))
	}
}
