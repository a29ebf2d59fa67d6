package scheduler

import (
	"context"
	"errors"
	"syscall"

	"github.com/etcd-lifeboat/lifeboat/backup/live"
	"github.com/etcd-lifeboat/lifeboat/backup/save"
	"github.com/etcd-lifeboat/lifeboat/internal/prove"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// What contexts of runs are ended with.
var (
	errOverrun = errors.New("it took longer than it may")
	errStopped = errors.New("the daemon was stopped")
)

// storeError is an error of a store.
type storeError struct{ err error }

func (e *storeError) Error() string { return e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// configError is an error of what the configuration names.
type configError struct{ err error }

func (e *configError) Error() string { return e.err.Error() }
func (e *configError) Unwrap() error { return e.err }

// hookError is an error of a hook.
type hookError struct{ err error }

func (e *hookError) Error() string { return e.err.Error() }
func (e *hookError) Unwrap() error { return e.err }

// panicError is a panic.
type panicError struct{ text string }

func (e *panicError) Error() string { return e.text }

// proofError is what stands against a backup that was verified.
type proofError struct {
	result prove.Result
	text   string
}

func (e *proofError) Error() string { return e.text }

// causeOf finds the one word for an error of a stage of a run whose context is
// ctx.
func causeOf(ctx context.Context, stage Stage, err error) Cause {
	if cause, ok := ended(ctx, err); ok {
		return cause
	}
	for _, known := range causes {
		if known.is(err) {
			return known.cause
		}
	}
	switch stage {
	case StageLead, StageSave:
		return CauseEndpoint
	case StageBefore, StageAfter:
		return CauseHook
	case StageOpen:
		return CauseStore
	case StageVerify:
		return CauseVerify
	case StagePrune:
		return CausePrune
	}
	return CauseInternal
}

// ended tells whether an error is no more than that the run had to end.
func ended(ctx context.Context, err error) (Cause, bool) {
	var why *panicError
	switch {
	case ctx.Err() == nil || errors.As(err, &why):
		return "", false
	case errors.Is(context.Cause(ctx), errOverrun):
		return CauseTimeout, true
	default:
		return CauseStopped, true
	}
}

// causes are tried in this order: what says most comes first.
var causes = []struct {
	cause Cause
	is    func(error) bool
}{
	{CauseInternal, isA[*panicError]},
	{CauseHook, isA[*hookError]},
	{CauseDisk, isOneOf(syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS)},
	{CauseConfig, isA[*configError]},
	{CauseConfig, isOneOf(save.ErrPlaintext)},
	{CauseKey, isOneOf(repository.ErrNoKey, repository.ErrWrongKey)},
	{CauseEndpoint, isOneOf(live.ErrUnreachable)},
	{CauseEndpoint, isA[*live.StallError]},
	{CauseDamage, isDamage},
	{CauseStore, isA[*storeError]},
	{CauseStore, isA[*repository.FormatError]},
	{CauseStore, isOneOf(storage.ErrUnreachable, storage.ErrDenied, repository.ErrNotRepository, repository.ErrTooLong)},
}

func isA[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

func isOneOf(targets ...error) func(error) bool {
	return func(err error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
}

func isDamage(err error) bool {
	var proof *proofError
	if errors.As(err, &proof) {
		return proof.result == prove.Damaged
	}
	return isA[*repository.DamageError](err) || isA[*prove.DamageError](err) ||
		isA[*walcodec.CorruptError](err) || isA[*snapcodec.CorruptError](err) || errors.Is(err, snapcodec.ErrChecksum)
}
