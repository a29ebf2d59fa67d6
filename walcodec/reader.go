package walcodec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// DefaultMaxRecord is the largest record that a Reader takes unless told
// otherwise, in bytes. etcd itself proposes 1.5 MiB at most by default and
// advises against more than 10 MiB (--max-request-bytes).
const DefaultMaxRecord = 32 << 20

// bufferSize is what a Reader asks its source for at a time: large enough for
// few calls, small enough to checksum from the processor's cache.
const bufferSize = 256 << 10

// ReaderOptions says what a Reader reads. The zero value reads a segment that
// another one follows.
type ReaderOptions struct {
	Segment   string // file name, for errors
	Last      bool   // the last segment of its log: only there can a write be torn
	MaxRecord int64  // largest record, bytes; 0 means DefaultMaxRecord
}

func (o ReaderOptions) limit() int64 {
	if o.MaxRecord > 0 {
		return o.MaxRecord
	}
	return DefaultMaxRecord
}

// A Reader reads the records of one segment in order.
//
//	r := walcodec.NewReader(f, walcodec.ReaderOptions{Segment: name})
//	for {
//		rec, err := r.Next()
//		if err == io.EOF {
//			break
//		}
type Reader struct {
	o    ReaderOptions
	src  io.Reader
	at   io.ReaderAt // src again, nil when it cannot be read twice
	buf  []byte
	base int64 // offset of buf[0] in the segment
	pos  int   // buf[pos:end] is read and not yet decoded
	end  int
	good int64 // where the last good record ends

	crc     uint32
	records int       // good ones so far
	padded  bool      // a padded frame was seen
	meta    bool      // the metadata record was seen
	resumed bool      // damage was skipped: what a segment opens with may be lost
	blind   bool      // crc is not known: the next record's is taken as it is
	entry   Entry     // the last one
	state   HardState // the last one

	srcErr error  // what src ended with
	err    error  // what Next ended with
	fault  *fault // what made err
	zeros  int64  // after the last record
}

// NewReader returns a reader of one segment; src stands at its first byte. If
// src is an io.ReaderAt too, the Reader looks at a doubtful end of a last
// segment again through it: then it can tell records that are just being
// written from damage, and unsynced remains of a crash from lost data.
func NewReader(src io.Reader, o ReaderOptions) *Reader {
	r := &Reader{}
	r.reset(src, o)
	return r
}

// reset starts over on another segment, with the same buffer.
func (r *Reader) reset(src io.Reader, o ReaderOptions) {
	at, _ := src.(io.ReaderAt)
	*r = Reader{o: o, src: src, at: at, buf: r.buf}
	if r.buf == nil {
		r.buf = make([]byte, bufferSize)
	}
}

// CRC returns the running checksum after the last record.
func (r *Reader) CRC() uint32 { return r.crc }

// Offset returns where the last good record ends, in bytes.
func (r *Reader) Offset() int64 { return r.good }

func (r *Reader) offset() int64 { return r.base + int64(r.pos) }

// Zeros returns, after io.EOF, how many zero bytes follow the last record.
func (r *Reader) Zeros() int64 { return r.zeros }

// Next returns the next record. It ends with io.EOF at the segment's end or
// where only zeros are left, an error matching ErrTorn, a *CorruptError, or
// the wrapped error of the source; and stays there, unless Resync is called.
func (r *Reader) Next() (rec Record, err error) {
	err = r.next(&rec)
	return rec, err
}

func (r *Reader) next(rec *Record) error {
	if r.err == nil && r.quick(rec) {
		return nil
	}
	if r.err == nil {
		*rec, r.err = r.decode()
	}
	if r.err != nil && r.fault == nil {
		*rec, r.err = r.judge(r.err)
	}
	return r.err
}

// A fault is why the bytes at the current position are not a record.
type fault struct {
	cause  error
	cut    bool   // the source ended first
	zeros  int64  // the length word is zero, so many zeros come before other bytes
	size   int64  // what the length word claims for the frame, 0 when it is senseless
	framed bool   // length word and header agree on it
	header header // when framed
}

func (f *fault) Error() string { return f.cause.Error() }

// decode returns the record at the current position and moves behind it, or
// stays and returns io.EOF, a *fault or a read error.
func (r *Reader) decode() (Record, error) {
	if !r.fill(lengthSize) {
		return Record{}, r.decodeEnd()
	}
	word := r.word(0)
	if word == 0 {
		return Record{}, r.decodeZeros()
	}
	f, err := parseFrame(word)
	if err != nil {
		return Record{}, &fault{cause: err}
	}
	h, err := r.header(f)
	if err != nil {
		return Record{}, err
	}
	if !r.fill(int(f.size())) {
		return Record{}, r.cutShort(f.size())
	}
	return r.body(f, h)
}

// header decodes the record's header before the record is waited for, so that
// a damaged length word makes nobody read and hold what it asks for.
func (r *Reader) header(f frame) (header, error) {
	want := int(min(f.n, maxHeader))
	full := r.fill(lengthSize + want)
	if r.srcFailed() {
		return header{}, r.readError()
	}
	b := r.buf[r.pos+lengthSize : min(r.end, r.pos+lengthSize+want)]
	h, err := parseHeader(b, f.n)
	switch {
	case err == nil:
	case !full && (errors.Is(err, errHeaderCut) || errors.Is(err, errVarintCut) || allZero(b)):
		return header{}, r.cutShort(f.size())
	default:
		return header{}, &fault{cause: err, size: f.size()}
	}
	if f.n > r.o.limit() {
		err = fmt.Errorf("%w: %d bytes, limit %d", ErrRecordTooLarge, f.n, r.o.limit())
		return header{}, &fault{cause: err, size: f.size(), framed: true, header: h}
	}
	return h, nil
}

func (r *Reader) body(f frame, h header) (Record, error) {
	whole := r.buf[r.pos : r.pos+int(f.size())]
	rec := Record{
		Kind:   h.kind,
		CRC:    h.crc,
		Offset: r.offset(),
		Len:    f.size(),
		Padded: f.pad != 0 || r.padded && f.n%8 == 0,
	}
	if h.kind != KindCRC {
		rec.Data = whole[lengthSize+h.size : lengthSize+f.n : lengthSize+f.n]
	}
	crc, err := r.check(rec)
	if err == nil {
		err = r.checkFrame(rec, whole[lengthSize+f.n:])
	}
	if err != nil {
		return Record{}, &fault{cause: err, size: f.size(), framed: true, header: h}
	}
	r.accept(&rec, crc)
	return rec, nil
}

// check compares the checksum and the shape of the payload.
func (r *Reader) check(rec Record) (uint32, error) {
	crc := crc32.Update(r.crc, castagnoli, rec.Data)
	if crc != rec.CRC && !r.adopts(rec.Kind) {
		return 0, fmt.Errorf("%s record: checksum %08x, want %08x", rec.Kind, rec.CRC, crc)
	}
	if err := checkPayload(rec.Kind, rec.Data, &r.entry, &r.state); err != nil {
		return 0, fmt.Errorf("%s record: %w", rec.Kind, err)
	}
	return rec.CRC, r.checkPlace(rec.Kind)
}

// adopts tells whether a record's checksum is taken without a value to compare
// it to: that of the crc record that opens a segment, and of the record after
// skipped damage.
func (r *Reader) adopts(k Kind) bool {
	return r.blind || r.records == 0 && !r.resumed && k == KindCRC
}

// checkPlace holds the opening of a segment in place: crc record, then
// metadata, which comes only once (WAL.Create and WAL.cut in wal/wal.go).
func (r *Reader) checkPlace(k Kind) error {
	switch {
	case r.resumed && !(r.meta && k == KindMetadata):
		return nil
	case r.records == 0 && k != KindCRC:
		return fmt.Errorf("%s record where a segment opens with a crc record", k)
	case r.records == 1 && k != KindMetadata:
		return fmt.Errorf("%s record where a segment has its metadata", k)
	case r.records > 1 && k == KindMetadata:
		return errors.New("second metadata record in a segment")
	}
	return nil
}

// checkFrame wants zeros for padding, and padding after every record once the
// writer pads: 3.x goes on in a file of 2.x, never the other way.
func (r *Reader) checkFrame(rec Record, pad []byte) error {
	if len(bytes.TrimLeft(pad, "\x00")) != 0 {
		return fmt.Errorf("%s record: padding % x is not zero", rec.Kind, pad)
	}
	if r.padded && !rec.Padded {
		return fmt.Errorf("%s record: not padded, unlike those before it", rec.Kind)
	}
	return nil
}

func (r *Reader) accept(rec *Record, crc uint32) {
	rec.Unproven = r.blind
	r.blind = false
	r.crc = crc
	r.records++
	r.padded = r.padded || rec.Padded
	r.meta = r.meta || rec.Kind == KindMetadata
	r.pos += int(rec.Len)
	r.good = rec.End()
}

// decodeEnd judges fewer bytes than a length word.
func (r *Reader) decodeEnd() error {
	switch {
	case r.srcFailed():
		return r.readError()
	case r.records == 0 && !r.resumed:
		return &fault{cause: errors.New("segment without a record"), cut: true}
	case allZero(r.buf[r.pos:r.end]):
		r.zeros = int64(r.end - r.pos)
		return io.EOF
	}
	return &fault{cause: fmt.Errorf("%d bytes where a length word has 8", r.end-r.pos), cut: true}
}

// decodeZeros judges a zero length word: preallocated space if zeros are all
// that is left. It reads on to know, and lets go of zeros on the way.
func (r *Reader) decodeZeros() error {
	start := r.offset()
	for {
		n := leadingZeros(r.buf[r.pos:r.end])
		if r.pos+n < r.end {
			return &fault{cause: errZeroLength, zeros: r.offset() + int64(n) - start}
		}
		r.pos = r.end
		if r.fill(1) {
			continue
		}
		return r.zerosToEnd(r.offset() - start)
	}
}

var errZeroLength = errors.New("zero length word, and other bytes after it")

func (r *Reader) zerosToEnd(n int64) error {
	switch {
	case r.srcFailed():
		return r.readError()
	case r.records == 0 && !r.resumed:
		return &fault{cause: errors.New("segment of zeros"), cut: true}
	}
	r.zeros = n
	return io.EOF
}

func (r *Reader) cutShort(size int64) error {
	if r.srcFailed() {
		return r.readError()
	}
	have := r.end - r.pos
	return &fault{cause: fmt.Errorf("%d bytes of a frame of %d", have, size), cut: true, size: size}
}

func (r *Reader) srcFailed() bool { return r.srcErr != nil && r.srcErr != io.EOF }

func (r *Reader) readError() error {
	return fmt.Errorf("%s: read: %w", place(r.o.Segment, r.offset()), r.srcErr)
}

// fill makes n bytes available from the current position on, and tells
// whether there are so many.
func (r *Reader) fill(n int) bool {
	if r.end-r.pos >= n {
		return true
	}
	return r.fillSlow(n)
}

func (r *Reader) fillSlow(n int) bool {
	if r.pos+n > len(r.buf) {
		r.base += int64(r.pos)
		r.end = copy(r.buf, r.buf[r.pos:r.end])
		r.pos = 0
	}
	for r.end-r.pos < n && r.srcErr == nil {
		if r.end == len(r.buf) {
			r.grow(n)
		}
		r.readOnce()
	}
	return r.end-r.pos >= n
}

// maxEmptyReads is how often in a row a source may return nothing.
const maxEmptyReads = 100

func (r *Reader) readOnce() {
	for range maxEmptyReads {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		r.srcErr = err
		if n > 0 || err != nil {
			return
		}
	}
	r.srcErr = io.ErrNoProgress
}

// grow doubles a full buffer, at most to the n bytes wanted.
func (r *Reader) grow(n int) {
	buf := make([]byte, min(2*len(r.buf), max(n, bufferSize)))
	copy(buf, r.buf[:r.end])
	r.buf = buf
}

func (r *Reader) word(skip int) uint64 {
	return binary.LittleEndian.Uint64(r.buf[r.pos+skip:])
}

// allZero tells whether b holds zeros only.
func allZero(b []byte) bool { return leadingZeros(b) == len(b) }

var zeroBlock [4096]byte

// leadingZeros counts the zero bytes that b starts with.
func leadingZeros(b []byte) int {
	n := 0
	for len(b)-n >= len(zeroBlock) && bytes.Equal(b[n:n+len(zeroBlock)], zeroBlock[:]) {
		n += len(zeroBlock)
	}
	for n < len(b) && b[n] == 0 {
		n++
	}
	return n
}
