package scheduler

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
)

var (
	errDuration = errors.New("want a duration such as 30s, 15m, 2h, 7d or 4w")
	days        = regexp.MustCompile(`^([0-9]{1,6})([wd])`)
)

// parseDuration reads what time.ParseDuration reads, with weeks and days before
// it: "1w2d12h". A day has 24 hours.
func parseDuration(text string) (time.Duration, error) {
	total, rest := time.Duration(0), text
	for m := days.FindStringSubmatch(rest); m != nil; m = days.FindStringSubmatch(rest) {
		n, err := strconv.Atoi(m[1])
		unit := map[string]time.Duration{"w": week, "d": day}[m[2]]
		if err != nil || time.Duration(n) > (math.MaxInt64-total)/unit {
			return 0, errDuration
		}
		total, rest = total+time.Duration(n)*unit, rest[len(m[0]):]
	}
	if rest == "" && text != "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-total || rest == "0" {
		return 0, errDuration
	}
	return total + d, nil
}

// Size is a number of bytes.
type Size int64

var (
	errSize   = errors.New("want a size such as 512KiB, 10MiB or 1GiB")
	sizeText  = regexp.MustCompile(`^([0-9]{1,18})(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)?$`)
	sizeUnits = map[string]int64{
		"": 1, "B": 1,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
		"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	}
)

func parseSize(text string) (Size, error) {
	m := sizeText.FindStringSubmatch(text)
	if m == nil {
		return 0, errSize
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if unit := sizeUnits[m[2]]; err != nil || n > math.MaxInt64/unit {
		return 0, errSize
	} else {
		return Size(n * unit), nil
	}
}

// parseZone takes a name of the time zone database, UTC, or Local for the
// machine's own.
func parseZone(text string) (*time.Location, error) {
	zone, err := time.LoadLocation(text)
	if err != nil || text == "" {
		return nil, errors.New("no such time zone; want a name such as Europe/Berlin, UTC, or Local for the machine's own")
	}
	return zone, nil
}

// OnDemand is the schedule of a job that runs only when somebody asks for it.
const OnDemand = "on-demand"

// parseTimetable reads a schedule, nil for OnDemand.
func parseTimetable(text string) (*Schedule, error) {
	if text == OnDemand {
		return nil, nil
	}
	s, err := ParseSchedule(text, ScheduleOptions{})
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	return s, nil
}

// list joins words for people: "a, b or c".
func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	n := len(words) - 1
	return strings.Join(words[:n], ", ") + " " + last + " " + words[n]
}

// didYouMean is a question that names the word nearest to text, if one is near.
func didYouMean(text string, words []string) string {
	if near := nearest(text, words); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return ""
}

// nearest is the word that takes the fewest changes to text, if they are few.
func nearest(text string, words []string) string {
	best, fewest := "", 1+len(text)/3
	for _, w := range words {
		if n := distance(strings.ToLower(text), strings.ToLower(w)); n <= fewest && (best == "" || n < fewest) {
			best, fewest = w, n
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	older, old := make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range old {
		old[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row := make([]int, len(y)+1)
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(old[j]+1, row[j-1]+1, old[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, old = old, row
	}
	return old[len(y)]
}
