package walcodec

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Wire types of protobuf, the low three bits of a tag.
const (
	wireVarint = 0
	wireFixed8 = 1
	wireBytes  = 2
	wireFixed4 = 5
)

// fields walks the fields of a protobuf message in place.
//
//	for f := fieldsOf(data); f.next(); {
//		switch f.tag {
//		case 1<<3 | wireVarint:
//
// The loop ends at the message's end or at the first malformed field, told
// apart by err.
type fields struct {
	rest []byte
	tag  uint64 // number<<3 | wire type
	num  uint64 // value of a varint or fixed field
	data []byte // value of a bytes field, aliasing the message
	err  error
}

func fieldsOf(message []byte) fields { return fields{rest: message} }

func (f *fields) next() bool {
	if len(f.rest) == 0 || f.err != nil {
		return false
	}
	if f.tag, f.err = f.varint(); f.err != nil {
		return false
	}
	if f.tag>>3 == 0 || f.tag>>3 > 1<<29-1 {
		f.err = fmt.Errorf("field number %d", f.tag>>3)
		return false
	}
	f.err = f.value()
	return f.err == nil
}

func (f *fields) value() (err error) {
	switch f.tag & 7 {
	case wireVarint:
		f.num, err = f.varint()
	case wireBytes:
		var n uint64
		if n, err = f.varint(); err != nil {
			return err
		}
		if n > uint64(len(f.rest)) {
			return f.fail(fmt.Sprintf("%d bytes with %d left", n, len(f.rest)))
		}
		f.data, f.rest = f.rest[:n:n], f.rest[n:]
	case wireFixed8:
		err = f.fixed(8)
	case wireFixed4:
		err = f.fixed(4)
	default:
		err = f.fail(fmt.Sprintf("wire type %d", f.tag&7))
	}
	return err
}

func (f *fields) fixed(n int) error {
	if len(f.rest) < n {
		return f.fail("cut short")
	}
	f.num = 0
	for i := n - 1; i >= 0; i-- {
		f.num = f.num<<8 | uint64(f.rest[i])
	}
	f.rest = f.rest[n:]
	return nil
}

var errFieldCut = errors.New("message cut short or varint over 64 bits")

func (f *fields) varint() (uint64, error) {
	if len(f.rest) > 0 && f.rest[0] < 0x80 {
		v := uint64(f.rest[0])
		f.rest = f.rest[1:]
		return v, nil
	}
	v, n := binary.Uvarint(f.rest)
	if n <= 0 {
		return 0, errFieldCut
	}
	f.rest = f.rest[n:]
	return v, nil
}

func (f *fields) fail(why string) error {
	return fmt.Errorf("field %d: %s", f.tag>>3, why)
}

// unknown is the error for a field that the message does not have.
func (f *fields) unknown() error {
	return fmt.Errorf("unknown field %d of wire type %d", f.tag>>3, f.tag&7)
}

func appendUint(dst []byte, field int, v uint64) []byte {
	dst = binary.AppendUvarint(dst, uint64(field)<<3|wireVarint)
	return binary.AppendUvarint(dst, v)
}

func appendBool(dst []byte, field int, v bool) []byte {
	if v {
		return appendUint(dst, field, 1)
	}
	return appendUint(dst, field, 0)
}

func appendBytes[T string | []byte](dst []byte, field int, v T) []byte {
	dst = binary.AppendUvarint(dst, uint64(field)<<3|wireBytes)
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	return append(dst, v...)
}
