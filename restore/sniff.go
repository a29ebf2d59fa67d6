package restore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// ErrNotSnapshot is matched by the error for a file that holds something else.
var ErrNotSnapshot = errors.New("no etcd v3 snapshot")

// sniffLength is how much of a file is looked at to tell what it is, bytes.
const sniffLength = 4096

// foreign says what a file is that is no backend, as far as its first bytes and
// its name tell.
func foreign(f *os.File) (string, error) {
	head := make([]byte, sniffLength)
	n, err := io.ReadFull(io.NewSectionReader(f, 0, sniffLength), head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	return foreignKind(filepath.Base(f.Name()), head[:n]), nil
}

func foreignKind(name string, head []byte) string {
	for _, magic := range []struct{ prefix, is string }{
		{"\x1f\x8b", "it is compressed with gzip: unpack it first"},
		{"\x28\xb5\x2f\xfd", "it is compressed with zstd: unpack it first"},
		{"\xfd7zXZ\x00", "it is compressed with xz: unpack it first"},
		{"PK\x03\x04", "it is a zip archive: unpack it first"},
		{"age-encryption.org/", "it is encrypted with age: decrypt it first"},
		{"\x04\x00\x00\x00\x00\x00\x00\x84\x08\x04", "it is a segment of a write-ahead log (see 'lifeboat wal')"},
	} {
		if bytes.HasPrefix(head, []byte(magic.prefix)) {
			return magic.is
		}
	}
	switch {
	case len(head) == 0:
		return "the file is empty"
	case len(bytes.Trim(head, "\x00")) == 0:
		return "it starts with zeros"
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return "it is a tar archive: unpack it first"
	case strings.HasSuffix(name, ".wal"):
		return "it is named as a segment of a write-ahead log (see 'lifeboat wal')"
	case snapcodec.Classify(name) == snapcodec.FileSnap:
		return "it is a raft snapshot, which holds members and v2 keys (see 'lifeboat snap')"
	case isText(head):
		return "it is text"
	}
	return "it is not a bbolt database"
}

func isText(head []byte) bool {
	for _, c := range head {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
	}
	return true
}

// notSnapshot explains why f can't be opened as a backend. A file that has the
// right beginning is damaged: cause stays what it is.
func notSnapshot(f *os.File, size int64, cause error) error {
	head := make([]byte, 20)
	if n, _ := f.ReadAt(head, 0); n == len(head) && bytes.Equal(head[16:], []byte{0xed, 0xda, 0x0c, 0xed}) {
		return fmt.Errorf("%s: the file of %d bytes is cut short or damaged: %w", f.Name(), size, cause)
	}
	kind, err := foreign(f)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w: %s", f.Name(), ErrNotSnapshot, kind)
}
