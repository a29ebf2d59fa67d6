package snapcodec

import (
	"errors"
	"fmt"
)

// CorruptError says where a file stops being what etcd wrote.
type CorruptError struct {
	File   string // as given in the options; may be empty
	Offset int64  // bytes from the start of the file
	Cause  error
}

func (e *CorruptError) Error() string {
	if e.File == "" {
		return fmt.Sprintf("offset %d: %v", e.Offset, e.Cause)
	}
	return fmt.Sprintf("%s: offset %d: %v", e.File, e.Offset, e.Cause)
}

func (e *CorruptError) Unwrap() error { return e.Cause }

// ErrChecksum is the cause of a CorruptError when all lengths fit and the
// content's CRC-32C or SHA-256 does not.
var ErrChecksum = errors.New("checksum mismatch")
