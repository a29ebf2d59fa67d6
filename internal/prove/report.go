package prove

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Level is how far a verification goes; each includes those before it.
type Level = repository.Level

// The levels.
const (
	Digest    = repository.Digest    // every checksum that is stored beside the data
	Structure = repository.Structure // every record decodes; log, snapshot and backend agree
	Boot      = repository.Boot      // a copy boots with the keys that the log says
)

// Result is how a check ended.
type Result = repository.Result

// The results of a check, and of all of them together: the worst.
const (
	Passed   = repository.ResultPassed
	Damaged  = repository.ResultDamaged // it found what must not be
	Unproven = repository.ResultUnproven
)

// Check is one thing that was looked at.
type Check struct {
	Name     string   `json:"name"`
	Level    Level    `json:"level"`
	Result   Result   `json:"result"`
	Detail   string   `json:"detail"`             // what was found, or why the check could not run
	Problems []string `json:"problems,omitempty"` // each with file and offset where it has them
	Seconds  float64  `json:"seconds"`
}

// Report is what a verification found. Its JSON is a stable contract: see
// docs/commands/verify.md.
type Report struct {
	Path      string  `json:"path"`
	Kind      string  `json:"kind"`  // data dir, WAL dir, …
	Level     Level   `json:"level"` // that was reached for
	Note      string  `json:"note,omitempty"`
	Etcd      string  `json:"etcd,omitempty"` // version that wrote it
	NodeID    string  `json:"node_id,omitempty"`
	ClusterID string  `json:"cluster_id,omitempty"`
	Result    Result  `json:"result"`
	Checks    []Check `json:"checks"`
	Time      string  `json:"time"` // RFC 3339, when it began
	Seconds   float64 `json:"seconds"`
}

// finding collects what one check sees.
type finding struct {
	detail   string
	problems []error
	total    int
}

// maxProblems bounds the list that a check gives.
const maxProblems = 100

func (f *finding) problem(err error) {
	f.total++
	if len(f.problems) < maxProblems {
		f.problems = append(f.problems, err)
	}
}

// check runs one check and notes how it ended. An error of run says that it
// could not be done, or that it met damage that ended it.
func (r *Report) check(level Level, name string, run func(*finding) error) {
	began := time.Now()
	var f finding
	err := run(&f)
	c := Check{Name: name, Level: level, Result: Passed, Detail: f.detail, Seconds: time.Since(began).Seconds()}
	for _, p := range f.problems {
		c.Problems = append(c.Problems, p.Error())
	}
	if more := f.total - len(f.problems); more > 0 {
		c.Problems = append(c.Problems, fmt.Sprintf("and %d more", more))
	}
	switch {
	case isDamage(err):
		c.Result, c.Problems = Damaged, append(c.Problems, err.Error())
	case f.total > 0:
		c.Result = Damaged
	case err != nil:
		c.Result, c.Detail = Unproven, err.Error()
	}
	r.add(c)
}

func (r *Report) add(c Check) {
	r.Checks = append(r.Checks, c)
	if r.Result != Damaged && c.Result != Passed {
		r.Result = c.Result
	}
}

// passed tells whether a check of that name did.
func (r *Report) passed(name string) bool {
	for _, c := range r.Checks {
		if c.Name == name {
			return c.Result == Passed
		}
	}
	return false
}

// DamageError says that what was verified is not what it should be.
type DamageError struct{ Cause error }

func (e *DamageError) Error() string { return e.Cause.Error() }
func (e *DamageError) Unwrap() error { return e.Cause }

func damagef(format string, args ...any) error {
	return &DamageError{fmt.Errorf(format, args...)}
}

// asDamage takes an error for damage, unless the system refused a file.
func asDamage(err error) error {
	var refused *fs.PathError
	if errors.As(err, &refused) {
		return err
	}
	return &DamageError{err}
}

func isDamage(err error) bool {
	var found *DamageError
	var log *walcodec.CorruptError
	var snap *snapcodec.CorruptError
	return errors.As(err, &found) || errors.As(err, &log) || errors.As(err, &snap)
}
