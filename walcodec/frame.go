package walcodec

import (
	"errors"
	"fmt"
	"math/bits"
)

const (
	lengthSize = 8   // bytes of the length word
	sectorSize = 512 // bytes that a disk writes as a whole, as etcd assumes (server/storage/wal/decoder.go, 3.7)
)

// A frame is what a length word says: n bytes of record, pad bytes of zeros.
type frame struct {
	n   int64
	pad int64
}

func (f frame) size() int64 { return lengthSize + f.n + f.pad }

// parseFrame decodes a length word that is not zero. etcd takes more than its
// own writers produce (encodeFrameSize in wal/encoder.go, 3.0 and later; a
// plain int64 in 2.x); what they never produce is damage.
func parseFrame(word uint64) (frame, error) {
	f := frame{n: int64(word & (1<<56 - 1))}
	top := byte(word >> 56)
	if top == 0 {
		return f, nil
	}
	f.pad = int64(top & 7)
	if top&^7 != 0x80 || f.pad == 0 || f.n == 0 || (f.n+f.pad)%8 != 0 {
		return frame{}, fmt.Errorf("length word %#016x is not one that etcd writes", word)
	}
	return f, nil
}

// padding returns how many zeros etcd 3.0 and later put after n bytes.
func padding(n int64) int64 { return -n & 7 }

// lengthWord encodes a frame.
func lengthWord(f frame) uint64 {
	word := uint64(f.n)
	if f.pad != 0 {
		word |= uint64(0x80|f.pad) << 56
	}
	return word
}

var (
	errVarintCut  = errors.New("varint cut short")
	errVarintForm = errors.New("varint not in its shortest form")
)

// uvarint decodes a varint and insists on its shortest form: the longer ones
// mean the same and would hide a changed bit.
func uvarint(b []byte) (v uint64, n int, err error) {
	for n < len(b) {
		c := b[n]
		if n == 9 && c > 1 {
			return 0, 0, errVarintForm
		}
		v |= uint64(c&0x7f) << (7 * n)
		n++
		if c >= 0x80 {
			continue
		}
		if c == 0 && n > 1 {
			return 0, 0, errVarintForm
		}
		return v, n, nil
	}
	return 0, 0, errVarintCut
}

// uvarintLen returns the encoded size of v.
func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
