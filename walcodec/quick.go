package walcodec

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// This file is a short cut and decides nothing: it decodes the records that
// make up nearly all of a log, entries and hard states in the form that etcd
// writes, at about the cost of their checksum. What it does not take it leaves
// untouched to decode, which knows every form and every fault.

// quick decodes the record at the current position into rec and moves on, if
// it is whole in the buffer, of the common form, and good.
func (r *Reader) quick(rec *Record) bool {
	b := r.buf[r.pos:r.end]
	if len(b) < lengthSize || r.records < 2 || r.blind {
		return false
	}
	n, pad, ok := quickFrame(binary.LittleEndian.Uint64(b), r.padded)
	if !ok || n > uint64(r.o.limit()) || lengthSize+n+pad > uint64(len(b)) {
		return false
	}
	body := b[lengthSize : lengthSize+n]
	kind, stored, data, ok := quickHeader(body)
	if !ok || crc32.Update(r.crc, castagnoli, data) != stored {
		return false
	}
	if !r.quickPayload(kind, data) || !quickZeros(b[:lengthSize+n+pad], pad) {
		return false
	}
	r.crc = stored
	r.padded = r.padded || pad != 0
	rec.Kind = kind
	rec.CRC = stored
	rec.Data = data
	rec.Offset = r.good
	rec.Len = int64(lengthSize + n + pad)
	rec.Padded = r.padded
	r.records++
	r.good += rec.Len
	r.pos += int(rec.Len)
	return true
}

// quickZeros tells whether the last pad bytes of b, less than 8, are zero.
func quickZeros(b []byte, pad uint64) bool {
	return binary.LittleEndian.Uint64(b[len(b)-8:])>>8>>(56-8*pad) == 0
}

// quickFrame is parseFrame with the rule that padding, once begun, goes on.
func quickFrame(word uint64, padded bool) (n, pad uint64, ok bool) {
	n = word & (1<<56 - 1)
	pad = -n & 7
	switch top := word >> 56; {
	case top == 0x80|pad && pad != 0:
		return n, pad, true
	case top == 0 && (pad == 0 || !padded):
		return n, 0, true
	}
	return 0, 0, false
}

// fiveBytes are the continuation bits of a varint of five bytes, which 15 of
// 16 checksums are.
const (
	fiveBytesMask = 0x80_80_80_80_80
	fiveBytes     = 0x00_80_80_80_80
)

// quickHeader is parseHeader for a whole record with data.
func quickHeader(b []byte) (kind Kind, crc uint32, data []byte, ok bool) {
	if len(b) < 11 || b[0] != 0x08 || b[2] != 0x10 {
		return 0, 0, nil, false
	}
	crc, i := quickCRC(b)
	if i == 0 || b[i] != 0x1a {
		return 0, 0, nil, false
	}
	size, used := quickLength(b[i+1:])
	if i += 1 + used; used > 0 && size == uint64(len(b)-i) {
		return Kind(b[1]), crc, b[i:len(b):len(b)], true
	}
	return 0, 0, nil, false
}

// quickLength is uvarint with 0 for an error.
func quickLength(b []byte) (v uint64, used int) {
	if len(b) > 2 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	if len(b) > 2 && b[1] < 0x80 && b[1] > 0 {
		return uint64(b[0]&0x7f) | uint64(b[1])<<7, 2
	}
	v, used, _ = uvarint(b)
	return v, used
}

// quickCRC decodes the checksum, which most often is a varint of five bytes.
// It returns where the next field starts, 0 when there is no checksum.
func quickCRC(b []byte) (crc uint32, next int) {
	x := binary.LittleEndian.Uint64(b[3:])
	if x&fiveBytesMask == fiveBytes && x>>36&0xf == 0 && x>>32&0xf != 0 {
		return uint32(x&0x7f | x>>1&0x3f80 | x>>2&0x1fc000 | x>>3&0xfe00000 | x>>4&0xf0000000), 8
	}
	v, used, err := uvarint(b[3:8])
	if err != nil || v > math.MaxUint32 {
		return 0, 0
	}
	return uint32(v), 3 + used
}

func (r *Reader) quickPayload(k Kind, data []byte) bool {
	switch k {
	case KindEntry:
		return quickEntry(data, &r.entry)
	case KindState:
		return quickState(data, &r.state)
	}
	return false
}

// quickEntry decodes a plausible normal entry with its fields in order.
func quickEntry(b []byte, e *Entry) bool {
	if len(b) < 6 {
		return false
	}
	kind, i := EntryNormal, 0
	if b[0] == 0x08 { // left out by 3.7
		kind, i = EntryType(b[1]), 2
	}
	term, i := quickField(b, i, 0x10)
	index, i := quickField(b, i, 0x18)
	e.Type, e.Term, e.Index, e.Data = kind, term, index, nil
	switch {
	case i < len(b) && b[i] == 0x22:
		size, used := quickLength(b[i+1:])
		if i += 1 + used; used == 0 || size != uint64(len(b)-i) {
			return false
		}
		e.Data = b[i:len(b):len(b)]
	case i != len(b):
		return false
	}
	return kind == EntryNormal && term != 0 && index != 0
}

// quickState decodes a plausible hard state with all its fields in order.
func quickState(b []byte, s *HardState) bool {
	i := 0
	s.Term, i = quickField(b, i, 0x08)
	s.Vote, i = quickField(b, i, 0x10)
	s.Commit, i = quickField(b, i, 0x18)
	return i == len(b) && s.Term != 0
}

// quickField decodes a varint field at i. It returns an index beyond b's end
// when there is none, which every later call passes on.
func quickField(b []byte, i int, tag byte) (uint64, int) {
	if i+1 >= len(b) || b[i] != tag {
		return 0, len(b) + 1
	}
	if c := b[i+1]; c < 0x80 {
		return uint64(c), i + 2
	}
	v, used := binary.Uvarint(b[i+1:])
	if used <= 0 {
		return 0, len(b) + 1
	}
	return v, i + 1 + used
}
