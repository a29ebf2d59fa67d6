package repository

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Span is a length of time in the units that people keep backups by. Years,
// months, weeks and days are those of a calendar: a week may have a day of 23
// or 25 hours. Clock is told by the clock.
type Span struct {
	Years, Months, Weeks, Days int
	Clock                      time.Duration
}

const (
	maxSpanNumber = 100_000
	spanWant      = "want numbers with units, the longest first, such as 7d, 36h or 1y6m: y, m (months), w, d, h, min, s"
)

// spanUnit is a unit of a span's text and where it counts to.
type spanUnit struct {
	name string
	add  func(*Span, int)
	of   func(Span) int
}

// spanUnits are in the order in which they stand in a text.
var spanUnits = []spanUnit{
	{"y", func(s *Span, n int) { s.Years = n }, func(s Span) int { return s.Years }},
	{"m", func(s *Span, n int) { s.Months = n }, func(s Span) int { return s.Months }},
	{"w", func(s *Span, n int) { s.Weeks = n }, func(s Span) int { return s.Weeks }},
	{"d", func(s *Span, n int) { s.Days = n }, func(s Span) int { return s.Days }},
	{"h", func(s *Span, n int) { s.Clock += time.Duration(n) * time.Hour }, func(s Span) int { return int(s.Clock / time.Hour) }},
	{"min", func(s *Span, n int) { s.Clock += time.Duration(n) * time.Minute }, func(s Span) int { return int(s.Clock / time.Minute % 60) }},
	{"s", func(s *Span, n int) { s.Clock += time.Duration(n) * time.Second }, func(s Span) int { return int(s.Clock / time.Second % 60) }},
}

// ParseSpan reads a span such as "7d", "36h", "2w", "1y6m" or "1h30min". A
// bare m is months, as with other backup tools; units stand from the longest
// to the shortest, so that "1h30m" is an error and not thirty months.
func ParseSpan(text string) (Span, error) {
	var s Span
	units := spanUnits
	if text == "" {
		return Span{}, errors.New("empty span: " + spanWant)
	}
	for rest := text; rest != ""; {
		number, name, after := spanToken(rest)
		n, err := strconv.Atoi(number)
		if err != nil || n > maxSpanNumber {
			return Span{}, fmt.Errorf("span %q: number %q: want 0 to %d; %s", text, number, maxSpanNumber, spanWant)
		}
		i := indexUnit(units, name)
		if i < 0 {
			return Span{}, fmt.Errorf("span %q: unit %q: %s", text, name, spanWant)
		}
		units[i].add(&s, n)
		units, rest = units[i+1:], after
	}
	return s, nil
}

// spanToken cuts the first number and unit off a text.
func spanToken(text string) (number, unit, rest string) {
	isDigit := func(r rune) bool { return r >= '0' && r <= '9' }
	digits := strings.IndexFunc(text, func(r rune) bool { return !isDigit(r) })
	if digits < 0 {
		return text, "", ""
	}
	number, text = text[:digits], text[digits:]
	end := strings.IndexFunc(text, isDigit)
	if end < 0 {
		end = len(text)
	}
	return number, text[:end], text[end:]
}

func indexUnit(units []spanUnit, name string) int {
	for i, u := range units {
		if u.name == name {
			return i
		}
	}
	return -1
}

// String is the span as ParseSpan reads it, "0s" for none.
func (s Span) String() string {
	var text strings.Builder
	for _, u := range spanUnits {
		if n := u.of(s); n != 0 {
			fmt.Fprintf(&text, "%d%s", n, u.name)
		}
	}
	if text.Len() == 0 {
		return "0s"
	}
	return text.String()
}

// IsZero tells whether the span is none at all.
func (s Span) IsZero() bool { return s == Span{} }

// MarshalText is String, for flags and files.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseSpan, for flags and files.
func (s *Span) UnmarshalText(text []byte) error {
	parsed, err := ParseSpan(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// Before is the time one span before t, by the calendar of t's location. A day
// that a month lacks is that month's last: a month before March 31 is the end
// of February.
func (s Span) Before(t time.Time) time.Time {
	year, month, day := t.Date()
	first := time.Date(year-s.Years, month-time.Month(s.Months), 1, 12, 0, 0, 0, t.Location())
	last := first.AddDate(0, 1, -1).Day()
	day = min(day, last) - s.Days - 7*s.Weeks
	hour, minute, second := t.Clock()
	back := time.Date(first.Year(), first.Month(), day, hour, minute, second, t.Nanosecond(), t.Location())
	if s.Years == 0 && s.Months == 0 && s.Weeks == 0 && s.Days == 0 {
		back = t // of an hour that the clock shows twice, the one that it was
	}
	return back.Add(-s.Clock)
}
