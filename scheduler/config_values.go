package scheduler

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage/location"
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

func parseSize(text string) (Size, error) {
	n, err := location.ParseSize(text)
	return Size(n), err
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
	if near := location.Nearest(text, words); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return ""
}
