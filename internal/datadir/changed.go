package datadir

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// ErrChanged says that etcd, or somebody, changed what was being read. Another
// try may do; see [Retry].
var ErrChanged = errors.New("changed")

// A member that is started, stopped or made anew by a snapshot from its leader
// while it is read has changed a moment later no more.
const (
	changedTries = 4 // after the first
	changedPause = 100 * time.Millisecond
)

// Retry calls try until its error does not match [ErrChanged], but not for
// ever. Before it tries again it tells why, and waits for a moment.
func Retry(ctx context.Context, try func() error, tell func(cause error)) error {
	for n := 0; ; n++ {
		err := try()
		if !errors.Is(err, ErrChanged) || n == changedTries {
			return err
		}
		tell(err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(changedPause << n):
		}
	}
}

// MayChange lets an error match [ErrChanged] where an etcd runs, or may, but
// for damage and others that another try won't cure.
func (l Liveness) MayChange(err error) error {
	var damage *walcodec.CorruptError
	lasting := []error{snapcodec.ErrBusy, fs.ErrPermission, syscall.ENOSPC, context.Canceled, context.DeadlineExceeded}
	if err == nil || l == Stopped || errors.As(err, &damage) ||
		slices.ContainsFunc(lasting, func(e error) bool { return errors.Is(err, e) }) {
		return err
	}
	return &changedError{err}
}

// changedError is an error that a change may have caused.
type changedError struct{ cause error }

func (e *changedError) Error() string        { return e.cause.Error() }
func (e *changedError) Unwrap() error        { return e.cause }
func (e *changedError) Is(target error) bool { return target == ErrChanged }
