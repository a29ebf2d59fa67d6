package walcodec

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"time"
)

// judge turns a fault into the error that Next reports, or finds that there is
// none: a member that is running may have written the record since it was
// read. Other errors pass.
func (r *Reader) judge(err error) (Record, error) {
	var f *fault
	if !errors.As(err, &f) {
		return Record{}, err
	}
	last := r.o.Last && !errors.Is(f.cause, ErrRecordTooLarge)
	if last && r.canLookAgain() {
		var rec Record
		if rec, err = r.lookAgain(f); !errors.As(err, &f) {
			return rec, err
		}
	}
	r.fault = f
	if last && r.torn(f) {
		return Record{}, &TornError{r.o.Segment, r.good, f.cause}
	}
	return Record{}, &CorruptError{r.o.Segment, r.good, f.cause}
}

// canLookAgain tells whether the source can be read twice. A pipe says that it
// is an io.ReaderAt, and is not.
func (r *Reader) canLookAgain() bool {
	if r.at == nil {
		return false
	}
	if _, err := r.at.ReadAt(make([]byte, 1), r.good); err != nil && err != io.EOF {
		r.at = nil
	}
	return r.at != nil
}

// lookAgainAfter is how long lookAgain waits before each look: a member's copy
// of a record into the page cache takes microseconds, unless it is suspended
// in the midst of it.
var lookAgainAfter = [...]time.Duration{0, 10 * time.Millisecond}

// lookAgain reads the faulty frame anew. Zeros may have become records while
// the rest of the file was searched for more than zeros; a record may have
// been caught half copied. A frame that changed under our eyes and still does
// not decode was cut short by its writer, not by damage.
func (r *Reader) lookAgain(f *fault) (Record, error) {
	moving := false
	for _, wait := range lookAgainAfter {
		seen := r.fingerprint(f)
		time.Sleep(wait)
		r.rewind()
		rec, err := r.decode()
		if !errors.As(err, &f) {
			return rec, err
		}
		moving = moving || seen != r.fingerprint(f)
	}
	f.cut = f.cut || moving
	return Record{}, f
}

// fingerprint sums up the frame of a fault as far as it is in the buffer.
func (r *Reader) fingerprint(f *fault) uint32 {
	if f.zeros > 0 {
		return 0
	}
	seen := r.buf[r.pos:r.end]
	if size := max(f.size, lengthSize+maxHeader); size < int64(len(seen)) {
		seen = seen[:size]
	}
	return crc32.Checksum(seen, castagnoli)
}

// rewind goes back to the end of the last good record.
func (r *Reader) rewind() { r.seek(r.good) }

func (r *Reader) seek(offset int64) {
	r.src = io.NewSectionReader(r.at, offset, math.MaxInt64-offset)
	r.srcErr = nil
	r.base, r.pos, r.end = offset, 0, 0
}

// torn tells whether a fault in the last segment is what a crash, or a writer
// at work, leaves: the file ends within the frame; or disk sectors of it were
// never written, and nothing shows that they once were.
func (r *Reader) torn(f *fault) bool {
	if f.cut {
		return true
	}
	return r.unwritten(f) && !r.syncedAfter(f)
}

// unwritten tells whether a sector's share of the frame is all zero: etcd's
// mark of a torn write (isTornEntry in wal/decoder.go, 3.0 and later). Shares
// that hold padding only do not count, since they are zero anyway. For a zero
// length word the zeros must reach the sector's end: within one sector, a disk
// writes all or nothing.
func (r *Reader) unwritten(f *fault) bool {
	if f.zeros > 0 {
		return f.zeros >= sectorSize-r.good%sectorSize
	}
	r.fill(int(r.extent(f)))
	have := r.buf[r.pos:min(r.end, r.pos+int(r.extent(f)))]
	if len(have) <= lengthSize {
		return false
	}
	return zeroSector(have[lengthSize:], r.good+lengthSize)
}

// extent returns how much of a faulty frame may be searched for unwritten
// sectors, in bytes: all of it, if its header confirms its length; else the
// sectors of the header, as a damaged length word reaches into anything.
func (r *Reader) extent(f *fault) int64 {
	if f.framed {
		return min(f.size, r.o.limit())
	}
	header := r.good + lengthSize + maxHeader
	sectors := header + (-header & (sectorSize - 1)) - r.good
	return min(f.size, sectors)
}

// zeroSector tells whether one of the sectors that b covers, at that offset of
// its file, has only zeros in b. Up to 7 bytes at the end may be padding.
func zeroSector(b []byte, offset int64) bool {
	for len(b) > 7 {
		n := min(sectorSize-offset%sectorSize, int64(len(b)))
		if allZero(b[:n]) {
			return true
		}
		b, offset = b[n:], offset+n
	}
	return false
}

// syncedAfter tells whether records after a fault prove that the faulty bytes
// were once whole on disk, so that they are lost data, not a torn write. A
// source that cannot be read twice is taken to be corrupt if any intact record
// follows.
func (r *Reader) syncedAfter(f *fault) bool {
	if r.at == nil {
		return r.seekIntact(f)
	}
	look := &Reader{o: ReaderOptions{MaxRecord: r.o.MaxRecord}, at: r.at, buf: make([]byte, bufferSize)}
	look.good, look.padded, look.fault = r.good, r.padded, f
	look.seek(r.good + max(0, f.zeros-lengthSize))
	var after batch
	if f.framed && after.add(f.header.kind) {
		return true
	}
	for look.fault != nil {
		if _, err := look.Resync(); err != nil {
			return false
		}
		if after.follow(look) {
			return true
		}
	}
	return false
}

// batch follows the kinds of records as far as they can be one unsynced write.
// etcd syncs after each save that has entries or a new term or vote, and after
// each snapshot record (WAL.Save, WAL.SaveSnapshot in wal/wal.go): so what was
// never synced is hard states, then one save: entries and a hard state, or one
// snapshot record.
type batch int

const (
	batchStates batch = iota
	batchEntries
	batchDone
)

// add tells whether the record shows that those before it had been synced.
func (b *batch) add(k Kind) bool {
	switch {
	case *b == batchDone:
		return true
	case k == KindEntry:
		*b = batchEntries
	case k == KindState && *b == batchStates:
	case k == KindState, k == KindSnapshot && *b == batchStates:
		*b = batchDone
	default:
		return true
	}
	return false
}

// follow adds the records up to the next fault.
func (b *batch) follow(r *Reader) bool {
	for {
		rec, err := r.Next()
		if err != nil {
			return false
		}
		if b.add(rec.Kind) {
			return true
		}
	}
}

// A Skip is a stretch of a segment that was not read.
type Skip struct {
	Segment string // file name
	Offset  int64  // of the first byte left out
	Len     int64  // bytes
	Cause   error  // the error that Next had returned
}

// Resync goes on behind damage or a torn write: it looks for the next frame
// that can be trusted, and returns what it left out. Next then returns that
// frame's record, or io.EOF if there is none. A frame is trusted if its
// framing and payload hold, and its checksum builds on that of the damaged
// record or carries the record after it. It is an error to call it when Next
// did not end with an error matching ErrTorn or a *CorruptError.
func (r *Reader) Resync() (Skip, error) {
	if r.fault == nil {
		return Skip{}, errors.New("resync: the reader is not at damage")
	}
	skip := Skip{Segment: r.o.Segment, Offset: r.good, Cause: r.err}
	r.err = nil
	if !r.seekIntact(r.fault) {
		r.err = io.EOF
		if r.srcFailed() {
			r.err = r.readError()
			return skip, r.err
		}
	}
	r.fault = nil
	skip.Len = r.offset() - skip.Offset
	r.good = r.offset()
	return skip, nil
}

// seekIntact moves to the next frame after a fault that can be trusted, and
// sets the checksum that it builds on, if that is known. It moves to the end
// when there is none.
func (r *Reader) seekIntact(f *fault) bool {
	r.resumed = true
	switch {
	case f.framed:
		r.discard(f.size)
		r.crc, r.blind = f.header.crc, false
		if r.intact() {
			return true
		}
	case f.zeros == 0:
		r.discard(1)
	}
	r.blind = true
	return r.scan()
}

// discard moves n bytes on, or to the end.
func (r *Reader) discard(n int64) {
	for n > 0 && r.fill(1) {
		step := min(n, int64(r.end-r.pos))
		r.pos += int(step)
		n -= step
	}
}

// scan looks for an intact frame at every byte: files that 2.x began are not
// aligned.
func (r *Reader) scan() bool {
	const window = lengthSize + 4
	for r.fill(window) {
		i := bytes.IndexByte(r.buf[r.pos+lengthSize:r.end], 0x08)
		if i < 0 {
			r.pos = r.end - lengthSize
			continue
		}
		r.pos += i
		if r.intact() {
			return true
		}
		r.pos++
	}
	r.pos = r.end
	return false
}

// intact tells whether a trustworthy frame is at the current position.
func (r *Reader) intact() bool {
	h, size, ok := r.frameAt(0)
	if !ok {
		return false
	}
	data := r.payload(0, h)
	if checkPayload(h.kind, data, new(Entry), new(HardState)) != nil {
		return false
	}
	if !r.blind {
		return crc32.Update(r.crc, castagnoli, data) == h.crc
	}
	next, _, ok := r.frameAt(size)
	if !ok {
		return r.endsAt(size)
	}
	return crc32.Update(h.crc, castagnoli, r.payload(size, next)) == next.crc
}

// frameAt decodes the frame that is skip bytes ahead, as far as its form goes.
func (r *Reader) frameAt(skip int) (h header, size int, ok bool) {
	if !r.fill(skip + lengthSize) {
		return h, 0, false
	}
	f, err := parseFrame(r.word(skip))
	if err != nil || f.n == 0 || f.n > r.o.limit() {
		return h, 0, false
	}
	skip += lengthSize
	want := int(min(f.n, maxHeader))
	if !r.fill(skip + want) {
		return h, 0, false
	}
	h, err = parseHeader(r.buf[r.pos+skip:r.pos+skip+want], f.n)
	if err != nil || !r.fill(skip+int(f.n+f.pad)) {
		return h, 0, false
	}
	end := r.pos + skip + int(f.n)
	return h, int(f.size()), allZero(r.buf[end : end+int(f.pad)])
}

func (r *Reader) payload(skip int, h header) []byte {
	start := r.pos + skip + lengthSize + h.size
	return r.buf[start : start+int(h.data)]
}

// endsAt tells whether the log ends so many bytes ahead.
func (r *Reader) endsAt(skip int) bool {
	if r.fill(skip + lengthSize) {
		return r.word(skip) == 0
	}
	return r.end-r.pos == skip
}
