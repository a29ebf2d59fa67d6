package walcodec

import (
	"errors"
	"fmt"
	"io"
	"sort"
)

// Overwrites tells which entries of a log a later record replaced: an entry
// with index i discards every entry before it whose index is i or more
// (WAL.ReadAll in wal/wal.go). It is gathered in one pass, by [Verify] or
// [FindOverwrites], for a second pass to ask. It holds one pair of numbers for
// each time that the log went back, which takes a change of leader: few.
type Overwrites struct {
	cuts []cut // by position, and by index: see put
	last uint64
}

type cut struct {
	at    Position
	index uint64
}

// maxListed bounds every list of a report or an Overwrites, so that no log
// makes them take more than some tens of MiB.
const maxListed = 1 << 20

// add notes an entry record.
func (o *Overwrites) add(at Position, index uint64) error {
	back := o.last != 0 && index <= o.last
	o.last = index
	if !back {
		return nil
	}
	return o.put(cut{at, index})
}

// put notes a place where the log goes back. Earlier ones to the same index or
// above say nothing more, so the indexes left rise with the positions.
func (o *Overwrites) put(c cut) error {
	n := len(o.cuts)
	for n > 0 && o.cuts[n-1].index >= c.index {
		n--
	}
	if n == maxListed {
		return fmt.Errorf("more than %d overwrites in the log", maxListed)
	}
	o.cuts = append(o.cuts[:n], c)
	return nil
}

// Discards tells whether the entry record at that position, of that index, was
// replaced by a later one.
func (o *Overwrites) Discards(at Position, index uint64) bool {
	i := sort.Search(len(o.cuts), func(i int) bool { return o.cuts[i].at.Compare(at) > 0 })
	return i < len(o.cuts) && o.cuts[i].index <= index
}

// Len returns how many places are kept where the log goes back for good.
func (o *Overwrites) Len() int { return len(o.cuts) }

// FindOverwrites reads a log to its end. A torn tail ends it; damage is an error.
func FindOverwrites(l *Log) (*Overwrites, error) {
	o := &Overwrites{}
	for {
		rec, err := l.Next()
		if err == io.EOF || errors.Is(err, ErrTorn) {
			return o, nil
		}
		if err != nil {
			return nil, err
		}
		if rec.Kind != KindEntry {
			continue
		}
		if err := o.add(Position{l.Segment().Seq, rec.Offset}, l.r.entry.Index); err != nil {
			return nil, err
		}
	}
}
