package repository

import (
	"errors"
	"fmt"
	"strings"
)

// Errors to branch on.
var (
	// ErrExists says that there is a repository already.
	ErrExists = errors.New("a repository is there already")
	// ErrNotRepository says that there is none; its text tells what lies there.
	ErrNotRepository = errors.New("not a repository")
	// ErrNotExist says that no such cluster, backup or part is there.
	ErrNotExist = errors.New("no such backup")
	// ErrAmbiguous says that more than one cluster or backup is meant.
	ErrAmbiguous = errors.New("ambiguous")
	// ErrNoKey says that a backup is encrypted and no key was given.
	ErrNoKey = errors.New("encrypted, and no key was given")
	// ErrWrongKey says that none of the given keys opens a backup.
	ErrWrongKey = errors.New("none of the given keys opens it")
	// ErrTooLong says that a save took longer than [MaxSave].
	ErrTooLong = errors.New("the save took too long")
)

// FormatError says that an object is of a newer format, or needs a feature,
// that this version does not know.
type FormatError struct {
	Key      string
	Format   int      // that the object has
	Features []string // required and unknown
}

// Error names the format or the features.
func (e *FormatError) Error() string {
	if len(e.Features) > 0 {
		return fmt.Sprintf("%s: needs %s, which this version does not know: use a newer lifeboat",
			e.Key, strings.Join(e.Features, ", "))
	}
	return fmt.Sprintf("%s: format %d is newer than %d, the newest that this version knows: use a newer lifeboat",
		e.Key, e.Format, Format)
}

// DamageError says that an object is not what was put there.
type DamageError struct {
	Key         string // of the object
	What        string // that differs: "stored size", "plain SHA-256", …
	Found, Want string // empty where Cause tells
	Cause       error
}

// Error names the object and what is wrong with it.
func (e *DamageError) Error() string {
	s := e.Key + ": " + e.What
	if e.Found != "" || e.Want != "" {
		s += fmt.Sprintf(" %s, want %s", e.Found, e.Want)
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Cause }
