package scheduler

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"strconv"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// Level is how far verification goes: LevelNone, or one of repository's.
type Level string

// The levels, each of which includes those before it.
const (
	LevelNone      Level = "none"
	LevelDigest          = Level(repository.Digest)
	LevelStructure       = Level(repository.Structure)
	LevelBoot            = Level(repository.Boot)
)

// Pick is which backup a drill takes.
type Pick string

// The picks.
const (
	Newest Pick = "newest"
	Random Pick = "random" // any but the newest
)

// OnFailure is what a hook's failure leads to.
type OnFailure string

// What a hook's failure leads to.
const (
	Abort    OnFailure = "abort"    // the run fails; before the backup, none is made
	Continue OnFailure = "continue" // it is logged
)

// Event is what a notification is about.
type Event string

// The events.
const (
	Failure  Event = "failure"  // a run or a drill has failed
	Recovery Event = "recovery" // the first that is well after failures
	Success  Event = "success"  // any that is well
)

// Format is how log lines are written.
type Format string

// The formats.
const (
	Text Format = "text"
	JSON Format = "json"
)

// SSE is how S3 encrypts what it stores; "" is what the bucket does by default.
type SSE string

// Lock is S3's object lock mode; "" is none.
type Lock string

// Count is how many backups a rule keeps: 0 is no rule, repository.Unlimited
// all.
type Count int

// Address is what the HTTP server listens on: host and port, or Off.
type Address string

// Off is the address of no HTTP server.
const Off Address = "off"

// Loopback tells whether only this machine can reach the address.
func (a Address) Loopback() bool {
	host, _, err := net.SplitHostPort(string(a))
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// leaf reads the text of a value.
type leaf func(text string) (any, error)

// leaves are the types that are written as one word, by what reads them.
var leaves = map[reflect.Type]leaf{
	reflect.TypeFor[time.Duration]():   reads(parseDuration),
	reflect.TypeFor[*time.Location]():  reads(parseZone),
	reflect.TypeFor[*Schedule]():       reads(parseTimetable),
	reflect.TypeFor[Size]():            reads(parseSize),
	reflect.TypeFor[Count]():           reads(parseCount),
	reflect.TypeFor[Address]():         reads(parseAddress),
	reflect.TypeFor[slog.Level]():      reads(parseLogLevel),
	reflect.TypeFor[repository.Span](): reads(parseSpan),
	reflect.TypeFor[repository.Kind](): oneOf(repository.Live, repository.Files),
	reflect.TypeFor[Level]():           oneOf(LevelNone, LevelDigest, LevelStructure, LevelBoot),
	reflect.TypeFor[Pick]():            oneOf(Newest, Random),
	reflect.TypeFor[OnFailure]():       oneOf(Abort, Continue),
	reflect.TypeFor[Event]():           oneOf(Failure, Recovery, Success),
	reflect.TypeFor[Format]():          oneOf(Text, JSON),
	reflect.TypeFor[SSE]():             oneOf[SSE]("AES256", "aws:kms"),
	reflect.TypeFor[Lock]():            oneOf[Lock]("governance", "compliance"),
}

func reads[T any](parse func(string) (T, error)) leaf {
	return func(text string) (any, error) { return parse(text) }
}

// oneOf reads one of some words.
func oneOf[T ~string](values ...T) leaf {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = string(v)
	}
	return func(text string) (any, error) {
		for _, v := range values {
			if string(v) == text {
				return v, nil
			}
		}
		return nil, fmt.Errorf("want %s%s", list(words, "or"), didYouMean(text, words))
	}
}

func parseCount(text string) (Count, error) {
	if text == "all" {
		return repository.Unlimited, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, errors.New("want a number, 0 or more, or all")
	}
	return Count(n), nil
}

func parseAddress(text string) (Address, error) {
	if text == string(Off) {
		return Off, nil
	}
	_, port, err := net.SplitHostPort(text)
	if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil {
		return "", errors.New("want host:port such as 127.0.0.1:8378, or off")
	}
	return Address(text), nil
}

func parseLogLevel(text string) (slog.Level, error) {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	level, ok := levels[text]
	if !ok {
		words := []string{"debug", "info", "warn", "error"}
		return 0, fmt.Errorf("want %s%s", list(words, "or"), didYouMean(text, words))
	}
	return level, nil
}

func parseSpan(text string) (repository.Span, error) {
	s, err := repository.ParseSpan(text)
	if err != nil {
		return s, errors.New("want numbers with units, the longest first, such as 7d, 36h or 1y6m: y, m (months), w, d, h, min, s")
	}
	return s, nil
}
