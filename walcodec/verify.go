package walcodec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"
)

// VerifyOptions says what to verify. The zero value takes the whole log on all
// cores.
type VerifyOptions struct {
	FromIndex uint64 // of an unopened log: start with the last segment that can hold this index
	MaxRecord int64  // largest record, bytes; 0 means DefaultMaxRecord
	Parallel  int    // segments read at a time; 0 means one per core

	// Visit, if set, is handed every good entry record, in order within a
	// segment. Segments are read side by side: calls for different segments
	// can run at once, also in no order of segments. The entry's Data must
	// not be kept. An error ends the verification.
	Visit func(at Position, e Entry) error
}

// Counts are numbers of records by kind.
type Counts struct{ Metadata, Entry, State, CRC, Snapshot int64 }

// Total returns their sum.
func (c Counts) Total() int64 { return c.Metadata + c.Entry + c.State + c.CRC + c.Snapshot }

func (c *Counts) add(k Kind) {
	switch k {
	case KindMetadata:
		c.Metadata++
	case KindEntry:
		c.Entry++
	case KindState:
		c.State++
	case KindCRC:
		c.CRC++
	case KindSnapshot:
		c.Snapshot++
	}
}

func (c *Counts) sum(d Counts) {
	c.Metadata += d.Metadata
	c.Entry += d.Entry
	c.State += d.State
	c.CRC += d.CRC
	c.Snapshot += d.Snapshot
}

// A SnapshotRecord is a snapshot record and its place.
type SnapshotRecord struct {
	Snapshot
	At Position
}

// A Gap is a place where the index of an entry is not one above that of the
// entry before it, nor within the log so far. It is legal only where a
// snapshot that a leader sent bridges it.
type Gap struct {
	At           Position
	After, Index uint64 // of the entries on both sides
}

// A SegmentReport is what Verify found in one segment.
type SegmentReport struct {
	Segment
	Counts     Counts
	FirstIndex uint64 // of the first entry record, 0 when there is none
	LastIndex  uint64 // of the last entry record
	LastTerm   uint64
	Used       int64 // up to the end of the last good record, bytes
	Zeros      int64 // preallocated space after it, bytes
	StartCRC   uint32
	EndCRC     uint32
	Padded     bool // has frames as etcd 3.0 and later write them
	Plain      bool // has frames as etcd 2.x writes them
	Metadata   *Metadata
	HardState  *HardState // the last one
	Snapshots  []SnapshotRecord
	Gaps       []Gap
	Damage     []Skip // what could not be read, with the causes; a torn tail too

	metadata []byte
	over     Overwrites
	first    Position // of the first entry record
	broken   bool     // EndCRC is not known
	crcs     bool     // StartCRC is known
}

// A Report is what Verify found in a log.
type Report struct {
	Segments   []SegmentReport
	Counts     Counts
	FirstIndex uint64 // of the first entry record, 0 when there is none
	LastIndex  uint64 // of the last entry record
	LastTerm   uint64
	Used       int64 // bytes in good records
	Zeros      int64 // bytes
	Metadata   *Metadata
	HardState  *HardState // the last one
	Snapshots  []SnapshotRecord
	Gaps       []Gap
	Overwrites Overwrites
	End        Position // of the last good record's end
}

// Err returns the first damage in the log, a torn tail only if there is
// nothing worse, or nil.
func (r *Report) Err() error {
	var torn error
	for _, s := range r.Segments {
		for _, d := range s.Damage {
			if !errors.Is(d.Cause, ErrTorn) {
				return d.Cause
			}
			torn = d.Cause
		}
	}
	return torn
}

// Verify reads the log in the root of fsys and checks every record, several
// segments at a time: each opens with its own checksum, and what one ends with
// is compared to what the next starts with. Damage is part of the report; the
// error tells why there is none. A log that is being written is verified as
// far as it reaches.
func Verify(ctx context.Context, fsys fs.FS, o VerifyOptions) (*Report, error) {
	l, err := OpenLog(fsys, LogOptions{FromIndex: o.FromIndex})
	if err != nil {
		return nil, err
	}
	r, err := l.verify(ctx, o)
	return r, errors.Join(err, l.Close())
}

// Verify checks the segments of an open log, all of them and from their start,
// and rewinds l to read as far as the report reaches. What is read then is
// what was verified, even if a member writes or purges meanwhile.
func (l *Log) Verify(ctx context.Context, o VerifyOptions) (*Report, error) {
	if err := l.Rewind(Position{}); err != nil {
		return nil, err
	}
	r, err := l.verify(ctx, o)
	if err != nil {
		return nil, err
	}
	return r, l.Rewind(r.End)
}

func (l *Log) verify(ctx context.Context, o VerifyOptions) (*Report, error) {
	segments, err := verifySegments(ctx, l, o)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	r := &Report{Segments: segments}
	return r, r.sum()
}

func verifySegments(ctx context.Context, l *Log, o VerifyOptions) ([]SegmentReport, error) {
	workers := o.Parallel
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	reports := make([]SegmentReport, len(l.segments))
	errs := make([]error, len(l.segments))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(workers, len(l.segments)) {
		wg.Go(func() {
			v := verifier{ctx: ctx, r: &Reader{}, visit: o.Visit}
			for i := range next {
				v.s = &reports[i]
				errs[i] = v.segment(l, i, o.MaxRecord)
			}
		})
	}
	for i := range l.segments {
		next <- i
	}
	close(next)
	wg.Wait()
	return reports, errors.Join(errs...)
}

// A verifier checks one segment after the other.
type verifier struct {
	ctx context.Context
	r   *Reader
	s   *SegmentReport

	state bool // the segment has a hard state
	visit func(Position, Entry) error
}

func (v *verifier) segment(l *Log, i int, limit int64) error {
	v.s.Segment, v.state = l.segments[i], false
	v.r.reset(l.files[i], ReaderOptions{
		Segment:   v.s.Name,
		Last:      i == len(l.segments)-1,
		MaxRecord: limit,
	})
	for {
		err := v.records()
		if err == io.EOF {
			break
		}
		if v.r.fault == nil {
			return err
		}
		if torn := errors.Is(err, ErrTorn); torn || len(v.s.Damage) == maxDamage {
			v.s.Damage = append(v.s.Damage, Skip{Segment: v.s.Name, Offset: v.r.Offset(), Len: max(0, v.s.Size-v.r.Offset()), Cause: err})
			break
		}
		skip, err := v.r.Resync()
		if err != nil {
			return err
		}
		v.s.Damage = append(v.s.Damage, skip)
	}
	v.s.Used, v.s.Zeros = v.r.Offset(), v.r.Zeros()
	if v.state {
		v.s.HardState = &HardState{v.r.state.Term, v.r.state.Vote, v.r.state.Commit}
	}
	v.s.EndCRC, v.s.broken = v.r.CRC(), v.r.blind
	return nil
}

// maxDamage bounds the list of damage of a segment.
const maxDamage = 1000

// cancelEvery is how many records are read between looks at the context.
const cancelEvery = 4096

// records reads up to the next error.
func (v *verifier) records() error {
	var rec Record
	for {
		for range cancelEvery {
			if err := v.r.next(&rec); err != nil {
				return err
			}
			if err := v.record(&rec); err != nil {
				return fmt.Errorf("%s: %w", place(v.s.Name, rec.Offset), err)
			}
		}
		if err := v.ctx.Err(); err != nil {
			return err
		}
	}
}

func (v *verifier) record(rec *Record) error {
	s := v.s
	s.Counts.add(rec.Kind)
	s.Padded = s.Padded || rec.Padded
	s.Plain = s.Plain || !rec.Padded && rec.Len%8 != 0
	switch rec.Kind {
	case KindEntry:
		return v.entry(rec)
	case KindState:
		v.state = true
	case KindMetadata:
		return v.metadata(rec)
	case KindSnapshot:
		return v.snapshot(rec)
	case KindCRC:
		if rec.Offset == 0 {
			s.StartCRC, s.crcs = rec.CRC, true
		}
	}
	return nil
}

func (v *verifier) entry(rec *Record) error {
	s, e := v.s, v.r.entry
	at := Position{s.Seq, rec.Offset}
	if s.FirstIndex == 0 {
		s.FirstIndex, s.first = e.Index, at
	}
	if s.LastIndex != 0 && e.Index > s.LastIndex+1 {
		if len(s.Gaps) == maxListed {
			return fmt.Errorf("more than %d gaps", maxListed)
		}
		s.Gaps = append(s.Gaps, Gap{at, s.LastIndex, e.Index})
	}
	s.LastIndex, s.LastTerm = e.Index, e.Term
	if v.visit != nil {
		if err := v.visit(at, e); err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
	}
	return s.over.add(at, e.Index)
}

func (v *verifier) metadata(rec *Record) error {
	m, err := ParseMetadata(rec.Data)
	v.s.Metadata = &m
	v.s.metadata = bytes.Clone(rec.Data)
	return err
}

func (v *verifier) snapshot(rec *Record) error {
	if len(v.s.Snapshots) == maxListed {
		return fmt.Errorf("more than %d snapshot records", maxListed)
	}
	snapshot, err := ParseSnapshot(rec.Data)
	v.s.Snapshots = append(v.s.Snapshots, SnapshotRecord{snapshot, Position{v.s.Seq, rec.Offset}})
	return err
}

// sum compares neighbours and adds the segments up.
func (r *Report) sum() error {
	var metadata []byte
	for i := range r.Segments {
		s := &r.Segments[i]
		if i > 0 {
			s.follow(&r.Segments[i-1])
		} else if s.Seq == 0 && s.StartCRC != 0 {
			s.damaged(fmt.Errorf("the log starts with checksum %08x, want 0", s.StartCRC))
		}
		if metadata == nil {
			metadata = s.metadata
		}
		if s.metadata != nil && !bytes.Equal(s.metadata, metadata) {
			s.damaged(errors.New("metadata is not that of the segments before"))
		}
		if err := r.add(s); err != nil {
			return fmt.Errorf("verify: %w", err)
		}
	}
	return nil
}

// follow compares the checksums where two segments meet.
func (s *SegmentReport) follow(before *SegmentReport) {
	if s.crcs && !before.broken && s.StartCRC != before.EndCRC {
		s.damaged(fmt.Errorf("starts with checksum %08x, the segment before ends with %08x", s.StartCRC, before.EndCRC))
	}
}

func (s *SegmentReport) damaged(cause error) {
	s.Damage = append(s.Damage, Skip{Segment: s.Name, Cause: &CorruptError{s.Name, 0, cause}})
}

func (r *Report) add(s *SegmentReport) error {
	r.Counts.sum(s.Counts)
	r.Used += s.Used
	r.Zeros += s.Zeros
	r.End = Position{s.Seq, s.Used}
	if r.Metadata == nil {
		r.Metadata = s.Metadata
	}
	if s.HardState != nil {
		r.HardState = s.HardState
	}
	r.Snapshots = append(r.Snapshots, s.Snapshots...)
	if s.FirstIndex == 0 {
		return nil
	}
	return r.addEntries(s)
}

func (r *Report) addEntries(s *SegmentReport) error {
	if r.FirstIndex == 0 {
		r.FirstIndex = s.FirstIndex
	} else if s.FirstIndex > r.LastIndex+1 {
		r.Gaps = append(r.Gaps, Gap{s.first, r.LastIndex, s.FirstIndex})
	}
	r.Gaps = append(r.Gaps, s.Gaps...)
	r.LastIndex, r.LastTerm = s.LastIndex, s.LastTerm
	if err := r.Overwrites.add(s.first, s.FirstIndex); err != nil {
		return err
	}
	for _, c := range s.over.cuts {
		if err := r.Overwrites.put(c); err != nil {
			return err
		}
	}
	r.Overwrites.last = s.LastIndex
	return nil
}
