package forensic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Format is how a dump is written.
type Format int

// The formats of a dump.
const (
	FormatLines Format = iota // for people
	FormatJSON                // one JSON object a line
)

// DumpOptions choose what [Dump] prints and how. The zero value prints every
// record, as lines with whole values, up to the first damage.
type DumpOptions struct {
	Format     Format
	FromIndex  uint64   // first index wanted; 0: no bound
	ToIndex    uint64   // last index wanted; 0: no bound
	Types      []string // see [Types]; none: all
	Key        string   // a key or v2 path, a prefix when it ends in '*'; empty: all
	Effective  bool     // leave out overwritten entries
	SkipDamage bool     // read on past damage, and say what was skipped
	Width      int      // of values in lines, bytes; 0: whole
	Offsets    bool     // begin lines with segment and offset
	Now        time.Time
}

// Dump prints the records of a log in order. Damage that keeps it from
// printing everything ends it with that [*Damage] as error, after what comes
// before; with SkipDamage it is printed in its place.
func Dump(ctx context.Context, w io.Writer, l *Log, s *Survey, o DumpOptions) error {
	filter, err := newFilter(o)
	if err != nil {
		return err
	}
	d := &dumper{
		filter: filter,
		format: o.Format,
		lines:  lines{width: o.Width, offsets: o.Offsets, now: o.Now},
	}
	p := newPipeline(w, d)
	err = l.visit(ctx, s, visitOptions{skipDamage: o.SkipDamage, from: o.FromIndex, to: o.ToIndex}, func(it *item) error {
		if it.damage == nil && !filter.wantsRecord(it) {
			return nil
		}
		return p.add(it)
	})
	if closed := p.close(); err == nil {
		err = closed
	}
	return err
}

// dumper prints items. It is shared by several goroutines and does not change.
type dumper struct {
	filter filter
	format Format
	lines  lines
}

// print appends an item to dst, unless it is not wanted.
func (d *dumper) print(dst []byte, it *item, o *op) []byte {
	if it.damage == nil {
		it.describe(o)
		if !d.filter.wantsOp(it, o) {
			return dst
		}
	}
	if d.format == FormatJSON {
		return it.appendJSON(dst, o)
	}
	return d.lines.append(dst, it, o)
}

// item is one record of a log, or damage in the place of some.
type item struct {
	damage      *Damage
	seg         int    // position of the segment in its log
	segment     string // its file name
	kind        walcodec.Kind
	offset      int64 // in the segment, bytes
	crc         uint32
	data        []byte         // the payload, of an entry record that of the entry
	entry       walcodec.Entry // of an entry record
	overwritten bool
	terse       bool // the entry leaves out its type
}

// describe says what a record holds.
func (it *item) describe(o *op) {
	if it.kind == walcodec.KindEntry {
		o.describe(it.entry)
		return
	}
	o.reset()
	o.typ = it.kind.String()
	if err := o.record(it); err != nil {
		o.unknown(it.data, err.Error())
	}
}

// record describes a record that is not an entry.
func (o *op) record(it *item) error {
	switch it.kind {
	case walcodec.KindMetadata:
		m, err := walcodec.ParseMetadata(it.data)
		o.add(field{kind: fieldID, name: "node_id", label: "node", n: m.NodeID})
		o.add(field{kind: fieldID, name: "cluster_id", label: "cluster", n: m.ClusterID})
		return err
	case walcodec.KindState:
		s, err := walcodec.ParseHardState(it.data)
		o.add(field{kind: fieldUint, name: "term", n: s.Term})
		o.add(field{kind: fieldID, name: "vote", n: s.Vote})
		o.add(field{kind: fieldUint, name: "commit", n: s.Commit})
		return err
	case walcodec.KindSnapshot:
		s, err := walcodec.ParseSnapshot(it.data)
		o.add(field{kind: fieldUint, name: "term", n: s.Term})
		o.add(field{kind: fieldUint, name: "index", n: s.Index})
		o.confState(s.ConfState)
		return err
	case walcodec.KindCRC:
		o.add(field{kind: fieldWord, name: "crc", s: fmt.Sprintf("%08x", it.crc)})
	}
	return nil
}

func (o *op) confState(c *walcodec.ConfState) {
	if c == nil {
		return
	}
	o.add(field{kind: fieldIDs, name: "voters", ids: c.Voters})
	o.addIDs("learners", c.Learners)
	o.addIDs("voters_outgoing", c.VotersOutgoing)
	o.addIDs("learners_next", c.LearnersNext)
	o.addFlag("auto_leave", c.AutoLeave)
}

type visitOptions struct {
	skipDamage bool
	from, to   uint64 // indexes of entries wanted; 0: no bound
}

// visit calls fn for each record, and for damage in its place. The item is
// valid until fn returns. It reads as far as the survey did.
func (l *Log) visit(ctx context.Context, s *Survey, o visitOptions, fn func(*item) error) error {
	v := visitor{s: s, o: o, fn: fn}
	for i := range l.segments {
		if err := v.segment(ctx, l, i); err != nil {
			return err
		}
	}
	return v.damageBefore(len(l.segments), 0)
}

type visitor struct {
	s    *Survey
	o    visitOptions
	fn   func(*item) error
	told int // of s.Damage
	it   item
}

// cancelEvery is how many records are read between looks at the context.
const cancelEvery = 1024

func (v *visitor) segment(ctx context.Context, l *Log, i int) error {
	if v.dispensable(i) {
		return v.damageBefore(i+1, 0)
	}
	r := l.segments[i].reader(v.s.Segments[i].Used)
	v.it = item{seg: i, segment: l.segments[i].Name}
	for n := 0; ; n++ {
		if n%cancelEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		rec, err := r.Next()
		if err == io.EOF {
			return v.damageBefore(i+1, 0)
		}
		if err == nil {
			err = v.record(i, rec)
		} else if isDamage(err) {
			err = v.resume(i, r)
		}
		if err != nil {
			return err
		}
	}
}

func isDamage(err error) bool {
	var corrupt *walcodec.CorruptError
	return errors.Is(err, walcodec.ErrTorn) || errors.As(err, &corrupt)
}

// resume goes on behind damage, which the survey has described.
func (v *visitor) resume(i int, r *walcodec.Reader) error {
	skip, err := r.Resync()
	if err != nil {
		return err
	}
	return v.damageBefore(i, skip.Offset+1)
}

// dispensable tells whether a segment holds none of the entries wanted.
func (v *visitor) dispensable(i int) bool {
	if v.o.from == 0 && v.o.to == 0 || v.s.overwrites() {
		return false
	}
	first, last := v.s.Segments[i].FirstIndex, v.s.Segments[i].LastIndex
	if first == 0 {
		return false
	}
	return v.o.to != 0 && first > v.o.to || last < v.o.from
}

func (v *visitor) record(i int, rec walcodec.Record) error {
	if v.told < len(v.s.Damage) {
		if err := v.damageBefore(i, rec.Offset+1); err != nil {
			return err
		}
	}
	it := &v.it
	it.kind, it.offset, it.crc, it.data, it.overwritten = rec.Kind, rec.Offset, rec.CRC, rec.Data, false
	if rec.Kind == walcodec.KindEntry {
		var err error
		if it.entry, err = walcodec.ParseEntry(rec.Data); err != nil {
			return fmt.Errorf("segment %s: offset %d: %w", it.segment, it.offset, err)
		}
		it.data, it.terse = it.entry.Data, rec.Data[0] != entryTypeTag
		it.overwritten = v.s.discards(i, rec.Offset, it.entry.Index)
	}
	return v.fn(it)
}

// entryTypeTag is the tag of an entry's first field, its type.
const entryTypeTag = 1 << 3

// damageBefore tells of the damage that stands before an offset of segment i.
func (v *visitor) damageBefore(i int, offset int64) error {
	for ; v.told < len(v.s.Damage); v.told++ {
		d := v.s.Damage[v.told]
		if d.seg > i || d.seg == i && d.Offset >= offset {
			return nil
		}
		if d.stops() && !v.o.skipDamage {
			return d
		}
		if err := v.fn(&item{damage: d}); err != nil {
			return err
		}
	}
	return nil
}
