package forensic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Survey is what a log holds and where it is damaged, learned by reading all
// of it once.
type Survey struct {
	Segments   []walcodec.SegmentReport // in order, under the files' own names
	Counts     walcodec.Counts
	FirstIndex uint64 // of the first entry record, 0 when there is none
	LastIndex  uint64 // of the last entry record
	LastTerm   uint64
	Used       int64 // bytes in good records
	Size       int64 // bytes of all segments
	Metadata   *walcodec.Metadata
	HardState  *walcodec.HardState // the last one
	Snapshots  []walcodec.SnapshotRecord
	Damage     []*Damage // in the order of the log, a torn tail left out
	Torn       *Damage   // the tail that was cut short, nil when the end is clean

	runs []surveyed
}

// surveyed is a run and what walcodec found in it.
type surveyed struct {
	run
	report *walcodec.Report
	places []places // of each segment
}

// places are where entries stand in a segment.
type places struct {
	last   int64           // offset of the last entry, bytes
	index  uint64          // of that entry, 0 while there is none
	before map[int64]int64 // of an entry after a gap: the offset of the one before it
}

// visit takes note of an entry. Each segment has its own places, so that
// segments may be read at the same time.
func (p *places) visit(offset int64, index uint64) {
	if p.index != 0 && index > p.index+1 {
		if p.before == nil {
			p.before = map[int64]int64{}
		}
		p.before[offset] = p.last
	}
	p.last, p.index = offset, index
}

// Survey reads the whole log, several segments at a time, and checks every
// record. Damage is part of the result; the error tells why there is none.
func (l *Log) Survey(ctx context.Context) (*Survey, error) {
	s := &Survey{}
	for _, run := range l.runs() {
		surveyed, err := run.survey(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.Path, err)
		}
		s.addRun(surveyed)
	}
	s.checkCommit()
	slices.SortStableFunc(s.Damage, func(a, b *Damage) int {
		return cmp.Or(cmp.Compare(a.seg, b.seg), cmp.Compare(a.Offset, b.Offset))
	})
	return s, nil
}

func (r run) survey(ctx context.Context) (surveyed, error) {
	found := surveyed{run: r, places: make([]places, len(r.segments))}
	first, _, _ := walcodec.ParseSegmentName(r.name(0))
	var err error
	found.report, err = walcodec.Verify(ctx, r, walcodec.VerifyOptions{
		Visit: func(at walcodec.Position, e walcodec.Entry) error {
			found.places[at.Seq-first].visit(at.Offset, e.Index)
			return nil
		},
	})
	return found, err
}

func (s *Survey) addRun(run surveyed) {
	if len(s.runs) > 0 {
		s.missing(run)
	}
	s.runs = append(s.runs, run)
	for i, segment := range run.report.Segments {
		segment.Name, segment.Seq = run.segments[i].Name, run.segments[i].Seq
		s.Segments = append(s.Segments, segment)
		s.Size += segment.Size
		for _, skip := range segment.Damage {
			s.addDamage(skip, run, i)
		}
	}
	s.total(run.report)
	for _, gap := range run.report.Gaps {
		s.addGap(gap, run)
	}
}

func (s *Survey) total(r *walcodec.Report) {
	c := &s.Counts
	c.Metadata += r.Counts.Metadata
	c.Entry += r.Counts.Entry
	c.State += r.Counts.State
	c.CRC += r.Counts.CRC
	c.Snapshot += r.Counts.Snapshot
	s.Used += r.Used
	s.Metadata = cmp.Or(s.Metadata, r.Metadata)
	s.HardState = cmp.Or(r.HardState, s.HardState)
	s.Snapshots = append(s.Snapshots, r.Snapshots...)
	if r.FirstIndex != 0 {
		s.FirstIndex = cmp.Or(s.FirstIndex, r.FirstIndex)
		s.LastIndex, s.LastTerm = r.LastIndex, r.LastTerm
	}
}

// missing notes that segments are missing before run.
func (s *Survey) missing(run surveyed) {
	before, after := s.Segments[len(s.Segments)-1], run.report.Segments[0]
	d := &Damage{Kind: DamageMissing, Segment: run.segments[0].Name, seg: run.from}
	if before.Seq == after.Seq {
		d.Cause = fmt.Errorf("has the same sequence number as %s", before.Name)
	} else {
		d.Cause = fmt.Errorf("%s missing before it, after %s", segments(after.Seq-before.Seq-1), before.Name)
	}
	if s.LastIndex != 0 && run.report.FirstIndex > s.LastIndex+1 {
		d.LostFirst, d.LostLast = s.LastIndex+1, run.report.FirstIndex-1
	}
	s.Damage = append(s.Damage, d)
}

func segments(n uint64) string {
	if n == 1 {
		return "1 segment is"
	}
	return fmt.Sprintf("%d segments are", n)
}

// addDamage takes over what walcodec found in segment i of a run. Where the
// segment is not the log's last one, nothing there can be a torn write.
func (s *Survey) addDamage(skip walcodec.Skip, run surveyed, i int) {
	d := &Damage{
		Kind:    DamageCorrupt,
		Segment: run.segments[i].Name,
		Offset:  skip.Offset,
		Len:     skip.Len,
		Cause:   bareCause(skip.Cause),
		seg:     run.from + i,
	}
	switch {
	case errors.Is(skip.Cause, walcodec.ErrTorn) && run.segments[i].last:
		d.Kind = DamageTorn
		s.Torn = d
		return
	case skip.Len == 0:
		d.Kind = DamageChain
	}
	s.Damage = append(s.Damage, d)
}

// bareCause strips the place, which a Damage names itself.
func bareCause(err error) error {
	var torn *walcodec.TornError
	var corrupt *walcodec.CorruptError
	switch {
	case errors.As(err, &torn):
		return torn.Cause
	case errors.As(err, &corrupt):
		return corrupt.Cause
	}
	return err
}

// addGap notes missing entries, unless a snapshot that a leader sent bridges
// them. Where unreadable bytes stand in the gap, they are what is lost.
func (s *Survey) addGap(gap walcodec.Gap, run surveyed) {
	if s.bridged(gap) {
		return
	}
	i := int(gap.At.Seq - run.report.Segments[0].Seq)
	for _, d := range s.Damage {
		if d.Kind == DamageCorrupt && d.LostFirst == 0 && run.inGap(d, i, gap.At.Offset) {
			d.LostFirst, d.LostLast = gap.After+1, gap.Index-1
			return
		}
	}
	s.Damage = append(s.Damage, &Damage{
		Kind:      DamageGap,
		Segment:   run.segments[i].Name,
		Offset:    gap.At.Offset,
		Cause:     fmt.Errorf("entry %d follows entry %d", gap.Index, gap.After),
		LostFirst: gap.After + 1,
		LostLast:  gap.Index - 1,
		seg:       run.from + i,
	})
}

// inGap tells whether damage stands between the entry at an offset of segment
// i, which comes after a gap, and the entry before that.
func (r *surveyed) inGap(d *Damage, i int, offset int64) bool {
	seg := d.seg - r.from
	if before, ok := r.places[i].before[offset]; ok {
		return seg == i && d.Offset > before && d.Offset < offset
	}
	if seg > i || seg == i && d.Offset >= offset {
		return false
	}
	for i--; i >= 0 && r.places[i].index == 0; i-- {
		if seg == i {
			return true
		}
	}
	return i < 0 || seg > i || seg == i && d.Offset > r.places[i].last
}

func (s *Survey) bridged(gap walcodec.Gap) bool {
	return slices.ContainsFunc(s.Snapshots, func(r walcodec.SnapshotRecord) bool {
		return r.Index > gap.After && r.Index+1 >= gap.Index && r.At.Compare(gap.At) < 0
	})
}

// checkCommit looks whether the log reaches its commit index, without which
// etcd does not start.
func (s *Survey) checkCommit() {
	if s.HardState == nil || len(s.Segments) == 0 {
		return
	}
	end := s.LastIndex
	for _, r := range s.Snapshots {
		end = max(end, r.Index)
	}
	if s.HardState.Commit <= end || end == 0 {
		return
	}
	last := len(s.Segments) - 1
	s.Damage = append(s.Damage, &Damage{
		Kind:      DamageCommit,
		Segment:   s.Segments[last].Name,
		Offset:    s.Segments[last].Used,
		Cause:     fmt.Errorf("the log ends at index %d, its commit index is %d", end, s.HardState.Commit),
		LostFirst: end + 1,
		LostLast:  s.HardState.Commit,
		seg:       last,
	})
}

// overwrites tells whether the log goes back anywhere: then a segment's first
// and last index do not tell which entries it holds.
func (s *Survey) overwrites() bool {
	for _, r := range s.runs {
		if r.report.Overwrites.Len() > 0 {
			return true
		}
	}
	return false
}

// discards tells whether the entry record at a position, of segment seg of the
// log, was replaced by a later one.
func (s *Survey) discards(seg int, offset int64, index uint64) bool {
	for _, r := range s.runs {
		if r.from+len(r.segments) <= seg {
			continue
		}
		at := walcodec.Position{}
		if r.from <= seg {
			at = walcodec.Position{Seq: r.report.Segments[seg-r.from].Seq, Offset: offset}
		} else if r.report.FirstIndex != 0 && r.report.FirstIndex <= index {
			return true
		}
		if r.report.Overwrites.Discards(at, index) {
			return true
		}
	}
	return false
}
