package walcodec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// A Position is a place in a log. The zero value is its very start.
type Position struct {
	Seq    uint64 // of the segment
	Offset int64  // in it, bytes
}

// Compare returns a negative number when p is before q, 0 when they are the
// same, a positive one when p is after q.
func (p Position) Compare(q Position) int {
	switch {
	case p.Seq != q.Seq && p.Seq < q.Seq, p.Seq == q.Seq && p.Offset < q.Offset:
		return -1
	case p == q:
		return 0
	}
	return 1
}

// LogOptions says which part of a log to read. The zero value reads all of it.
type LogOptions struct {
	FromIndex uint64   // start with the last segment that can hold this index
	End       Position // stop before the record here, if it is not zero
	MaxRecord int64    // largest record, bytes; 0 means DefaultMaxRecord
}

// A Log reads segments as one log. Close it.
type Log struct {
	o        LogOptions
	segments []Segment
	files    []fs.File
	i        int // segment being read
	r        *Reader
	at       Position // of the last record's end
	metadata []byte
	crc      uint32 // at the end of the segment before
	chained  bool   // crc is known
	err      error
}

// openAttempts is how often OpenLog lists the folder anew when a segment that
// it listed is purged before it is open.
const openAttempts = 5

// OpenLog opens the log in the root of fsys, all segments at once, so that a
// purge while they are read loses nothing. A segment that appears later is not
// read: what is read is a prefix of the log.
func OpenLog(fsys fs.FS, o LogOptions) (*Log, error) {
	var err error
	for range openAttempts {
		var l *Log
		if l, err = openLog(fsys, o); !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
	}
	return nil, err
}

func openLog(fsys fs.FS, o LogOptions) (*Log, error) {
	segments, err := listFrom(fsys, o.FromIndex)
	if err != nil {
		return nil, err
	}
	l := &Log{o: o, segments: segments, r: &Reader{}}
	for _, s := range segments {
		f, err := fsys.Open(s.Name)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open segment: %w", err), l.Close())
		}
		l.files = append(l.files, f)
	}
	l.at.Seq = segments[0].Seq
	l.start()
	return l, nil
}

// listFrom lists the segments from an index on. A gap before them is nobody's
// concern.
func listFrom(fsys fs.FS, index uint64) ([]Segment, error) {
	segments, err := Segments(fsys)
	var gap *GapError
	if err != nil && !errors.As(err, &gap) {
		return nil, err
	}
	if segments, err = startAt(segments, index); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return segments, checkSequence(segments)
}

func (l *Log) start() {
	l.r.reset(l.files[l.i], ReaderOptions{
		Segment:   l.segments[l.i].Name,
		Last:      l.i == len(l.segments)-1,
		MaxRecord: l.o.MaxRecord,
	})
}

// Rewind starts over with the segments that are open, to stop before the
// record at end, if it is not zero. A second pass over a log that is being
// written so sees what the first saw. The files must be io.Seekers.
func (l *Log) Rewind(end Position) error {
	for i, f := range l.files {
		seeker, ok := f.(io.Seeker)
		if !ok {
			return fmt.Errorf("rewind segment %s: not seekable", l.segments[i].Name)
		}
		if _, err := seeker.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("rewind segment %s: %w", l.segments[i].Name, err)
		}
	}
	l.o.End = end
	l.i, l.at, l.metadata, l.chained, l.err = 0, Position{l.segments[0].Seq, 0}, nil, false, nil
	l.start()
	return nil
}

// Close closes the files.
func (l *Log) Close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	l.files = nil
	return errors.Join(errs...)
}

// Segment returns the segment of the last record, the first one before that.
func (l *Log) Segment() Segment { return l.segments[l.i] }

// Segments returns the segments that the log reads. The caller leaves the
// slice as it is.
func (l *Log) Segments() []Segment { return l.segments }

// Position returns where the last record that Next returned ends.
func (l *Log) Position() Position { return l.at }

// CRC returns the running checksum after the last record.
func (l *Log) CRC() uint32 { return l.r.CRC() }

// Next returns the next record. It ends as Reader.Next does, with io.EOF at
// the end of the last segment. The segments' checksums must continue each
// other and their metadata must be the same; if not, that is a *CorruptError.
func (l *Log) Next() (rec Record, err error) {
	if l.err != nil {
		return Record{}, l.err
	}
	if l.err = l.next(&rec); l.err != nil {
		return Record{}, l.err
	}
	l.at = Position{l.Segment().Seq, rec.End()}
	return rec, nil
}

func (l *Log) next(rec *Record) error {
	err := l.r.next(rec)
	for err == io.EOF && l.i < len(l.segments)-1 && !l.ends(l.r.Offset()) {
		l.crc, l.chained = l.r.CRC(), !l.r.blind
		l.i++
		l.start()
		err = l.r.next(rec)
	}
	switch {
	case err != nil:
		return err
	case l.ends(rec.Offset):
		return io.EOF
	case rec.Offset == 0 || rec.Kind == KindMetadata:
		return l.join(rec)
	}
	return nil
}

func (l *Log) ends(offset int64) bool {
	return l.o.End != Position{} && l.o.End.Compare(Position{l.Segment().Seq, offset}) <= 0
}

// join compares what a segment opens with to the segments before.
func (l *Log) join(rec *Record) error {
	switch {
	case rec.Offset == 0 && l.i == 0 && l.Segment().Seq == 0 && rec.CRC != 0:
		return l.corrupt(rec, fmt.Errorf("the log starts with checksum %08x, want 0", rec.CRC))
	case rec.Offset == 0 && l.chained && rec.CRC != l.crc:
		l.chained = false
		return l.corrupt(rec, fmt.Errorf("starts with checksum %08x, the segment before ends with %08x", rec.CRC, l.crc))
	case rec.Kind != KindMetadata:
		return nil
	case l.metadata == nil:
		l.metadata = append([]byte{}, rec.Data...)
	case !bytes.Equal(l.metadata, rec.Data):
		return l.corrupt(rec, errors.New("metadata is not that of the segments before"))
	}
	return nil
}

func (l *Log) corrupt(rec *Record, cause error) error {
	return &CorruptError{l.Segment().Name, rec.Offset, cause}
}

// Resync goes on behind damage, as Reader.Resync does. Where segments do not
// fit together nothing is skipped: the rest of the later one is read.
func (l *Log) Resync() (Skip, error) {
	var damage *CorruptError
	switch {
	case l.r.fault != nil:
		skip, err := l.r.Resync()
		l.err = err
		return skip, err
	case errors.As(l.err, &damage):
		skip := Skip{Segment: damage.Segment, Offset: damage.Offset, Len: l.r.Offset() - damage.Offset, Cause: l.err}
		l.err = nil
		return skip, nil
	}
	return Skip{}, errors.New("resync: the log is not at damage")
}
