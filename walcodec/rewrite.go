package walcodec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// SegmentSize is from what size on etcd cuts a segment, in bytes
// (SegmentSizeBytes in wal/wal.go: 64 MB, not MiB).
const SegmentSize = 64_000_000

// A SegmentCreator makes the files that a LogWriter fills. Close of the file
// is the last call for it; durability is up to the creator.
type SegmentCreator interface {
	CreateSegment(name string) (io.WriteCloser, error)
}

// LogWriterOptions says how a LogWriter writes. The zero value starts a log at
// segment 0 as etcd 3 does.
type LogWriterOptions struct {
	Seq         uint64 // of the first segment
	Index       uint64 // in the first segment's name
	Framing     Framing
	SegmentSize int64 // cut from this size on, bytes; 0 means SegmentSize
}

// A LogWriter writes a whole log, cutting segments as etcd does: each opens
// with a crc record, the metadata and the last hard state. It can be handed to
// [Rewrite], written to record by record, or both. Close it.
type LogWriter struct {
	dst      SegmentCreator
	o        LogWriterOptions
	metadata []byte
	state    []byte // payload of the last state record
	file     io.WriteCloser
	buf      *bufio.Writer
	w        *Writer
	segment  Segment
	last     uint64 // index that the next segment's name follows
	size     int64  // of the segments before this one
	scratch  []byte
	err      error
}

// NewLogWriter creates the first segment.
func NewLogWriter(dst SegmentCreator, m Metadata, o LogWriterOptions) (*LogWriter, error) {
	if o.SegmentSize <= 0 {
		o.SegmentSize = SegmentSize
	}
	w := &LogWriter{dst: dst, o: o, metadata: AppendMetadata(nil, m)}
	w.buf = bufio.NewWriterSize(nil, bufferSize)
	if err := w.open(o.Seq, o.Index, 0); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *LogWriter) open(seq, index uint64, crc uint32) error {
	w.segment = Segment{Name: SegmentName(seq, index), Seq: seq, Index: index}
	file, err := w.dst.CreateSegment(w.segment.Name)
	if err != nil {
		return fmt.Errorf("create segment %s: %w", w.segment.Name, err)
	}
	w.file = file
	w.buf.Reset(file)
	w.w = NewWriter(w.buf, WriterOptions{CRC: crc, Framing: w.o.Framing})
	w.w.direct = bufferedDirectSize
	if err := w.put(KindCRC, nil); err != nil {
		return err
	}
	if err := w.put(KindMetadata, w.metadata); err != nil {
		return err
	}
	if w.state == nil {
		return nil
	}
	return w.put(KindState, w.state)
}

func (w *LogWriter) put(k Kind, data []byte) error {
	if err := w.w.Write(k, data); err != nil {
		return fmt.Errorf("segment %s: %w", w.segment.Name, err)
	}
	return nil
}

// Segment returns the segment being written, Size being what it holds so far.
func (w *LogWriter) Segment() Segment {
	s := w.segment
	s.Size = w.w.Size()
	return s
}

// Size returns how many bytes were written to all segments.
func (w *LogWriter) Size() int64 { return w.size + w.w.Size() }

// Write appends an entry, state or snapshot record with this payload. After an
// error every Write returns it.
func (w *LogWriter) Write(k Kind, data []byte) error {
	if w.err == nil {
		w.err = w.write(k, data)
	}
	return w.err
}

func (w *LogWriter) write(k Kind, data []byte) error {
	if k != KindState && w.w.Size() >= w.o.SegmentSize {
		if err := w.cut(); err != nil {
			return err
		}
	}
	if err := w.note(k, data); err != nil {
		return err
	}
	return w.put(k, data)
}

// note keeps what the next segment's opening needs.
func (w *LogWriter) note(k Kind, data []byte) error {
	switch k {
	case KindEntry:
		var e Entry
		if quickEntry(data, &e) {
			w.last = e.Index
			return nil
		}
		e, err := ParseEntry(data)
		w.last = e.Index
		return err
	case KindSnapshot:
		s, err := ParseSnapshot(data)
		w.last = max(w.last, s.Index)
		return err
	case KindState:
		w.state = append(w.state[:0], data...)
		return nil
	}
	return fmt.Errorf("write log: a %s record is not for the caller to write", k)
}

func (w *LogWriter) cut() error {
	crc, size := w.w.CRC(), w.w.Size()
	if err := w.finish(); err != nil {
		return err
	}
	w.size += size
	return w.open(w.segment.Seq+1, w.last+1, crc)
}

func (w *LogWriter) finish() error {
	file := w.file
	if file == nil {
		return nil
	}
	w.file = nil
	err := w.buf.Flush()
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("segment %s: %w", w.segment.Name, err)
	}
	return nil
}

// WriteEntry appends an entry record.
func (w *LogWriter) WriteEntry(e Entry) error {
	w.scratch = AppendEntry(w.scratch[:0], e)
	return w.Write(KindEntry, w.scratch)
}

// WriteHardState appends a state record.
func (w *LogWriter) WriteHardState(s HardState) error {
	w.scratch = AppendHardState(w.scratch[:0], s)
	return w.Write(KindState, w.scratch)
}

// WriteSnapshot appends a snapshot record.
func (w *LogWriter) WriteSnapshot(s Snapshot) error {
	w.scratch = AppendSnapshot(w.scratch[:0], s)
	return w.Write(KindSnapshot, w.scratch)
}

// Close writes what is buffered and closes the last file. It returns the first
// error that any call met.
func (w *LogWriter) Close() error {
	err := w.finish()
	if w.err != nil {
		return w.err
	}
	w.err = errors.New("write log: closed")
	return err
}

// RewriteOptions says what a copy changes. The zero value changes nothing.
type RewriteOptions struct {
	// LastIndex leaves out entries and snapshot records above it and holds
	// the commit of hard states at it. 0 means no limit.
	LastIndex uint64

	// AfterIndex leaves out entries up to it: those that a snapshot covers.
	AfterIndex uint64

	// Overwritten, if set, leaves out the entries that it knows to be
	// replaced: then indexes rise by one from entry to entry.
	Overwritten *Overwrites

	// Entry returns what to write for an entry: as it came, it is copied byte
	// for byte. Its index and term must stay. Its Data must not be kept.
	Entry func(Entry) (Entry, error)

	// HardState returns what to write for a hard state.
	HardState func(HardState) HardState

	// KeepSnapshot tells whether to copy a snapshot record.
	KeepSnapshot func(Snapshot) bool
}

// NoOp returns an entry without data at the same term and index: what a new
// leader appends, and what every version takes and ignores.
func NoOp(e Entry) Entry { return Entry{Type: EntryNormal, Term: e.Term, Index: e.Index} }

// A RewriteResult tells what was copied.
type RewriteResult struct {
	Counts     Counts // of records written for the source's
	FirstIndex uint64 // of the first entry written, 0 when there is none
	LastIndex  uint64 // of the last entry written
	LastTerm   uint64
	Replaced   int64     // entries that Entry changed
	Dropped    int64     // entries left out
	HardState  HardState // the last one written
	End        Position  // in the source, of the last record read
	Torn       error     // matches ErrTorn when the source's tail is torn
}

// Rewrite copies the records of l to w, in one pass and with memory for one
// record. The checksums are computed anew; the source's segment openings give
// way to those of w. A torn tail ends the source; damage is an error. The
// caller may append to w before it closes it.
func Rewrite(w *LogWriter, l *Log, o RewriteOptions) (RewriteResult, error) {
	c := copier{w: w, l: l, o: o}
	err := c.run()
	c.res.End = l.Position()
	return c.res, err
}

type copier struct {
	w   *LogWriter
	l   *Log
	o   RewriteOptions
	res RewriteResult

	opening bool   // the last record was a segment's metadata
	state   []byte // payload of the source's last state record
}

func (c *copier) run() error {
	for {
		rec, err := c.l.Next()
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, ErrTorn):
			c.res.Torn = err
			return nil
		case err != nil:
			return err
		}
		if err := c.record(rec); err != nil {
			return fmt.Errorf("rewrite %s: %w", place(c.l.Segment().Name, rec.Offset), err)
		}
	}
}

func (c *copier) record(rec Record) error {
	opening := c.opening
	c.opening = rec.Kind == KindMetadata
	switch rec.Kind {
	case KindEntry:
		return c.entry(rec)
	case KindState:
		if opening && bytes.Equal(c.state, rec.Data) {
			return nil
		}
		c.state = append(c.state[:0], rec.Data...)
		return c.hardState(rec)
	case KindSnapshot:
		return c.snapshot(rec)
	}
	return nil
}

func (c *copier) entry(rec Record) error {
	e := c.l.r.entry
	if c.drops(e, rec) {
		c.res.Dropped++
		return nil
	}
	if c.res.FirstIndex == 0 {
		c.res.FirstIndex = e.Index
	}
	c.res.LastIndex, c.res.LastTerm = e.Index, e.Term
	c.res.Counts.Entry++
	if c.o.Entry == nil {
		return c.w.Write(KindEntry, rec.Data)
	}
	return c.mapped(e, rec)
}

func (c *copier) drops(e Entry, rec Record) bool {
	if e.Index <= c.o.AfterIndex {
		return true
	}
	if c.o.LastIndex != 0 && e.Index > c.o.LastIndex {
		return true
	}
	return c.o.Overwritten != nil && c.o.Overwritten.Discards(Position{c.l.Segment().Seq, rec.Offset}, e.Index)
}

func (c *copier) mapped(e Entry, rec Record) error {
	to, err := c.o.Entry(e)
	switch {
	case err != nil:
		return fmt.Errorf("entry %d: %w", e.Index, err)
	case to.Index != e.Index || to.Term != e.Term:
		return fmt.Errorf("entry %d of term %d: replacement has index %d, term %d", e.Index, e.Term, to.Index, to.Term)
	case to.Type == e.Type && (to.Data == nil) == (e.Data == nil) && bytes.Equal(to.Data, e.Data):
		return c.w.Write(KindEntry, rec.Data)
	}
	c.res.Replaced++
	return c.w.WriteEntry(to)
}

func (c *copier) hardState(rec Record) error {
	from := c.l.r.state
	to := from
	if c.o.LastIndex != 0 {
		to.Commit = min(to.Commit, c.o.LastIndex)
	}
	if c.o.HardState != nil {
		to = c.o.HardState(to)
	}
	c.res.HardState = to
	c.res.Counts.State++
	if to == from {
		return c.w.Write(KindState, rec.Data)
	}
	return c.w.WriteHardState(to)
}

func (c *copier) snapshot(rec Record) error {
	s, err := ParseSnapshot(rec.Data)
	switch {
	case err != nil:
		return err
	case c.o.LastIndex != 0 && s.Index > c.o.LastIndex:
		return nil
	case c.o.KeepSnapshot != nil && !c.o.KeepSnapshot(s):
		return nil
	}
	c.res.Counts.Snapshot++
	return c.w.Write(KindSnapshot, rec.Data)
}
