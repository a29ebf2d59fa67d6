package repository

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Unlimited as the number of a rule keeps one of each of its periods, however
// long ago.
const Unlimited = -1

// Policy says which backups to keep: those that at least one of its rules
// keeps. Hourly to Yearly keep the newest backup of each of so many hours,
// days, ISO weeks, months and years that have one; periods without a backup
// don't count. The zero value has no rule.
type Policy struct {
	Last    int // the newest so many
	Hourly  int
	Daily   int
	Weekly  int
	Monthly int
	Yearly  int
	Within  Span // all that were begun within this span of now

	Location *time.Location // whose calendar tells days, weeks and so on; nil: UTC
}

// ErrNoRule is what a policy without a rule gets, which would let go of all
// but the newest.
var ErrNoRule = errors.New("the policy has no rule: say at least one of last, hourly, daily, weekly, monthly, yearly, within")

// Decision says whether a policy keeps a backup, and every reason why. A
// backup that is let go has one reason: that no rule keeps it.
type Decision struct {
	Backup  *Backup
	Keep    bool
	Reasons []string
}

const noRule = "no rule keeps it"

// rule is one of a policy that keeps the newest of so many periods.
type rule struct {
	name   string
	count  int
	period func(time.Time) string // of a time in the policy's location; "" is a period of its own
}

func (p Policy) rules() []rule {
	return []rule{
		{"last", p.Last, func(time.Time) string { return "" }},
		{"hourly", p.Hourly, func(t time.Time) string { return t.Format("2006-01-02 15h -07:00") }},
		{"daily", p.Daily, func(t time.Time) string { return t.Format("2006-01-02") }},
		{"weekly", p.Weekly, isoWeek},
		{"monthly", p.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
		{"yearly", p.Yearly, func(t time.Time) string { return t.Format("2006") }},
	}
}

func isoWeek(t time.Time) string {
	year, week := t.ISOWeek()
	return fmt.Sprintf("%04d-W%02d", year, week)
}

// Validate refuses a policy without any rule (ErrNoRule) and negative numbers
// other than Unlimited.
func (p Policy) Validate() error {
	some := !p.Within.IsZero()
	for _, r := range p.rules() {
		if r.count < Unlimited {
			return fmt.Errorf("keep %s %d: want 0 or more, or %d for all", r.name, r.count, Unlimited)
		}
		some = some || r.count != 0
	}
	if !some {
		return ErrNoRule
	}
	return nil
}

// String names the rules: "last 3, daily 7, within 2w".
func (p Policy) String() string {
	var rules []string
	for _, r := range p.rules() {
		if r.count != 0 {
			rules = append(rules, r.name+" "+r.limit())
		}
	}
	if !p.Within.IsZero() {
		rules = append(rules, "within "+p.Within.String())
	}
	if rules == nil {
		return "no rule"
	}
	return strings.Join(rules, ", ")
}

func (r rule) limit() string {
	if r.count == Unlimited {
		return "all"
	}
	return fmt.Sprint(r.count)
}

// Decide says for each backup, in the order given, whether the policy keeps it
// now. Clusters are decided on separately.
//
// Whatever the rules, it keeps the newest backup, the newest that is proven at
// each level, those on hold, and those dated after now. Backups that were
// found damaged or have a proof that can't be read, and those that a prune has
// marked, don't take the place of others: the rules count as if they weren't
// there, and keep them beside if they would if all were well.
func (p Policy) Decide(backups []*Backup, now time.Time) []Decision {
	reasons := make(map[*Backup][]string, len(backups))
	for _, cluster := range byCluster(backups) {
		p.decideCluster(cluster, now, reasons)
	}
	decisions := make([]Decision, len(backups))
	for i, b := range backups {
		why := reasons[b]
		decisions[i] = Decision{Backup: b, Keep: len(why) > 0, Reasons: why}
		if len(why) == 0 {
			decisions[i].Reasons = []string{noRule}
		}
	}
	return decisions
}

// byCluster groups backups by cluster, each group newest first.
func byCluster(backups []*Backup) map[string][]*Backup {
	groups := make(map[string][]*Backup)
	for _, b := range backups {
		groups[b.Manifest.Cluster] = append(groups[b.Manifest.Cluster], b)
	}
	for _, g := range groups {
		slices.SortFunc(g, newestFirst)
	}
	return groups
}

func newestFirst(a, b *Backup) int {
	return cmp.Or(b.Manifest.Started.Compare(a.Manifest.Started), cmp.Compare(b.Manifest.ID, a.Manifest.ID))
}

// decideCluster adds to reasons why backups of one cluster, newest first, are
// kept.
func (p Policy) decideCluster(backups []*Backup, now time.Time, reasons map[*Backup][]string) {
	keep := keeper(func(b *Backup, format string, args ...any) {
		reasons[b] = append(reasons[b], fmt.Sprintf(format, args...))
	})
	var past []*Backup
	for _, b := range backups {
		if b.Manifest.Started.After(now) {
			keep(b, "dated after now: %s", b.Manifest.Started.UTC().Format(time.RFC3339))
			continue
		}
		past = append(past, b)
	}
	p.decideAmong(past, now, keep)
	for _, b := range backups {
		if b.Hold != nil {
			keep(b, "%s", b.Hold.why())
		}
	}
}

// decideAmong lets the rules count what is sound, then what is damaged with it,
// and then each that is marked with those of its kind. Backups come newest
// first.
func (p Policy) decideAmong(backups []*Backup, now time.Time, keep keeper) {
	damaged := func(b *Backup) bool { return suspicion(b) != "" }
	marked := func(b *Backup) bool { return b.Pruned != nil }
	p.applyRules(without(backups, damaged, marked), now, keep)
	p.applyRules(without(backups, marked), now, keep.only(func(b *Backup) bool { return damaged(b) }))
	for _, b := range backups {
		if !marked(b) {
			continue
		}
		others := []func(*Backup) bool{func(o *Backup) bool { return o != b && marked(o) }}
		if !damaged(b) {
			others = append(others, damaged)
		}
		p.applyRules(without(backups, others...), now, keep.only(func(o *Backup) bool { return o == b }))
	}
}

func without(backups []*Backup, drop ...func(*Backup) bool) []*Backup {
	return slices.DeleteFunc(slices.Clone(backups), func(b *Backup) bool {
		return slices.ContainsFunc(drop, func(d func(*Backup) bool) bool { return d(b) })
	})
}

// keeper is told of each backup that is kept, and why.
type keeper func(b *Backup, format string, args ...any)

// only is a keeper for some backups, which says what is wrong with each.
func (k keeper) only(some func(*Backup) bool) keeper {
	return func(b *Backup, format string, args ...any) {
		if some(b) {
			k(b, format+", but %s", append(args, doubt(b))...)
		}
	}
}

// applyRules calls keep for each backup that a rule keeps, and for the newest
// and newest proven; backups come newest first.
func (p Policy) applyRules(backups []*Backup, now time.Time, keep keeper) {
	if len(backups) > 0 {
		keep(backups[0], "newest")
	}
	for _, level := range levels {
		proven := func(b *Backup) bool { return b.Proven(level) != nil }
		if i := slices.IndexFunc(backups, proven); i >= 0 {
			keep(backups[i], "newest proven by %s", level)
		}
	}
	for _, r := range p.rules() {
		p.applyRule(r, backups, keep)
	}
	if p.Within.IsZero() {
		return
	}
	since := p.Within.Before(now.In(p.location()))
	for _, b := range backups {
		if !b.Manifest.Started.Before(since) {
			keep(b, "within %v: since %s", p.Within, since.Format(time.RFC3339))
		}
	}
}

func (p Policy) applyRule(r rule, backups []*Backup, keep keeper) {
	periods := 0
	seen := make(map[string]bool) // not only the last: clocks have gone back over midnight
	for _, b := range backups {
		period := r.period(b.Manifest.Started.In(p.location()))
		if period != "" && seen[period] {
			continue
		}
		if periods == r.count {
			return
		}
		periods++
		seen[period] = true
		if period == "" {
			keep(b, "%s %d of %s", r.name, periods, r.limit())
		} else {
			keep(b, "%s %d of %s: %s", r.name, periods, r.limit(), period)
		}
	}
}

// why is the hold as a reason to keep; one that can't be read has none.
func (h *Hold) why() string {
	if h.Reason == "" {
		return "held"
	}
	return "held: " + h.Reason
}

// doubt says why a backup does not count in place of others.
func doubt(b *Backup) string {
	if b.Pruned == nil {
		return suspicion(b)
	}
	if why := suspicion(b); why != "" {
		return "a prune has marked it, and " + why
	}
	return "a prune has marked it"
}

// suspicion says what is or may be wrong with a backup, or nothing.
func suspicion(b *Backup) string {
	if why := damage(b); why != "" || len(b.Unread) == 0 {
		return why
	}
	return unread
}

// unread is what is to say of a backup with a proof that may be of damage.
const unread = "a proof of it can't be read"

// damage says what is wrong with a backup, or nothing.
func damage(b *Backup) string {
	if len(b.Damaged) > 0 {
		return "parts of it are missing or cut"
	}
	if p := damageFound(b); p != nil {
		return "found damaged on " + p.Time.UTC().Format(time.DateOnly)
	}
	return ""
}

// damageFound is the newest proof that found damage and that no later one of
// its level or above took back.
func damageFound(b *Backup) *Proof {
	for i := len(b.Proofs) - 1; i >= 0; i-- {
		p := &b.Proofs[i]
		if p.Result == ResultDamaged && !passedSince(b.Proofs[i+1:], p.Level) {
			return p
		}
	}
	return nil
}

func passedSince(later []Proof, level Level) bool {
	return slices.ContainsFunc(later, func(p Proof) bool {
		return p.Result == ResultPassed && p.Level.Includes(level)
	})
}

func (p Policy) location() *time.Location {
	if p.Location == nil {
		return time.UTC
	}
	return p.Location
}
