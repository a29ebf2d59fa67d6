package walcodec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strconv"
)

// Kind says what a record's data holds (the record types of wal/wal.go).
type Kind int64

// The kinds of record, the same in every version.
const (
	KindMetadata Kind = 1
	KindEntry    Kind = 2
	KindState    Kind = 3
	KindCRC      Kind = 4
	KindSnapshot Kind = 5
)

var kindNames = [...]string{
	KindMetadata: "metadata",
	KindEntry:    "entry",
	KindState:    "state",
	KindCRC:      "crc",
	KindSnapshot: "snapshot",
}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if k.known() {
		return kindNames[k]
	}
	return "kind " + strconv.FormatInt(int64(k), 10)
}

func (k Kind) known() bool { return k >= KindMetadata && k <= KindSnapshot }

// A Record is one record of a log.
type Record struct {
	Kind   Kind
	CRC    uint32 // the running value after this record, as stored
	Data   []byte // aliases the reader's buffer: valid until the next call of Next
	Offset int64  // of the frame's length word, in its segment, bytes
	Len    int64  // whole frame: length word, record and padding, bytes

	// Padded tells framing as etcd 3.0 and later do. A record whose size is a
	// multiple of 8 looks the same in both framings: it counts as padded once
	// a padded one came before it in the segment.
	Padded bool

	// Unproven marks the first record after a damaged stretch: the value that
	// its checksum builds on is lost. The record after it, if it passed,
	// proves the stored checksum, not the data.
	Unproven bool
}

// End returns the offset of the byte after the frame.
func (r Record) End() int64 { return r.Offset + r.Len }

// castagnoli is the polynomial of every checksum in etcd's files.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A header is a record up to its data.
type header struct {
	kind Kind
	crc  uint32
	size int   // bytes of the header itself
	data int64 // bytes of data after it
}

// maxHeader is the size of the longest header: tag and kind, tag and 32-bit
// crc, tag and 56-bit length.
const maxHeader = 2 + 1 + 5 + 1 + 8

var errHeaderCut = errors.New("record header cut short")

// parseHeader decodes the header of a record of n bytes from b, its first
// min(n, maxHeader) bytes. Fields 1 and 2 are always there, field 3 on all but
// crc records, in this order; nothing else is. What the crc does not cover is
// so held in place by its only possible form.
func parseHeader(b []byte, n int64) (header, error) {
	if len(b) < 4 {
		return header{}, errHeaderCut
	}
	h := header{kind: Kind(b[1])}
	if b[0] != 0x08 || b[2] != 0x10 {
		return header{}, fmt.Errorf("not a record: starts with % x", b[:3])
	}
	if !h.kind.known() {
		return header{}, fmt.Errorf("unknown record kind %d", b[1])
	}
	sum, used, err := uvarint(b[3:])
	if err == nil && sum > math.MaxUint32 {
		err = errors.New("over 32 bits")
	}
	if err != nil {
		return header{}, fmt.Errorf("checksum field: %w", err)
	}
	h.crc, h.size = uint32(sum), 3+used
	if h.kind == KindCRC {
		return h, checkBare(h, n)
	}
	return h, h.parseData(b, n)
}

func checkBare(h header, n int64) error {
	if int64(h.size) != n {
		return fmt.Errorf("crc record of %d bytes in a frame of %d", h.size, n)
	}
	return nil
}

func (h *header) parseData(b []byte, n int64) error {
	if int64(h.size) == n {
		return fmt.Errorf("%s record without data", h.kind)
	}
	if len(b) == h.size {
		return errHeaderCut
	}
	if b[h.size] != 0x1a {
		return fmt.Errorf("%s record: unexpected field tag %#02x", h.kind, b[h.size])
	}
	size, used, err := uvarint(b[h.size+1:])
	if err != nil {
		return fmt.Errorf("%s record: data length: %w", h.kind, err)
	}
	h.size += 1 + used
	if uint64(n-int64(h.size)) != size {
		return fmt.Errorf("%s record: %d bytes of data in a frame with room for %d", h.kind, size, n-int64(h.size))
	}
	h.data = int64(size)
	return nil
}

// appendHeader encodes the header of a record with so much data.
func appendHeader(dst []byte, k Kind, crc uint32, data int) []byte {
	dst = append(dst, 0x08, byte(k), 0x10)
	dst = binary.AppendUvarint(dst, uint64(crc))
	if k == KindCRC {
		return dst
	}
	dst = append(dst, 0x1a)
	return binary.AppendUvarint(dst, uint64(data))
}

func headerLen(k Kind, crc uint32, data int) int {
	n := 3 + uvarintLen(uint64(crc))
	if k == KindCRC {
		return n
	}
	return n + 1 + uvarintLen(uint64(data))
}

// checkPayload tells whether data can be the payload of kind k. The crc does
// not cover the kind; this does, as no kind's payload passes for another's.
// Entries and hard states are decoded on the way.
func checkPayload(k Kind, data []byte, e *Entry, s *HardState) error {
	var err error
	switch k {
	case KindMetadata:
		_, err = ParseMetadata(data)
	case KindEntry:
		*e, err = ParseEntry(data)
		if err == nil {
			err = e.plausible()
		}
	case KindState:
		*s, err = ParseHardState(data)
		if err == nil && s.Term == 0 {
			err = errors.New("hard state: term is 0")
		}
	case KindSnapshot:
		_, err = ParseSnapshot(data)
	}
	return err
}
