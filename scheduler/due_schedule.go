package scheduler

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule is a row of slots: the moments that a job is to run at.
//
// A cron expression is read on the wall clock of its time zone, and follows it
// through changes to and from daylight-saving time:
//   - If it names hours, each of its times comes once a day: one that the clock
//     skips comes at the first moment after the gap, and one that the clock
//     shows twice comes the first time only.
//   - If it runs in every hour, it comes whenever the clock shows its time: not
//     in an hour that is skipped, and in both of an hour that comes twice.
//
// "@every 6h" comes at all multiples of six hours since 1970, in UTC, however
// often the daemon is restarted.
type Schedule struct {
	text  string
	spec  *cron.SpecSchedule // as sets of bits; nil: every
	every time.Duration
	o     ScheduleOptions
}

// ScheduleOptions of a schedule; the zero value is UTC without jitter.
type ScheduleOptions struct {
	Zone *time.Location // nil: UTC
	// Jitter is how much later than its slot a run may start. How much that is
	// for a slot follows from Seed and the slot alone: a restart changes
	// nothing. It is always less than the time to the next slot.
	Jitter time.Duration
	Seed   string
}

// cronParser takes cron expressions of six fields. What else there is of cron's
// language is read here.
var cronParser = cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

var shorthands = map[string]string{
	"@yearly":   "0 0 1 1 *",
	"@annually": "0 0 1 1 *",
	"@monthly":  "0 0 1 * *",
	"@weekly":   "0 0 * * 0",
	"@daily":    "0 0 * * *",
	"@midnight": "0 0 * * *",
	"@hourly":   "0 * * * *",
}

const everyPrefix = "@every "

// allHours are the bits of an expression that runs in every hour.
const allHours = 1<<24 - 1

// ParseSchedule reads a cron expression of five fields (minute, hour, day of
// month, month, day of week) or six (seconds before them), "@hourly", "@daily",
// "@weekly", "@monthly", "@yearly", or "@every" and a duration.
func ParseSchedule(text string, o ScheduleOptions) (*Schedule, error) {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	s := &Schedule{text: text, o: o}
	var err error
	if interval, ok := strings.CutPrefix(text, everyPrefix); ok {
		s.every, err = parseEvery(interval)
	} else {
		s.spec, err = parseCron(text)
	}
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", text, err)
	}
	return s, nil
}

func parseEvery(text string) (time.Duration, error) {
	d, err := parseDuration(strings.TrimSpace(text))
	switch {
	case err != nil:
		return 0, err
	case d < time.Second || d%time.Second != 0:
		return 0, errors.New("want whole seconds, 1s or more")
	}
	return d, nil
}

func parseCron(text string) (*cron.SpecSchedule, error) {
	expression, err := expand(text)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(expression)
	switch len(fields) {
	case 5:
		fields = append([]string{"0"}, fields...)
	case 6:
	default:
		return nil, fmt.Errorf("has %d fields; want 5 (minute hour day month weekday), or 6 with the second first", len(fields))
	}
	for i, f := range cronFields {
		if err := f.check(fields[i], i); err != nil {
			return nil, err
		}
	}
	parsed, err := cronParser.Parse(strings.Join(fields, " "))
	if err != nil {
		return nil, err
	}
	spec := parsed.(*cron.SpecSchedule)
	if nextWall(spec, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, errors.New("never comes: no such month has such a day")
	}
	return spec, nil
}

// expand replaces shorthands and refuses what is cron's but not ours.
func expand(text string) (string, error) {
	switch {
	case strings.Contains(text, "TZ="):
		return "", errors.New("the time zone does not stand here, but under timezone")
	case text == "@reboot":
		return "", errors.New("there is no @reboot; a run that was missed while the daemon was down is made up for")
	case strings.HasPrefix(text, "@"):
		long, ok := shorthands[text]
		if !ok {
			return "", errors.New("want @hourly, @daily, @weekly, @monthly, @yearly, or @every and a duration")
		}
		return long, nil
	}
	return text, nil
}

// cronField is one of the six; it exists to say which one is wrong.
type cronField struct {
	name string
	want string
}

var cronFields = [6]cronField{
	{"second", "0 to 59"},
	{"minute", "0 to 59"},
	{"hour", "0 to 23"},
	{"day of month", "1 to 31"},
	{"month", "1 to 12 or jan to dec"},
	{"day of week", "0 (Sunday) to 6 or sun to sat"},
}

// check reads one field of an expression whose other fields say nothing.
func (f cronField) check(text string, place int) error {
	fields := []string{"*", "*", "*", "*", "*", "*"}
	fields[place] = text
	parsed, err := cronParser.Parse(strings.Join(fields, " "))
	if err != nil || empty(parsed.(*cron.SpecSchedule)) {
		return fmt.Errorf("%s %q: want %s: a value, a list (1,2), a range (1-5), a step (*/5, 10-40/10) or *", f.name, text, f.want)
	}
	return nil
}

// empty tells whether a field allows no value, as that of "," does.
func empty(s *cron.SpecSchedule) bool {
	return s.Second == 0 || s.Minute == 0 || s.Hour == 0 || s.Dom == 0 || s.Month == 0 || s.Dow == 0
}

// String is the schedule as it was written.
func (s *Schedule) String() string { return s.text }

// Zone is the time zone whose wall clock the schedule goes by.
func (s *Schedule) Zone() *time.Location { return s.o.Zone }

// with is the same schedule with other options.
func (s *Schedule) with(o ScheduleOptions) *Schedule {
	other := *s
	other.o = o
	if o.Zone == nil {
		other.o.Zone = time.UTC
	}
	return &other
}

// Next is the first slot after a time, or the zero time if none comes in the
// next ten years.
func (s *Schedule) Next(after time.Time) time.Time {
	after = after.Round(0)
	switch {
	case s.spec == nil:
		return nextMultiple(after, s.every).In(s.o.Zone)
	case s.spec.Hour&allHours == allHours:
		return s.nextShown(after)
	default:
		return s.nextOnce(after)
	}
}

// maxGaps is among how many slots the shortest time between two is looked for.
const maxGaps = 5000

// shortest is the shortest time between two slots, in a year or among the first
// maxGaps; zero if no two come.
func (s *Schedule) shortest() time.Duration {
	var shortest time.Duration
	slot := s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	for n, end := 0, slot.AddDate(1, 0, 1); n < maxGaps && slot.Before(end); n++ {
		next := s.Next(slot)
		if next.IsZero() {
			break
		}
		if gap := next.Sub(slot); shortest == 0 || gap < shortest {
			shortest = gap
		}
		slot = next
	}
	return shortest
}

// nextMultiple is the first multiple of whole seconds since 1970 after a time.
func nextMultiple(after time.Time, every time.Duration) time.Time {
	now, step := after.Unix(), int64(every/time.Second)
	behind := now % step
	if behind < 0 {
		behind += step
	}
	return time.Unix(now-behind+step, 0)
}

// nextOnce goes through the times of the expression in the order of the
// calendar, and takes the first whose moment lies after the given one. In an
// hour that comes twice these are times whose moment is gone.
func (s *Schedule) nextOnce(after time.Time) time.Time {
	for wall := nextWall(s.spec, onWall(after, s.o.Zone)); !wall.IsZero(); wall = nextWall(s.spec, wall) {
		if t := moment(wall, s.o.Zone); t.After(after) {
			return t
		}
	}
	return time.Time{}
}

// nextShown goes through the periods of one offset each that the zone is made
// of, and takes the first time of the expression that lies in its period.
func (s *Schedule) nextShown(after time.Time) time.Time {
	for from := after; ; {
		_, end := from.In(s.o.Zone).ZoneBounds()
		shown := onWall(from, s.o.Zone)
		wall := nextWall(s.spec, shown)
		if wall.IsZero() {
			return time.Time{}
		}
		t := from.In(s.o.Zone).Add(wall.Sub(shown))
		if end.IsZero() || t.Before(end) {
			return t
		}
		// Next looks for what is later than from, and end itself may be a slot.
		if s.matches(end) {
			return end
		}
		from = end
	}
}

// matches tells whether the wall clock shows a time of the expression.
func (s *Schedule) matches(t time.Time) bool {
	wall := onWall(t, s.o.Zone)
	return nextWall(s.spec, wall.Add(-time.Second)).Equal(wall)
}

// nextWall is the next time of a cron expression on a wall clock that is never
// changed, or the zero time if there is none in ten years. Times of wall clocks
// are written as times in UTC.
func nextWall(spec *cron.SpecSchedule, after time.Time) time.Time {
	from := after.Truncate(time.Second).Add(time.Second)
	date := time.Date(from.Year(), from.Month(), from.Day(), 0, 0, 0, 0, time.UTC)
	for end := date.AddDate(10, 0, 0); date.Before(end); date = date.AddDate(0, 0, 1) {
		if !onDay(spec, date) {
			continue
		}
		if at, ok := inDay(spec, max(0, from.Sub(date))); ok {
			return date.Add(at)
		}
	}
	return time.Time{}
}

// onDay follows cron: if both day of month and day of week are restricted,
// either will do.
func onDay(spec *cron.SpecSchedule, date time.Time) bool {
	const star = 1 << 63
	month := spec.Month>>date.Month()&1 == 1
	dom := spec.Dom>>date.Day()&1 == 1
	dow := spec.Dow>>date.Weekday()&1 == 1
	if spec.Dom&star != 0 || spec.Dow&star != 0 {
		return month && dom && dow
	}
	return month && (dom || dow)
}

// inDay is the first time of an expression in a day, at or after from.
func inDay(spec *cron.SpecSchedule, from time.Duration) (time.Duration, bool) {
	hour := int(from / time.Hour)
	minute, second := int(from/time.Minute%60), int(from/time.Second%60)
	for h := nextBit(spec.Hour, hour, 24); h < 24; h = nextBit(spec.Hour, h+1, 24) {
		if h > hour {
			minute, second = 0, 0
		}
		for m := nextBit(spec.Minute, minute, 60); m < 60; m = nextBit(spec.Minute, m+1, 60) {
			if m > minute {
				second = 0
			}
			if s := nextBit(spec.Second, second, 60); s < 60 {
				return time.Duration(h*3600+m*60+s) * time.Second, true
			}
		}
		second = 0
	}
	return 0, false
}

// nextBit is the first bit of a set at or after from, or limit.
func nextBit(set uint64, from, limit int) int {
	return min(limit, from+bits.TrailingZeros64(set>>from))
}

// onWall is what a wall clock shows at t, as a time in UTC.
func onWall(t time.Time, zone *time.Location) time.Time {
	_, offset := t.In(zone).Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// moment is when a wall clock shows what wall says for the first time, or if it
// skips that, the first moment at which it shows something later.
func moment(wall time.Time, zone *time.Location) time.Time {
	// No zone was ever more than 16 hours ahead of UTC.
	for from := wall.Add(-16 * time.Hour).In(zone); ; {
		_, end := from.ZoneBounds()
		_, offset := from.Zone()
		t := wall.Add(-time.Duration(offset) * time.Second).In(zone)
		switch {
		case t.Before(from):
			return from
		case end.IsZero() || t.Before(end):
			return t
		}
		from = end
	}
}

// Start is when the run of a slot starts: the slot and its jitter.
func (s *Schedule) Start(slot time.Time) time.Time {
	if s.o.Jitter <= 0 {
		return slot
	}
	limit := min(s.o.Jitter, s.Next(slot).Sub(slot))
	if limit <= 0 {
		return slot
	}
	h := sha256.Sum256(fmt.Appendf(nil, "%s %d", s.o.Seed, slot.Unix()))
	late := time.Duration(binary.BigEndian.Uint64(h[:]) % uint64(limit))
	return slot.Add(late.Truncate(time.Millisecond))
}
