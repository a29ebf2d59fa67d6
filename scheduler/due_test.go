package scheduler

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/robfig/cron/v3"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func schedule(t testing.TB, text, zoneName string) *Schedule {
	t.Helper()
	s, err := ParseSchedule(text, ScheduleOptions{Zone: zone(t, zoneName)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func instant(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// The times are what the wall clock shows, with the offset that tells the two
// passes of an hour apart.
func TestSlotsAcrossChangesOfTheClock(t *testing.T) {
	for name, c := range map[string]struct {
		zone, schedule, after string
		want                  []string
	}{
		"a gap: once, after it": {"Europe/Berlin", "30 2 * * *", "2026-03-27T12:00:00Z", []string{
			"2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"}},
		"a gap: from its very end": {"Europe/Berlin", "30 2 * * *", "2026-03-29T03:00:00+02:00", []string{
			"2026-03-30T02:30:00+02:00"}},
		"an overlap: once, in the first pass": {"Europe/Berlin", "30 2 * * *", "2026-10-24T12:00:00Z", []string{
			"2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"}},
		"an overlap: not again in the second pass": {"Europe/Berlin", "30 2 * * *", "2026-10-25T02:10:00+01:00", []string{
			"2026-10-26T02:30:00+01:00"}},
		"a gap takes several times: one run": {"Europe/Berlin", "*/20 2 * * *", "2026-03-29T00:00:00+01:00", []string{
			"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"}},
		"a gap moves a time onto another: one run": {"Europe/Berlin", "0 2,3 * * *", "2026-03-29T00:00:00+01:00", []string{
			"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"}},
		"each hour: the hour that is skipped has none": {"Europe/Berlin", "5 * * * *", "2026-03-29T00:30:00+01:00", []string{
			"2026-03-29T01:05:00+01:00", "2026-03-29T03:05:00+02:00", "2026-03-29T04:05:00+02:00"}},
		"each hour: the hour that comes twice has two": {"Europe/Berlin", "5 * * * *", "2026-10-25T01:30:00+02:00", []string{
			"2026-10-25T02:05:00+02:00", "2026-10-25T02:05:00+01:00", "2026-10-25T03:05:00+01:00"}},
		"each hour: on the change itself": {"Europe/Berlin", "0 * * * *", "2026-10-25T01:30:00+02:00", []string{
			"2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"}},
		"every half hour": {"Europe/Berlin", "*/30 * * * *", "2026-03-29T01:00:00+01:00", []string{
			"2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"}},
		"New York, gap": {"America/New_York", "30 2 * * *", "2026-03-07T12:00:00-05:00", []string{
			"2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"}},
		"New York, overlap": {"America/New_York", "30 1 * * *", "2026-10-31T12:00:00-04:00", []string{
			"2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"}},
		"Lord Howe, gap of half an hour": {"Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00:00+10:30", []string{
			"2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"}},
		"Lord Howe, just after the gap": {"Australia/Lord_Howe", "45 2 * * *", "2026-10-03T12:00:00+10:30", []string{
			"2026-10-04T02:45:00+11:00"}},
		"Lord Howe, overlap of half an hour": {"Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00:00+11:00", []string{
			"2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"}},
		"Lord Howe, each hour": {"Australia/Lord_Howe", "45 * * * *", "2026-04-05T01:00:00+11:00", []string{
			"2026-04-05T01:45:00+11:00", "2026-04-05T01:45:00+10:30", "2026-04-05T02:45:00+10:30"}},
		"midnight that does not exist": {"America/Sao_Paulo", "0 0 * * *", "2018-11-03T12:00:00-03:00", []string{
			"2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"}},
		"a day that does not exist": {"Pacific/Apia", "0 12 * * *", "2011-12-29T11:00:00-10:00", []string{
			"2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"}},
		"UTC":     {"UTC", "30 2 * * *", "2026-03-28T12:00:00Z", []string{"2026-03-29T02:30:00Z", "2026-03-30T02:30:00Z"}},
		"Kolkata": {"Asia/Kolkata", "30 2 * * *", "2026-03-28T12:00:00Z", []string{"2026-03-29T02:30:00+05:30"}},
		"seconds": {"UTC", "15,45 * * * * *", "2026-03-28T12:00:15Z", []string{"2026-03-28T12:00:45Z", "2026-03-28T12:01:15Z"}},
		"within a second": {"UTC", "* * * * * *", "2026-03-28T12:00:15.9Z", []string{
			"2026-03-28T12:00:16Z", "2026-03-28T12:00:17Z"}},
		"a name, a range and a list": {"UTC", "0 3 * jan,jul mon-fri", "2026-01-30T12:00:00Z", []string{
			"2026-07-01T03:00:00Z"}},
		"day of month or day of week": {"UTC", "0 3 13 * fri", "2026-03-01T00:00:00Z", []string{
			"2026-03-06T03:00:00Z", "2026-03-13T03:00:00Z", "2026-03-20T03:00:00Z", "2026-03-27T03:00:00Z", "2026-04-03T03:00:00Z", "2026-04-10T03:00:00Z", "2026-04-13T03:00:00Z"}},
		"a leap day": {"Europe/Berlin", "30 2 29 2 *", "2026-03-01T00:00:00Z", []string{"2028-02-29T02:30:00+01:00"}},
		"daily":      {"Europe/Berlin", "@daily", "2026-03-28T12:00:00Z", []string{"2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"}},
		"weekly":     {"UTC", "@weekly", "2026-03-28T12:00:00Z", []string{"2026-03-29T00:00:00Z", "2026-04-05T00:00:00Z"}},
		"monthly":    {"UTC", "@monthly", "2026-03-28T12:00:00Z", []string{"2026-04-01T00:00:00Z"}},
		"yearly":     {"UTC", "@yearly", "2026-03-28T12:00:00Z", []string{"2027-01-01T00:00:00Z"}},
		"every six hours, whatever the clock shows": {"Europe/Berlin", "@every 6h", "2026-03-28T20:00:00Z", []string{
			"2026-03-29T00:00:00Z", "2026-03-29T06:00:00Z", "2026-03-29T12:00:00Z"}},
		"every 5 s, on the dot":  {"UTC", "@every 5s", "2026-03-28T20:00:05Z", []string{"2026-03-28T20:00:10Z"}},
		"every 7 s, before 1970": {"UTC", "@every 7s", "1969-12-31T23:59:50Z", []string{"1969-12-31T23:59:53Z", "1970-01-01T00:00:00Z"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := schedule(t, c.schedule, c.zone)
			at := instant(t, c.after)
			for _, want := range c.want {
				at = s.Next(at)
				if !at.Equal(instant(t, want)) {
					t.Fatalf("slot at %v, want %s", at, want)
				}
			}
		})
	}
}

// TestNextAgreesWithAWalkOverTheClock looks at each minute of the days around
// the changes of several zones.
func TestNextAgreesWithAWalkOverTheClock(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Casablanca", "Asia/Kolkata"} {
		z := zone(t, name)
		for range 40 {
			minute, hour := pick(rng, 60), pick(rng, 24)
			if rng.IntN(4) == 0 {
				hour = "*"
			}
			s := schedule(t, minute+" "+hour+" * * *", name)
			from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rng.IntN(364)) * day)
			if changes := changesOf(z, 2026); len(changes) > 0 && rng.IntN(4) > 0 {
				from = changes[rng.IntN(len(changes))].Add(-day - time.Duration(rng.IntN(600))*time.Minute)
			}
			to := from.Add(3 * day)
			var got []time.Time
			for at := s.Next(from); !at.After(to); at = s.Next(at) {
				got = append(got, at)
			}
			want := walk(z, from, to, minute, hour)
			if !same(got, want) {
				t.Fatalf("%s in %s from %v:\n got %v\nwant %v", s, name, from, got, want)
			}
		}
	}
}

// pick is a list of one to three numbers below limit.
func pick(rng *rand.Rand, limit int) string {
	var words []string
	for range 1 + rng.IntN(3) {
		words = append(words, fmt.Sprint(rng.IntN(limit)))
	}
	return strings.Join(words, ",")
}

func changesOf(z *time.Location, year int) []time.Time {
	var changes []time.Time
	for at := time.Date(year, 1, 1, 0, 0, 0, 0, z); at.Year() == year; {
		_, end := at.ZoneBounds()
		if end.IsZero() {
			break
		}
		changes, at = append(changes, end.UTC()), end
	}
	return changes
}

// walk is the oracle: it watches a wall clock minute by minute after from up to
// to. What is due is what the clock has passed since the minute before, unless
// it passed that already on the same day.
func walk(z *time.Location, from, to time.Time, minute, hour string) []time.Time {
	minutes, hours := numbers(minute), numbers(hour)
	done := map[time.Time]bool{}
	var due []time.Time
	for at := from.Truncate(time.Minute).Add(-2 * day); !at.After(to); at = at.Add(time.Minute) {
		before, now := at.Add(-time.Minute).In(z), at.In(z)
		hit := hour == "*" && minutes[now.Minute()]
		for _, wall := range passed(before, now) {
			if hour != "*" && minutes[wall.Minute()] && hours[wall.Hour()] && !done[wall] {
				done[wall], hit = true, true
			}
		}
		if hit && at.After(from) {
			due = append(due, at)
		}
	}
	return due
}

// numbers are those of a list such as "1,2".
func numbers(list string) map[int]bool {
	set := map[int]bool{}
	for word := range strings.SplitSeq(list, ",") {
		if n, err := strconv.Atoi(word); err == nil {
			set[n] = true
		}
	}
	return set
}

// passed are the minutes that a wall clock went through from one minute to the
// next: one, or all of a gap and one.
func passed(before, now time.Time) []time.Time {
	face := func(t time.Time) time.Time {
		return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)
	}
	minutes := []time.Time{face(now)}
	if offsetOf(now) == offsetOf(before) {
		return minutes
	}
	for m := face(before).Add(time.Minute); m.Before(face(now)); m = m.Add(time.Minute) {
		minutes = append(minutes, m)
	}
	return minutes
}

func offsetOf(t time.Time) int {
	_, offset := t.Zone()
	return offset
}

func same(a, b []time.Time) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return true
}

func TestScheduleErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "has 0 fields",
		"* * * *":               "has 4 fields; want 5",
		"* * * * * * *":         "has 7 fields",
		"60 * * * *":            `minute "60": want 0 to 59`,
		"* 24 * * *":            `hour "24": want 0 to 23`,
		"* * 0 * *":             `day of month "0": want 1 to 31`,
		"* * * 13 *":            `month "13": want 1 to 12`,
		"* * * * 7":             `day of week "7": want 0 (Sunday) to 6`,
		"99 * * * * *":          `second "99"`,
		", * * * *":             `minute ","`,
		"5-1 * * * *":           `minute "5-1"`,
		"*/0 * * * *":           `minute "*/0"`,
		"a * * * *":             `minute "a"`,
		"0 0 30 2 *":            "never comes",
		"@hourlie":              "want @hourly",
		"@reboot":               "there is no @reboot",
		"@every":                "want @hourly",
		"@every x":              "want a duration",
		"@every 500ms":          "whole seconds",
		"@every 0s":             "whole seconds",
		"TZ=UTC":                "under timezone",
		"CRON_TZ=UTC 0 0 * * *": "under timezone",
	} {
		if s, err := ParseSchedule(text, ScheduleOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: schedule %v, error %v, want %q", text, s, err, want)
		}
	}
}

func TestJitterStaysAndKeepsTheOrder(t *testing.T) {
	o := ScheduleOptions{Zone: time.UTC, Jitter: 20 * time.Minute, Seed: "nightly"}
	s, err := ParseSchedule("*/15 * * * *", o)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := ParseSchedule("*/15 * * * *", o)
	o.Seed = "other"
	other, _ := ParseSchedule("*/15 * * * *", o)
	differ, spread := 0, map[time.Duration]bool{}
	slot := instant(t, "2026-05-01T00:00:00Z")
	for range 1000 {
		start, next := s.Start(slot), s.Next(slot)
		if start.Before(slot) || !start.Before(next) {
			t.Fatalf("slot %v starts at %v, the next one is at %v", slot, start, next)
		}
		if !start.Equal(again.Start(slot)) {
			t.Fatalf("slot %v starts at %v, and then at %v", slot, start, again.Start(slot))
		}
		if !start.Equal(other.Start(slot)) {
			differ++
		}
		spread[start.Sub(slot).Truncate(time.Minute)] = true
		slot = next
	}
	if differ < 990 || len(spread) != 15 {
		t.Errorf("%d of 1000 starts differ between seeds; %d of 15 minutes are used", differ, len(spread))
	}
}

// day 1 of the tests of Look is a Monday; its schedule is daily at 02:00 UTC.
func at(t testing.TB, dayOfMay int, clock string) time.Time {
	return instant(t, fmt.Sprintf("2026-05-%02dT%s:00Z", dayOfMay, clock))
}

func TestLook(t *testing.T) {
	s := schedule(t, "0 2 * * *", "UTC")
	on, off := LookOptions{CatchUp: true}, LookOptions{}
	busy := LookOptions{CatchUp: true, Busy: true}
	for name, c := range map[string]struct {
		last, now    time.Time
		o            LookOptions
		slot         time.Time
		reason       Reason
		missed, skip int
		next         time.Time
	}{
		"before the slot":                  {at(t, 1, "02:00"), at(t, 2, "01:59"), on, time.Time{}, "", 0, 0, at(t, 2, "02:00")},
		"on the dot":                       {at(t, 1, "02:00"), at(t, 2, "02:00"), on, at(t, 2, "02:00"), OnTime, 0, 0, at(t, 3, "02:00")},
		"a minute late":                    {at(t, 1, "02:00"), at(t, 2, "02:01"), off, at(t, 2, "02:00"), OnTime, 0, 0, at(t, 3, "02:00")},
		"down over one":                    {at(t, 1, "02:00"), at(t, 2, "09:00"), on, at(t, 2, "02:00"), CatchUp, 0, 0, at(t, 3, "02:00")},
		"down over three: one run":         {at(t, 1, "02:00"), at(t, 4, "09:00"), on, at(t, 4, "02:00"), CatchUp, 2, 0, at(t, 5, "02:00")},
		"down over three, none made up":    {at(t, 1, "02:00"), at(t, 4, "09:00"), off, time.Time{}, "", 3, 0, at(t, 5, "02:00")},
		"down, back on the dot":            {at(t, 1, "02:00"), at(t, 4, "02:00"), on, at(t, 4, "02:00"), OnTime, 2, 0, at(t, 5, "02:00")},
		"still running":                    {at(t, 1, "02:00"), at(t, 2, "02:00"), busy, time.Time{}, "", 0, 1, at(t, 3, "02:00")},
		"still running after a suspend":    {at(t, 1, "02:00"), at(t, 4, "09:00"), busy, time.Time{}, "", 0, 3, at(t, 5, "02:00")},
		"known since now":                  {at(t, 2, "09:00"), at(t, 2, "09:00"), on, time.Time{}, "", 0, 0, at(t, 3, "02:00")},
		"the clock was set back an hour":   {at(t, 2, "02:00"), at(t, 2, "01:00"), on, time.Time{}, "", 0, 0, at(t, 3, "02:00")},
		"the clock shows the slot again":   {at(t, 2, "02:00"), at(t, 2, "02:00"), on, time.Time{}, "", 0, 0, at(t, 3, "02:00")},
		"the clock was wrong by ten days":  {at(t, 20, "02:00"), at(t, 10, "02:00"), on, time.Time{}, "", 0, 0, at(t, 11, "02:00")},
		"the clock was set forward a week": {at(t, 1, "02:00"), at(t, 8, "02:30"), on, at(t, 8, "02:00"), CatchUp, 6, 0, at(t, 9, "02:00")},
	} {
		t.Run(name, func(t *testing.T) {
			p := Progress{Last: c.last}
			d := p.Look(s, c.now, c.o)
			if !d.Slot.Equal(c.slot) || d.Reason != c.reason || d.Missed != c.missed || d.Skipped != c.skip || !d.Next.Equal(c.next) {
				t.Errorf("decided %+v", d)
			}
			if second := p.Look(s, c.now, LookOptions{CatchUp: true}); !second.Slot.IsZero() || second.Changed {
				t.Errorf("a second look decided %+v", second)
			}
		})
	}
}

func TestAnotherScheduleHasMissedNothing(t *testing.T) {
	o := LookOptions{CatchUp: true}
	daily, hourly := schedule(t, "0 2 * * *", "UTC"), schedule(t, "0 * * * *", "UTC")
	p := &Progress{Last: at(t, 1, "02:00")}
	if d := p.Look(daily, at(t, 2, "02:00"), o); d.Reason != OnTime {
		t.Fatalf("decided %+v", d)
	}
	p.Finish()
	if d := p.Look(hourly, at(t, 2, "12:30"), o); !d.Slot.IsZero() || d.Missed != 0 || !d.Next.Equal(at(t, 2, "13:00")) || !d.Changed {
		t.Errorf("decided %+v", d)
	}
	if d := p.Look(hourly, at(t, 2, "15:30"), o); d.Reason != CatchUp || d.Missed != 2 {
		t.Errorf("decided %+v", d)
	}
	// The same times on another clock are another schedule.
	p.Finish()
	if d := p.Look(schedule(t, "0 * * * *", "Asia/Kolkata"), at(t, 2, "17:45"), o); !d.Slot.IsZero() {
		t.Errorf("decided %+v", d)
	}
}

func TestNoSlotTwiceWhileTheClockIsSet(t *testing.T) {
	s := schedule(t, "*/10 * * * *", "Europe/Berlin")
	rng := rand.New(rand.NewPCG(3, 4))
	now := instant(t, "2026-10-24T20:00:00Z")
	p := NewProgress(now)
	ran := map[time.Time]int{}
	for range 20_000 {
		switch rng.IntN(20) {
		case 0:
			// A clock that was wrong by more than a day is another matter.
			now = now.Add(-time.Duration(rng.IntN(200)) * time.Minute)
			now = latest(now, p.Last.Add(-maxStepBack))
		case 1:
			now = now.Add(time.Duration(rng.IntN(300)) * time.Minute)
		default:
			now = now.Add(time.Minute)
		}
		if d := p.Look(s, now, LookOptions{CatchUp: true}); !d.Slot.IsZero() {
			ran[d.Slot.UTC()]++
			p.Finish()
		}
	}
	for slot, n := range ran {
		if n != 1 {
			t.Errorf("slot %v ran %d times", slot, n)
		}
	}
	if len(ran) < 100 {
		t.Errorf("only %d slots ran", len(ran))
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func TestARunThatTheDaemonDiedIn(t *testing.T) {
	s := schedule(t, "0 2 * * *", "UTC")
	o := LookOptions{CatchUp: true}
	restart := func(p Progress) *Progress {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var read Progress
		if err := json.Unmarshal(b, &read); err != nil {
			t.Fatal(err)
		}
		read.Restart()
		return &read
	}
	p := &Progress{Last: at(t, 1, "02:00")}
	p.Look(s, at(t, 2, "02:00"), o)
	for i := range maxAgain {
		p = restart(*p)
		d := p.Look(s, at(t, 2, "02:10"), o)
		if d.Reason != Again || !d.Slot.Equal(at(t, 2, "02:00")) || !d.Changed {
			t.Fatalf("restart %d decided %+v", i+1, d)
		}
		if d := p.Look(s, at(t, 2, "02:11"), o); !d.Slot.IsZero() {
			t.Fatalf("a second look decided %+v", d)
		}
	}
	p = restart(*p)
	if d := p.Look(s, at(t, 2, "02:20"), o); !d.Slot.IsZero() || d.Missed != 1 {
		t.Errorf("the daemon died %d times and decided %+v", maxAgain+1, d)
	}
	if d := p.Look(s, at(t, 3, "02:00"), o); d.Reason != OnTime || p.Again != 0 {
		t.Errorf("the next slot: %+v", d)
	}

	// A newer slot stands for the run that died.
	p = restart(*p)
	if d := p.Look(s, at(t, 4, "08:00"), o); d.Reason != CatchUp || d.Missed != 1 || !d.Slot.Equal(at(t, 4, "02:00")) {
		t.Errorf("with a newer slot: %+v", d)
	}
	// A run on demand comes first.
	p = restart(*p)
	if d := p.Look(s, at(t, 4, "09:00"), LookOptions{CatchUp: true, Busy: true}); !d.Slot.IsZero() || d.Missed != 0 {
		t.Errorf("while busy: %+v", d)
	}
	if d := p.Look(s, at(t, 4, "09:10"), o); d.Reason != Again {
		t.Errorf("after busy: %+v", d)
	}
	// Nothing is made up for.
	p = restart(*p)
	if d := p.Look(s, at(t, 4, "10:00"), LookOptions{}); !d.Slot.IsZero() || d.Missed != 1 || !p.Running.IsZero() {
		t.Errorf("without catching up: %+v, %+v", d, p)
	}
}

func TestYearsOfDowntimeCostNothing(t *testing.T) {
	s := schedule(t, "* * * * * *", "Europe/Berlin")
	p := Progress{Last: instant(t, "1990-01-01T00:00:00Z")}
	begun := time.Now()
	d := p.Look(s, instant(t, "2026-05-01T12:00:00Z"), LookOptions{CatchUp: true})
	if d.Missed != countLimit || !d.Slot.Equal(instant(t, "2026-05-01T12:00:00Z")) {
		t.Errorf("decided %+v", d)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestSleepLooksAtTheClockOften(t *testing.T) {
	now := at(t, 1, "02:00")
	for next, want := range map[time.Time]time.Duration{
		{}:                         time.Minute,
		now.Add(time.Hour):         time.Minute,
		now.Add(20 * time.Second):  20 * time.Second,
		now.Add(-20 * time.Second): 0,
	} {
		if got := (Decision{Next: next}).Sleep(now); got != want {
			t.Errorf("sleeps %v before %v, want %v", got, next, want)
		}
	}
}

// FuzzSchedule wants of any text an error, or slots that come one after the other.
func FuzzSchedule(f *testing.F) {
	for _, text := range []string{"30 2 * * *", "*/5 1-4 29 feb sun", "@every 7s", "@daily", "TZ=x", "1,2,3 0 0 * * *", "*/9999999999999999999 * * * *"} {
		f.Add(text, int64(1_790_000_000))
	}
	berlin := zone(f, "Europe/Berlin")
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		s, err := ParseSchedule(text, ScheduleOptions{Zone: berlin, Jitter: time.Hour})
		if err != nil {
			return
		}
		at := time.Unix(unix%4_000_000_000, 0)
		for range 20 {
			next := s.Next(at)
			if next.IsZero() {
				return
			}
			if start := s.Start(next); !next.After(at) || start.Before(next) {
				t.Fatalf("%q: slot %v after %v, start %v", text, next, at, start)
			}
			at = next
		}
	})
}

// robfig/cron knows no zones' changes, but on a clock without any it is right.
func TestNextAgreesWithRobfig(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	star := func(text string) string {
		if rng.IntN(2) == 0 {
			return "*"
		}
		return text
	}
	for range 2000 {
		text := fmt.Sprintf("%s %s %s %s %s %s", pick(rng, 60), star(pick(rng, 60)), star(pick(rng, 24)),
			star(fmt.Sprint(1+rng.IntN(28))), star(fmt.Sprint(1+rng.IntN(12))), star(fmt.Sprint(rng.IntN(7))))
		s := schedule(t, text, "UTC")
		robfig, err := cronParser.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		robfig.(*cron.SpecSchedule).Location = time.UTC
		at := time.Date(2026, 1, 1, 0, 0, rng.IntN(365*86400), 0, time.UTC)
		for range 5 {
			want := robfig.Next(at)
			if got := s.Next(at); !got.Equal(want) {
				t.Fatalf("%q after %v: %v, want %v", text, at, got, want)
			}
			at = want
		}
	}
}

func TestShortest(t *testing.T) {
	for _, tt := range []struct {
		text, zone string
		want       time.Duration
	}{
		{"@every 90s", "UTC", 90 * time.Second},
		{"@daily", "UTC", 24 * time.Hour},
		{"@daily", "Europe/Berlin", 23 * time.Hour},
		{"0,5 2 * * *", "UTC", 5 * time.Minute},
		{"*/10 * * * * *", "UTC", 10 * time.Second},
		{"0 0 1 1,12 *", "UTC", 31 * 24 * time.Hour},
		{"30 23 31 12 *", "UTC", 365 * 24 * time.Hour},
		{"0 0 29 2 *", "UTC", 4*365*24*time.Hour + 24*time.Hour},
	} {
		s, err := ParseSchedule(tt.text, ScheduleOptions{Zone: zone(t, tt.zone)})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.shortest(); got != tt.want {
			t.Errorf("%s in %s: %v, want %v", tt.text, tt.zone, got, tt.want)
		}
	}
}
