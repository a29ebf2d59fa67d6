package repository

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// taken is a backup of the cluster "c" that was begun at a time, named after
// it.
func taken(t testing.TB, when string) *Backup {
	t.Helper()
	return &Backup{Manifest: Manifest{ID: when, Cluster: "c", Started: at(t, when)}}
}

// backupsAt are backups taken at times, in the order given.
func backupsAt(t testing.TB, times ...string) []*Backup {
	t.Helper()
	var all []*Backup
	for _, when := range times {
		all = append(all, taken(t, when))
	}
	return all
}

// proof is one of a level and result, at a time.
func proof(t testing.TB, when string, level Level, result Result) Proof {
	t.Helper()
	return Proof{Time: at(t, when), Level: level, Result: result}
}

// decided prints decisions as lines of "ID: reasons", those of what is let go
// with a minus.
func decided(decisions []Decision) string {
	var text strings.Builder
	for _, d := range decisions {
		sign := "+"
		if !d.Keep {
			sign = "-"
		}
		fmt.Fprintf(&text, "%s %s: %s\n", sign, d.Backup.ID(), strings.Join(d.Reasons, "; "))
	}
	return text.String()
}

func TestDecide(t *testing.T) {
	berlin := location(t, "Europe/Berlin")
	const now = "2026-11-20T12:00:00Z"
	for _, c := range []struct {
		name    string
		policy  Policy
		backups []*Backup
		want    string
	}{
		{"no backup", Policy{Last: 1}, nil, ""},
		{"last", Policy{Last: 2},
			backupsAt(t, "2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z"), `
- 2026-11-18T00:00:00Z: no rule keeps it
+ 2026-11-19T00:00:00Z: last 2 of 2
+ 2026-11-20T00:00:00Z: newest; last 1 of 2
`},
		{"the newest of a day, days without one don't count", Policy{Daily: 3},
			backupsAt(t, "2026-11-10T01:00:00Z", "2026-11-12T01:00:00Z", "2026-11-12T23:00:00Z", "2026-11-18T01:00:00Z", "2026-11-20T01:00:00Z"), `
- 2026-11-10T01:00:00Z: no rule keeps it
- 2026-11-12T01:00:00Z: no rule keeps it
+ 2026-11-12T23:00:00Z: daily 3 of 3: 2026-11-12
+ 2026-11-18T01:00:00Z: daily 2 of 3: 2026-11-18
+ 2026-11-20T01:00:00Z: newest; daily 1 of 3: 2026-11-20
`},
		{"every rule is named", Policy{Last: 1, Hourly: 1, Daily: 1, Weekly: 1, Monthly: 1, Yearly: 1, Within: Span{Days: 1}},
			backupsAt(t, "2026-11-20T01:00:00Z"), `
+ 2026-11-20T01:00:00Z: newest; last 1 of 1; hourly 1 of 1: 2026-11-20 01h +00:00; daily 1 of 1: 2026-11-20; weekly 1 of 1: 2026-W47; monthly 1 of 1: 2026-11; yearly 1 of 1: 2026; within 1d: since 2026-11-19T12:00:00Z
`},
		{"ISO weeks: Monday begins one, and a year's last days may be of the next", Policy{Weekly: Unlimited},
			backupsAt(t, "2024-12-29T12:00:00Z", "2024-12-30T12:00:00Z", "2025-01-01T12:00:00Z", "2027-01-03T12:00:00Z"), `
+ 2024-12-29T12:00:00Z: weekly 2 of all: 2024-W52
- 2024-12-30T12:00:00Z: no rule keeps it
+ 2025-01-01T12:00:00Z: newest; weekly 1 of all: 2025-W01
+ 2027-01-03T12:00:00Z: dated after now: 2027-01-03T12:00:00Z
`},
		{"a day is the location's", Policy{Daily: 2, Location: berlin},
			backupsAt(t, "2026-11-18T22:30:00Z", "2026-11-18T23:30:00Z", "2026-11-19T22:30:00Z"), `
+ 2026-11-18T22:30:00Z: daily 2 of 2: 2026-11-18
- 2026-11-18T23:30:00Z: no rule keeps it
+ 2026-11-19T22:30:00Z: newest; daily 1 of 2: 2026-11-19
`},
		{"the hour that the clock shows twice is two", Policy{Hourly: 9, Location: berlin},
			backupsAt(t, "2026-10-25T00:10:00Z", "2026-10-25T00:50:00Z", "2026-10-25T01:10:00Z", "2026-10-25T01:50:00Z"), `
- 2026-10-25T00:10:00Z: no rule keeps it
+ 2026-10-25T00:50:00Z: hourly 2 of 9: 2026-10-25 02h +02:00
- 2026-10-25T01:10:00Z: no rule keeps it
+ 2026-10-25T01:50:00Z: newest; hourly 1 of 9: 2026-10-25 02h +01:00
`},
		{"within includes its bound", Policy{Within: Span{Days: 2}},
			backupsAt(t, "2026-11-18T11:59:59Z", "2026-11-18T12:00:00Z"), `
- 2026-11-18T11:59:59Z: no rule keeps it
+ 2026-11-18T12:00:00Z: newest; within 2d: since 2026-11-18T12:00:00Z
`},
		{"the newest stays though it is older than the policy looks", Policy{Within: Span{Days: 2}},
			backupsAt(t, "2026-10-18T12:00:00Z", "2026-10-19T12:00:00Z"), `
- 2026-10-18T12:00:00Z: no rule keeps it
+ 2026-10-19T12:00:00Z: newest
`},
		{"what is dated after now counts for nothing", Policy{Last: 1},
			backupsAt(t, "2026-11-19T00:00:00Z", "2026-11-20T12:00:00Z", "2026-11-20T12:00:01Z"), `
- 2026-11-19T00:00:00Z: no rule keeps it
+ 2026-11-20T12:00:00Z: newest; last 1 of 1
+ 2026-11-20T12:00:01Z: dated after now: 2026-11-20T12:00:01Z
`},
		{"a hold keeps, and says why", Policy{Last: 1},
			held(backupsAt(t, "2026-11-17T00:00:00Z", "2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z"), "audit", ""), `
+ 2026-11-17T00:00:00Z: held: audit
+ 2026-11-18T00:00:00Z: held
+ 2026-11-19T00:00:00Z: newest; last 1 of 1
`},
		{"nothing but the newest without a rule", Policy{},
			backupsAt(t, "2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z"), `
- 2026-11-18T00:00:00Z: no rule keeps it
+ 2026-11-19T00:00:00Z: newest
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := decided(c.policy.Decide(c.backups, at(t, now)))
			if want := strings.TrimPrefix(c.want, "\n"); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

// held puts a hold on the first backups, one for each reason.
func held(backups []*Backup, reasons ...string) []*Backup {
	for i, reason := range reasons {
		backups[i].Hold = &Hold{Reason: reason}
	}
	return backups
}

func TestDecideKeepsTheProven(t *testing.T) {
	all := backupsAt(t, "2026-11-15T00:00:00Z", "2026-11-16T00:00:00Z", "2026-11-17T00:00:00Z", "2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z")
	all[0].Proofs = []Proof{proof(t, "2026-11-15T01:00:00Z", Boot, ResultPassed)}
	all[1].Proofs = []Proof{proof(t, "2026-11-16T01:00:00Z", Boot, ResultPassed), proof(t, "2026-11-17T01:00:00Z", Boot, ResultUnproven)}
	all[2].Proofs = []Proof{proof(t, "2026-11-17T01:00:00Z", Structure, ResultPassed)}
	all[3].Proofs = []Proof{proof(t, "2026-11-18T01:00:00Z", Digest, ResultPassed)}
	got := decided(Policy{Last: 1}.Decide(all, at(t, "2026-11-20T00:00:00Z")))
	const want = `- 2026-11-15T00:00:00Z: no rule keeps it
+ 2026-11-16T00:00:00Z: newest proven by boot
+ 2026-11-17T00:00:00Z: newest proven by structure
+ 2026-11-18T00:00:00Z: newest proven by digest
+ 2026-11-19T00:00:00Z: newest; last 1 of 1
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestDecideDoubts(t *testing.T) {
	now := at(t, "2026-11-20T00:00:00Z")
	damaged := proof(t, "2026-11-19T05:00:00Z", Structure, ResultDamaged)
	for _, c := range []struct {
		name  string
		doubt func(newest *Backup)
		want  string // of the newest
	}{
		{"found damaged", func(b *Backup) { b.Proofs = []Proof{damaged} },
			"+ newest, but found damaged on 2026-11-19; last 1 of 1, but found damaged on 2026-11-19"},
		{"a lesser proof does not take that back",
			func(b *Backup) {
				b.Proofs = []Proof{damaged, proof(t, "2026-11-19T06:00:00Z", Digest, ResultPassed), proof(t, "2026-11-19T07:00:00Z", Boot, ResultUnproven)}
			},
			"+ newest, but found damaged on 2026-11-19; newest proven by digest, but found damaged on 2026-11-19; last 1 of 1, but found damaged on 2026-11-19"},
		{"parts gone", func(b *Backup) { b.Damaged = []error{errors.New("gone")} },
			"+ newest, but parts of it are missing or cut; last 1 of 1, but parts of it are missing or cut"},
		{"a proof unread", func(b *Backup) { b.Unread = []Damaged{{Key: "proof"}} },
			"+ newest, but a proof of it can't be read; last 1 of 1, but a proof of it can't be read"},
		{"marked by a prune", func(b *Backup) { b.Pruned = &PruneMark{} },
			"+ newest, but a prune has marked it; last 1 of 1, but a prune has marked it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := backupsAt(t, "2026-11-17T00:00:00Z", "2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z")
			c.doubt(all[2])
			got := decided(Policy{Last: 1}.Decide(all, now))
			want := strings.Replace(c.want, "+ newest", "+ 2026-11-19T00:00:00Z: newest", 1)
			want = "- 2026-11-17T00:00:00Z: no rule keeps it\n+ 2026-11-18T00:00:00Z: newest; last 1 of 1\n" + want + "\n"
			if got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
	t.Run("a proof as far takes damage back", func(t *testing.T) {
		all := backupsAt(t, "2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z")
		all[1].Proofs = []Proof{damaged, proof(t, "2026-11-19T06:00:00Z", Structure, ResultPassed)}
		if got := (Policy{Last: 1}).Decide(all, now); got[0].Keep {
			t.Errorf("the older one is kept: %q", got[0].Reasons)
		}
	})
}

func TestDecideClustersApart(t *testing.T) {
	all := backupsAt(t, "2026-11-17T00:00:00Z", "2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z")
	all[0].Manifest.Cluster = "other"
	got := (Policy{Last: 1}).Decide(all, at(t, "2026-11-20T00:00:00Z"))
	if !got[0].Keep || got[1].Keep || !got[2].Keep {
		t.Errorf("got\n%s", decided(got))
	}
}

func TestPolicyValidate(t *testing.T) {
	if err := (Policy{Location: time.UTC}).Validate(); !errors.Is(err, ErrNoRule) {
		t.Errorf("no rule: %v", err)
	}
	if err := (Policy{Last: 3, Weekly: -2}).Validate(); err == nil || !strings.Contains(err.Error(), "weekly -2") {
		t.Errorf("a negative number: %v", err)
	}
	for _, p := range []Policy{{Last: 1}, {Yearly: Unlimited}, {Within: Span{Clock: time.Hour}}} {
		if err := p.Validate(); err != nil {
			t.Errorf("%v: %v", p, err)
		}
	}
	p := Policy{Last: 3, Daily: 7, Yearly: Unlimited, Within: Span{Weeks: 2}}
	if got := p.String(); got != "last 3, daily 7, yearly all, within 2w" {
		t.Errorf("policy prints as %q", got)
	}
}

// properties runs a check with many seeds; on failure a seed given in
// LIFEBOAT_SEED repeats it alone.
func properties(t *testing.T, runs uint64, check func(t *testing.T, random *rand.Rand)) {
	t.Helper()
	seeds := make([]uint64, runs)
	for i := range seeds {
		seeds[i] = uint64(i)
	}
	if text := os.Getenv("LIFEBOAT_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("LIFEBOAT_SEED=%s: want a number", text)
		}
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		check(t, rand.New(rand.NewPCG(seed, 0)))
		if t.Failed() {
			t.Fatalf("repeat with LIFEBOAT_SEED=%d", seed)
		}
	}
}

var retainZones = []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu"}

func randomPolicy(t testing.TB, random *rand.Rand) Policy {
	count := func() int { return []int{0, 0, 1, 2, 3, 7, Unlimited}[random.IntN(7)] }
	return Policy{
		Last: count(), Hourly: count(), Daily: count(), Weekly: count(), Monthly: count(), Yearly: count(),
		Within:   []Span{{}, {}, {Clock: 36 * time.Hour}, {Days: 9}, {Months: 1}, {Years: 1}}[random.IntN(6)],
		Location: location(t, retainZones[random.IntN(len(retainZones))]),
	}
}

// randomBackups are of one cluster, the oldest first, up to a time; some hours
// have several and some months none.
func randomBackups(random *rand.Rand, until time.Time, n int) []*Backup {
	var all []*Backup
	when := until
	for range n {
		gaps := []time.Duration{time.Minute, time.Hour, 5 * time.Hour, 24 * time.Hour, 9 * 24 * time.Hour, 70 * 24 * time.Hour}
		when = when.Add(-time.Duration(random.Int64N(int64(gaps[random.IntN(len(gaps))]))))
		b := &Backup{Manifest: Manifest{ID: fmt.Sprintf("%s-%06d", when.UTC().Format(idTime), random.IntN(1e6)), Cluster: "c", Started: when}}
		if random.IntN(4) == 0 {
			b.Proofs = []Proof{{Time: when, Level: levels[random.IntN(3)], Result: []Result{ResultPassed, ResultPassed, ResultDamaged}[random.IntN(3)]}}
		}
		all = append(all, b)
	}
	slices.Reverse(all)
	return all
}

func kept(decisions []Decision) map[string]bool {
	set := map[string]bool{}
	for _, d := range decisions {
		if d.Keep {
			set[d.Backup.ID()] = true
		}
	}
	return set
}

// TestDecideAsDefined compares with the definition of the rules, written down
// again for one backup at a time.
func TestDecideAsDefined(t *testing.T) {
	properties(t, 100, func(t *testing.T, random *rand.Rand) {
		now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
		p, all := randomPolicy(t, random), randomBackups(random, now, 30)
		for _, b := range all {
			b.Proofs = nil
		}
		for _, d := range p.Decide(all, now) {
			if want := keptByDefinition(p, all, d.Backup, now); d.Keep != want {
				t.Errorf("%v in %v: %s is kept: %v, want %v", p, p.Location, d.Backup.ID(), d.Keep, want)
			}
		}
	})
}

func keptByDefinition(p Policy, all []*Backup, b *Backup, now time.Time) bool {
	start := func(b *Backup) time.Time { return b.Manifest.Started.In(p.Location) }
	first := func(count int, same func(x, y time.Time) bool) bool {
		later := map[string]bool{} // newest of each later period
		for _, o := range all {
			if newestFirst(o, b) >= 0 {
				continue
			}
			if same(start(o), start(b)) {
				return false // it is not the newest of its own
			}
			newest := o
			for _, x := range all {
				if same(start(x), start(o)) && newestFirst(x, newest) < 0 {
					newest = x
				}
			}
			later[newest.ID()] = true
		}
		return count == Unlimited || len(later) < count
	}
	sameDay := func(x, y time.Time) bool { return x.Year() == y.Year() && x.YearDay() == y.YearDay() }
	offset := func(x time.Time) int { _, o := x.Zone(); return o }
	return first(1, func(x, y time.Time) bool { return false }) ||
		first(p.Last, func(x, y time.Time) bool { return false }) ||
		first(p.Hourly, func(x, y time.Time) bool {
			return sameDay(x, y) && x.Hour() == y.Hour() && offset(x) == offset(y)
		}) ||
		first(p.Daily, sameDay) ||
		first(p.Weekly, func(x, y time.Time) bool {
			monday := func(t time.Time) time.Time {
				return time.Date(t.Year(), t.Month(), t.Day()-(int(t.Weekday())+6)%7, 0, 0, 0, 0, time.UTC)
			}
			return monday(x).Equal(monday(y))
		}) ||
		first(p.Monthly, func(x, y time.Time) bool { return x.Year() == y.Year() && x.Month() == y.Month() }) ||
		first(p.Yearly, func(x, y time.Time) bool { return x.Year() == y.Year() }) ||
		!p.Within.IsZero() && !start(b).Before(p.Within.Before(now.In(p.Location)))
}

func TestDecideKeepsMoreUnderMore(t *testing.T) {
	more := func(random *rand.Rand, n int) int {
		if n == Unlimited {
			return n
		}
		return n + random.IntN(3)
	}
	properties(t, 300, func(t *testing.T, random *rand.Rand) {
		now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
		p, all := randomPolicy(t, random), randomBackups(random, now, 60)
		q := p
		q.Last, q.Hourly, q.Daily = more(random, p.Last), more(random, p.Hourly), more(random, p.Daily)
		q.Weekly, q.Monthly, q.Yearly = more(random, p.Weekly), more(random, p.Monthly), more(random, p.Yearly)
		q.Within.Days += random.IntN(3)
		wide := kept(q.Decide(all, now))
		for id := range kept(p.Decide(all, now)) {
			if !wide[id] {
				t.Errorf("%v keeps %s, %v does not", p, id, q)
			}
		}
	})
}

func TestDecideInAnyOrder(t *testing.T) {
	properties(t, 100, func(t *testing.T, random *rand.Rand) {
		now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
		p, all := randomPolicy(t, random), randomBackups(random, now, 40)
		want := kept(p.Decide(all, now))
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		decisions := p.Decide(all, now)
		if got := kept(decisions); !maps.Equal(got, want) {
			t.Errorf("%v: shuffled, it keeps %v, want %v", p, got, want)
		}
		for i, d := range decisions {
			if d.Backup != all[i] {
				t.Fatalf("decision %d is on %s, want %s", i, d.Backup.ID(), all[i].ID())
			}
		}
	})
}

// TestDecideOftenAsOnce prunes after every single backup, and gets what one
// prune at the end gets: what the policy keeps last it has kept all along.
// That holds as long as proofs come with the backups; a later one could name a
// backup that is gone.
func TestDecideOftenAsOnce(t *testing.T) {
	properties(t, 300, func(t *testing.T, random *rand.Rand) {
		now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
		p, all := randomPolicy(t, random), randomBackups(random, now, 60)
		once := kept(p.Decide(all, now))
		var left []*Backup
		for i, b := range all {
			left = append(left, b)
			at := now
			if i+1 < len(all) {
				at = all[i+1].Manifest.Started
			}
			left = applied(p, left, at)
		}
		often := map[string]bool{}
		for _, b := range left {
			often[b.ID()] = true
		}
		if !maps.Equal(once, often) {
			t.Errorf("%v: once keeps %v, often %v", p, slices.Sorted(maps.Keys(once)), slices.Sorted(maps.Keys(often)))
		}
	})
}

func applied(p Policy, backups []*Backup, now time.Time) []*Backup {
	var left []*Backup
	for _, d := range p.Decide(backups, now) {
		if d.Keep {
			left = append(left, d.Backup)
		}
	}
	return left
}

// TestDecideOverAYear backs up every six hours through a year with both
// changes of the clock, prunes each time, and counts.
func TestDecideOverAYear(t *testing.T) {
	berlin := location(t, "Europe/Berlin")
	p := Policy{Daily: 7, Weekly: 5, Monthly: 12, Location: berlin}
	var left []*Backup
	first := time.Date(2026, 1, 1, 3, 0, 0, 0, berlin)
	for when := first; when.Year() == 2026; when = when.Add(6 * time.Hour) {
		left = append(left, taken(t, when.UTC().Format(time.RFC3339)))
		left = applied(p, left, when)
	}
	var days []string
	for _, b := range left {
		days = append(days, b.Manifest.Started.In(berlin).Format("01-02 15h"))
	}
	want := []string{
		"01-31 21h", "02-28 21h", "03-31 22h", "04-30 22h", "05-31 22h", "06-30 22h", "07-31 22h", "08-31 22h",
		"09-30 22h", "10-31 21h", "11-30 21h", // months
		"12-06 21h", "12-13 21h", "12-20 21h", // weeks end on Sunday
		"12-25 21h", "12-26 21h", "12-27 21h", "12-28 21h", "12-29 21h", "12-30 21h", "12-31 21h",
	}
	if !slices.Equal(days, want) {
		t.Errorf("after a year\n%q, want\n%q", days, want)
	}
}

// TestDecideOnAnAutumnNight has one backup per hour of a day of 25 hours.
func TestDecideOnAnAutumnNight(t *testing.T) {
	berlin := location(t, "Europe/Berlin")
	midnight := time.Date(2026, 10, 25, 0, 0, 0, 0, berlin)
	var all []*Backup
	for h := range 25 {
		all = append(all, taken(t, midnight.Add(time.Duration(h)*time.Hour).UTC().Format(time.RFC3339)))
	}
	now := midnight.Add(24*time.Hour + 30*time.Minute)
	if n := len(kept(Policy{Hourly: 25, Location: berlin}.Decide(all, now))); n != 25 {
		t.Errorf("hourly 25 keeps %d of 25", n)
	}
	if n := len(kept(Policy{Daily: 2, Location: berlin}.Decide(all, now))); n != 1 {
		t.Errorf("daily keeps %d of one day", n)
	}
}
