package snapcodec

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// TrailerSize is the length in bytes of the SHA-256 that "snapshot save" puts
// behind the backend.
const TrailerSize = sha256.Size

// HasTrailer tells by a file's size whether a SHA-256 follows the backend, as
// etcdutl does: backends are whole pages of at least 512 bytes.
func HasTrailer(size int64) bool { return size%512 == TrailerSize }

// VerifyTrailer reads a snapshot of size bytes, trailer included, and compares
// its SHA-256 with the trailer's.
func VerifyTrailer(r io.ReaderAt, size int64, o DBOptions) error {
	db := &DB{r: r, name: o.Name}
	if !HasTrailer(size) {
		return db.corrupt(size, errors.New("no SHA-256 after the backend"))
	}
	h := sha256.New()
	body := size - TrailerSize
	n, err := io.CopyBuffer(writerOnly{h}, readerOnly{io.NewSectionReader(r, 0, body)}, make([]byte, copyBuffer))
	if err == nil && n < body {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return db.readError(n, err)
	}
	want := make([]byte, TrailerSize)
	if n, err := r.ReadAt(want, body); n < len(want) {
		return db.readError(body, err)
	}
	if got := h.Sum(nil); !bytes.Equal(got, want) {
		return db.corrupt(body, fmt.Errorf("%w: backend has SHA-256 %x, trailer says %x", ErrChecksum, got, want))
	}
	return nil
}
