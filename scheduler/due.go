package scheduler

import (
	"math"
	"time"
)

const (
	// grace is how late a run may start and still be on time.
	grace = time.Minute
	// countLimit is up to where missed slots are counted.
	countLimit = 10_000
	// maxStepBack is how far the clock may be set back and still be believed to
	// have been right before. Until it is there again no slot comes.
	maxStepBack = 24 * time.Hour
	// maxAgain is how often a run that the daemon died in is begun again.
	maxAgain = 3
	// lookAgain is how long to wait at most for the next look at the clock:
	// timers stand still while the machine is suspended, and don't see the
	// clock being set.
	lookAgain = time.Minute
)

// Due is what a schedule says at a moment.
type Due struct {
	// Slot is the newest slot whose start has come, if it is newer than the
	// last one that was decided on; else zero.
	Slot time.Time
	// Earlier is how many slots lie between that last one and Slot, counted up
	// to 10,000.
	Earlier int
	// Late is how long ago Slot's start was.
	Late time.Duration
	// Next is the start of the slot after all these; zero if none comes in the
	// next ten years.
	Next time.Time
}

// Due looks what became due since last, the newest slot that was decided on, or
// the time since when the schedule is known.
func (s *Schedule) Due(last, now time.Time) Due {
	last, now = last.Round(0), now.Round(0)
	if next := s.startAfter(last); next.IsZero() || next.After(now) {
		return Due{Next: next}
	}
	slot := s.newest(last, now)
	return Due{
		Slot:    slot,
		Earlier: s.between(last, slot),
		Late:    now.Sub(s.Start(slot)),
		Next:    s.startAfter(slot),
	}
}

func (s *Schedule) startAfter(t time.Time) time.Time {
	slot := s.Next(t)
	if slot.IsZero() {
		return slot
	}
	return s.Start(slot)
}

// newest is the newest slot after last that has started by now; there is one.
// It looks back from now, further each time, so that years of downtime of a
// schedule of seconds cost nothing.
func (s *Schedule) newest(last, now time.Time) time.Time {
	for back := time.Minute; back < math.MaxInt64/2; back *= 2 {
		from := now.Add(-back)
		if !from.After(last) {
			break
		}
		if slot := s.newestFrom(from, now); !slot.IsZero() {
			return slot
		}
	}
	return s.newestFrom(last, now)
}

// newestFrom is the newest slot after from that has started by now, or zero.
func (s *Schedule) newestFrom(from, now time.Time) time.Time {
	var newest time.Time
	for slot := s.Next(from); !slot.IsZero() && !slot.After(now); slot = s.Next(slot) {
		if s.Start(slot).After(now) {
			break
		}
		newest = slot
	}
	return newest
}

// between counts the slots after last and before slot.
func (s *Schedule) between(last, slot time.Time) int {
	n := 0
	for t := s.Next(last); t.Before(slot) && n < countLimit; t = s.Next(t) {
		n++
	}
	return n
}

// Progress is how far a job has come in its schedule, and what became of the
// slots. It is kept on disk: written after each Look that says so, before the
// run starts. No slot at or before Last comes again, except that of a run
// which the daemon died in.
type Progress struct {
	// Last is the newest slot that was decided on, or at first the time since
	// when the schedule is known.
	Last time.Time `json:"last"`
	// Schedule is what Last is of. When the job gets another one, that counts
	// from then on: it has missed nothing before.
	Schedule string `json:"schedule,omitempty"`
	// Running is the slot whose run has begun and not ended.
	Running time.Time `json:"running,omitzero"`
	// Again is how often that run was begun again, because the daemon died in it.
	Again int `json:"again,omitempty"`

	died bool // Running was found after a restart

	Skipped  int64 `json:"skipped"`   // slots that came while a run still ran
	Missed   int64 `json:"missed"`    // slots that passed while the daemon was down and no run of their own
	CaughtUp int64 `json:"caught_up"` // late runs that stand for missed slots
}

// NewProgress is the progress of a job that is known from now on: no earlier
// slot comes.
func NewProgress(now time.Time) Progress { return Progress{Last: now.Round(0)} }

// Reason is why a run starts.
type Reason string

// The reasons.
const (
	OnTime  Reason = "schedule"  // its slot has come
	CatchUp Reason = "catch-up"  // its slot came while the daemon was down or suspended
	Again   Reason = "again"     // the daemon died in it
	Asked   Reason = "on demand" // somebody asked for it
)

// LookOptions of a Look; the zero value is an idle job that makes up for
// nothing.
type LookOptions struct {
	Busy    bool // a run of the job is under way, of a slot or on demand
	CatchUp bool // run once, late, if slots were missed
}

// Decision is what a Look decided.
type Decision struct {
	Slot    time.Time // to run now; zero: nothing
	Reason  Reason    // why it runs
	Missed  int       // slots that passed without a run of their own, counted up to 10,000
	Skipped int       // slots that came while the last run still ran, counted likewise
	// Back is how far before the newest decided slot the clock stands now,
	// because it was set back. Nothing comes until it is there again, unless it
	// is more than a day: then what it showed before does not count.
	Back    time.Duration
	Next    time.Time // when the next slot starts; zero: not in the next ten years
	Changed bool      // the progress has changed and is to be written
}

// Look decides what is due now and takes note of it. The newest slot that has
// come runs, whatever was missed before it: there is never more than one run to
// make up for missed ones. A slot that comes while the job is busy is skipped.
func (p *Progress) Look(s *Schedule, now time.Time, o LookOptions) Decision {
	now = now.Round(0)
	before := *p
	p.follow(s, now)
	d := Decision{Back: max(0, p.Last.Sub(now))}
	if d.Back > maxStepBack {
		p.Last = now
	}
	due := s.Due(p.Last, now)
	switch {
	case due.Slot.IsZero():
		p.resume(&d, o)
	case o.Busy:
		d.Skipped = due.Earlier + 1
	case due.Late > grace && !o.CatchUp:
		d.Missed = due.Earlier + 1
	case due.Late > grace:
		d.Slot, d.Reason, d.Missed = due.Slot, CatchUp, due.Earlier
	default:
		d.Slot, d.Reason, d.Missed = due.Slot, OnTime, due.Earlier
	}
	if !due.Slot.IsZero() {
		p.Last = due.Slot
	}
	p.note(&d)
	d.Next = due.Next
	d.Changed = *p != before
	return d
}

// follow takes note of the schedule.
func (p *Progress) follow(s *Schedule, now time.Time) {
	name := s.text + " " + s.o.Zone.String()
	if p.Schedule != "" && p.Schedule != name {
		p.Last = now
	}
	p.Schedule = name
}

// resume begins the run again that the daemon died in, if nothing newer is due.
func (p *Progress) resume(d *Decision, o LookOptions) {
	switch {
	case !p.died || o.Busy:
	case !o.CatchUp || p.Again >= maxAgain:
		d.Missed++
		p.Finish()
	default:
		d.Slot, d.Reason = p.Running, Again
		p.Again++
	}
}

// note counts what was decided.
func (p *Progress) note(d *Decision) {
	if !d.Slot.IsZero() {
		if p.died && d.Reason != Again {
			d.Missed++ // the newer run stands for it
			p.Again = 0
		}
		p.Running, p.died = d.Slot, false
	}
	if d.Reason == CatchUp || d.Reason == Again {
		p.CaughtUp++
	}
	p.Missed += int64(d.Missed)
	p.Skipped += int64(d.Skipped)
}

// Finish takes note that the run has ended, well or not.
func (p *Progress) Finish() {
	p.Running, p.Again, p.died = time.Time{}, 0, false
}

// Restart takes note that the progress was read by a daemon that just started:
// a run that had begun has died.
func (p *Progress) Restart() { p.died = !p.Running.IsZero() }

// Sleep is how long to wait for the next look at the clock.
func (d Decision) Sleep(now time.Time) time.Duration {
	if d.Next.IsZero() {
		return lookAgain
	}
	return min(lookAgain, max(0, d.Next.Sub(now.Round(0))))
}
