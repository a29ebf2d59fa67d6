package repository

import (
	"testing"
	"time"
)

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]Span{
		"7d":               {Days: 7},
		"36h":              {Clock: 36 * time.Hour},
		"2w":               {Weeks: 2},
		"1y6m":             {Years: 1, Months: 6},
		"1h30min":          {Clock: 90 * time.Minute},
		"90s":              {Clock: 90 * time.Second},
		"1y2m3w4d5h6min7s": {Years: 1, Months: 2, Weeks: 3, Days: 4, Clock: 5*time.Hour + 6*time.Minute + 7*time.Second},
		"0d":               {},
		"100000h":          {Clock: 100_000 * time.Hour},
	} {
		got, err := ParseSpan(text)
		if err != nil || got != want {
			t.Errorf("ParseSpan(%q) = %+v, %v, want %+v", text, got, err, want)
		}
		again, err := ParseSpan(got.String())
		if err != nil || again != got {
			t.Errorf("%q printed as %q reads as %+v, %v", text, got, again, err)
		}
	}
}

func TestParseSpanRefuses(t *testing.T) {
	for _, text := range []string{
		"", "7", "d", "7x", "-7d", "7d ", "1.5h", "1h30m", "1d1d", "6m1y", "7D", "100001h",
		"99999999999999999999d", "7dd", "٧d",
	} {
		if got, err := ParseSpan(text); err == nil {
			t.Errorf("ParseSpan(%q) = %+v, want an error", text, got)
		}
	}
}

func TestSpanAsText(t *testing.T) {
	var s Span
	if err := s.UnmarshalText([]byte("1y6m")); err != nil || s != (Span{Years: 1, Months: 6}) {
		t.Errorf("%+v, %v", s, err)
	}
	if err := s.UnmarshalText([]byte("soon")); err == nil || s.IsZero() {
		t.Errorf("%+v, %v, want an error and the old span", s, err)
	}
	if text, err := s.MarshalText(); string(text) != "1y6m" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

func TestSpanBefore(t *testing.T) {
	berlin := location(t, "Europe/Berlin")
	for _, c := range []struct{ name, span, from, want string }{
		{"a month of 31 days before one of 30", "1m", "2026-03-31T10:00:00+02:00", "2026-02-28T10:00:00+01:00"},
		{"in a leap year", "1m", "2028-03-31T10:00:00+02:00", "2028-02-29T10:00:00+01:00"},
		{"a year from a leap day", "1y", "2028-02-29T10:00:00+01:00", "2027-02-28T10:00:00+01:00"},
		{"months over a new year", "3m", "2026-01-15T10:00:00+01:00", "2025-10-15T10:00:00+02:00"},
		{"a day of 23 hours", "1d", "2026-03-29T12:00:00+02:00", "2026-03-28T12:00:00+01:00"},
		{"a day of 25 hours", "1d", "2026-10-25T12:00:00+01:00", "2026-10-24T12:00:00+02:00"},
		{"24 hours of a day of 25", "24h", "2026-10-25T12:00:00+01:00", "2026-10-24T13:00:00+02:00"},
		{"an hour within the hour shown twice", "1h", "2026-10-25T02:30:00+01:00", "2026-10-25T02:30:00+02:00"},
		{"weeks and days", "1w1d", "2026-11-20T00:00:00+01:00", "2026-11-12T00:00:00+01:00"},
		{"all units", "1y1m1w1d1h", "2026-11-20T10:00:00+01:00", "2025-10-12T09:00:00+02:00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			span, err := ParseSpan(c.span)
			if err != nil {
				t.Fatal(err)
			}
			got := span.Before(at(t, c.from).In(berlin)).Format(time.RFC3339)
			if got != c.want {
				t.Errorf("%s before %s is %s, want %s", c.span, c.from, got, c.want)
			}
		})
	}
}

func FuzzParseSpan(f *testing.F) {
	f.Add("1y6m2w7d36h5min1s")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSpan(text)
		if err != nil {
			return
		}
		again, err := ParseSpan(s.String())
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if again != s {
			t.Fatalf("%q printed as %q reads as %+v, want %+v", text, s, again, s)
		}
		now := time.Date(2026, 3, 31, 2, 30, 0, 0, time.UTC)
		if !s.IsZero() && !s.Before(now).Before(now) {
			t.Fatalf("%s before %v is %v", s, now, s.Before(now))
		}
	})
}

func location(t testing.TB, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}
