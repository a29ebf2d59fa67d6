package walcodec

import (
	"errors"
	"fmt"
)

// ErrTorn is matched, through errors.Is, by the error of a log whose last
// write was cut short. Nothing that etcd had synced follows a torn tail, so a
// log may be used up to there.
var ErrTorn = errors.New("torn write")

// ErrRecordTooLarge is matched by the error of a record over the reader's
// limit. The record itself may be sound: a higher limit reads it.
var ErrRecordTooLarge = errors.New("record over the limit")

// A TornError tells where the last write of a log was cut short. It matches
// [ErrTorn].
type TornError struct {
	Segment string // file name, empty when the reader was given none
	Offset  int64  // of the first byte that is not part of a good record
	Cause   error
}

// Error describes the cut.
func (e *TornError) Error() string {
	return fmt.Sprintf("%s: torn write: %v", place(e.Segment, e.Offset), e.Cause)
}

// Unwrap returns the cause.
func (e *TornError) Unwrap() error { return e.Cause }

// Is makes errors.Is(err, ErrTorn) true.
func (e *TornError) Is(target error) bool { return target == ErrTorn }

// A CorruptError tells where a log is damaged. Good records may follow: see
// [Reader.Resync].
type CorruptError struct {
	Segment string // file name, empty when the reader was given none
	Offset  int64  // of the damaged frame, in its segment, bytes
	Cause   error
}

// Error describes the damage.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: %v", place(e.Segment, e.Offset), e.Cause)
}

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Cause }

func place(segment string, offset int64) string {
	if segment == "" {
		return fmt.Sprintf("offset %d", offset)
	}
	return fmt.Sprintf("segment %s: offset %d", segment, offset)
}
