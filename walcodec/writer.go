package walcodec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Framing is how a Writer frames records.
type Framing int

// The framings.
const (
	FramingPadded Framing = iota // etcd 3.0 and later
	FramingPlain                 // etcd 2.0 to 2.3, which cannot read the other
)

// WriterOptions says how a Writer writes. The zero value starts a new log as
// etcd 3 does.
type WriterOptions struct {
	CRC     uint32 // running checksum to go on from
	Framing Framing
}

// A Writer frames records and keeps the running checksum. It calls the
// underlying Write once or, for large records, a few times per record and does
// not buffer beyond that.
type Writer struct {
	w       io.Writer
	framing Framing
	crc     uint32
	size    int64
	buf     []byte
	direct  int // size of data from which on it is not copied next to its frame
	err     error
}

// NewWriter returns a Writer that appends records to w. What it writes is a
// segment if the first record is KindCRC and the second KindMetadata.
func NewWriter(w io.Writer, o WriterOptions) *Writer {
	return &Writer{w: w, framing: o.Framing, crc: o.CRC, direct: directSize}
}

// CRC returns the running checksum after the last record.
func (w *Writer) CRC() uint32 { return w.crc }

// Size returns how many bytes were written.
func (w *Writer) Size() int64 { return w.size }

// From these sizes on, data is written by a call of its own and not first
// copied: to a file, where a call is dear, and to a buffer.
const (
	directSize         = 64 << 10
	bufferedDirectSize = 256
)

// Write frames one record. A record of KindCRC has no data and carries the
// running checksum; every other kind has data, which may be empty. After a
// failed write every Write returns that error.
func (w *Writer) Write(k Kind, data []byte) error {
	if w.err != nil {
		return w.err
	}
	if err := writable(k, data); err != nil {
		return err
	}
	crc := crc32.Update(w.crc, castagnoli, data)
	f := w.frame(k, crc, len(data))
	if w.err = w.emit(f, k, crc, data); w.err != nil {
		w.err = fmt.Errorf("write %s record at offset %d: %w", k, w.size, w.err)
		return w.err
	}
	w.crc = crc
	w.size += f.size()
	return nil
}

func writable(k Kind, data []byte) error {
	if !k.known() {
		return fmt.Errorf("write record: unknown %s", k)
	}
	if k == KindCRC && len(data) > 0 {
		return errors.New("write crc record: it cannot have data")
	}
	return nil
}

func (w *Writer) frame(k Kind, crc uint32, data int) frame {
	f := frame{n: int64(headerLen(k, crc, data) + data)}
	if w.framing == FramingPadded {
		f.pad = padding(f.n)
	}
	return f
}

func (w *Writer) emit(f frame, k Kind, crc uint32, data []byte) error {
	w.buf = binary.LittleEndian.AppendUint64(w.buf[:0], lengthWord(f))
	w.buf = appendHeader(w.buf, k, crc, len(data))
	if len(data) >= w.direct {
		return w.emitParts(f, data)
	}
	w.buf = append(w.buf, data...)
	w.buf = append(w.buf, zeroBlock[:f.pad]...)
	_, err := w.w.Write(w.buf)
	return err
}

func (w *Writer) emitParts(f frame, data []byte) error {
	for _, part := range [...][]byte{w.buf, data, zeroBlock[:f.pad]} {
		if _, err := w.w.Write(part); err != nil {
			return err
		}
	}
	return nil
}
