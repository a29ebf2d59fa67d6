// Package storage says what Lifeboat wants of a place that keeps backups.
//
// A [Store] holds objects under keys. Package storage/fs keeps them in a
// directory, storage/s3 in a bucket, storage/location opens either from its
// URL, and storage/storagetest holds what every store must pass.
package storage

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Errors that every store returns, wrapped with the store, the key and the
// cause.
var (
	ErrNotExist    = errors.New("no such object")
	ErrExist       = errors.New("the object is there already")
	ErrDenied      = errors.New("access denied")
	ErrUnreachable = errors.New("the store does not answer")
	ErrRetained    = errors.New("the object is locked against removal")
)

// Store keeps objects under keys: parts of letters, digits and "._-+=@",
// separated by "/", none of them "." or ".."; at most 200 bytes a part and 800
// in all ([CheckKey]). No key may be a folder of another: a store may refuse
// "a" beside "a/b".
//
// Durable: when Put returns nil, the object outlives a crash of the machine
// that the store is on. Whole: an object is seen complete or not at all. A Put
// that dies leaves what was there before, or the whole new object if it came
// that far; so does a Put that fails, since its answer may have been lost on
// the way. Read after write: once Put or Delete has returned, every Get, Stat
// and List of everybody shows it. All methods may be called at the same time.
//
// What a store can do besides is found with [As], which looks through wrappers.
type Store interface {
	// Put stores what body holds up to its end under key. An error of body
	// other than io.EOF stores nothing and is returned, wrapped; nor does
	// anything stand once ctx has ended before body has. With CreateOnly it
	// fails with ErrExist if the key is taken, perhaps without having read
	// body; of several at once exactly one succeeds. Modified is zero in what
	// it returns if the store would have to be asked for it.
	Put(ctx context.Context, key string, body io.Reader, o PutOptions) (Object, error)
	// Get reads an object or a range of it, or fails with ErrNotExist. A range
	// that begins at or after the end is empty. What it reads is one version
	// of the object, even if that is replaced meanwhile, or an error. The end
	// of ctx ends the reading too.
	Get(ctx context.Context, key string, r Range) (io.ReadCloser, error)
	// Stat describes an object, or fails with ErrNotExist.
	Stat(ctx context.Context, key string) (Object, error)
	// List yields the objects whose keys begin with prefix, in the byte order
	// of the keys. The prefix may end within a part ([CheckPrefix]). It ends
	// with its first error. Foreign things with names that are no keys are
	// listed too, so that somebody sees them.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Delete removes an object. One that is not there is no error. It fails
	// with ErrRetained if the object is locked.
	Delete(ctx context.Context, key string) error
	// String is the place for people to read, without secrets.
	String() string
}

// PutOptions of a Put; the zero value replaces what is there.
type PutOptions struct {
	CreateOnly bool
}

// Range is a part of an object; the zero value is all of it.
type Range struct {
	Offset int64 // bytes
	Length int64 // bytes; 0: to the end
}

// Object is what a store knows of an object.
type Object struct {
	Key      string
	Size     int64     // bytes
	Modified time.Time // by the store's clock
}

// Sweeper is a store that can tell what Puts left behind that died.
type Sweeper interface {
	// Sweep removes what Puts under prefix left that were begun before a time,
	// and returns how many there were.
	Sweep(ctx context.Context, prefix string, before time.Time) (int, error)
}

// Retainer is a store that can lock objects against removal.
type Retainer interface {
	// Retain locks an object until a time, or longer if it is so already.
	Retain(ctx context.Context, key string, until time.Time) error
}

// Locker is a store that tells of locks.
type Locker interface {
	// LockedUntil returns until when an object is locked against removal: the
	// zero time if it is not, or if the store does not tell. It fails with
	// ErrRetained if the lock has no end that is known, as a legal hold.
	LockedUntil(ctx context.Context, key string) (time.Time, error)
}
