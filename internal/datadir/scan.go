package datadir

import (
	"bytes"
	"fmt"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// scan gathers what a [Log] is summed up from, while the segments are verified
// side by side. Only the rare entries are kept, to be put in order afterwards.
type scan struct {
	base     uint64 // index of the base snapshot: what it covers is left out
	mark     uint64 // the backend's consistent index
	first    uint64 // sequence number of the first segment
	segments []segmentScan
}

// segmentScan is one segment's part, written by one goroutine.
type segmentScan struct {
	first    uint64 // index of the first entry above the base; 0: none
	last     point  // the last entry of any index
	entries  int
	markTerm uint64 // term of the entry at the mark; 0: not here
	notes    []note
	v3       int
	other    int    // v2 requests but for the membership PUTs
	firstV2  string // the first of those
	userV2   string // the first that writes user data
}

// point is the place of an entry.
type point struct{ index, term uint64 }

// note is an entry that changes the membership: a conf change, or one of
// etcd's own PUTs.
type note struct {
	at walcodec.Position
	point
	conf *walcodec.ConfChange
	put  *walcodec.Request
}

// maxNotes bounds what a segment keeps: etcd takes one conf change at a time,
// and a member PUTs its attributes once a start.
const maxNotes = 1 << 16

func newScan(base, mark uint64, segments []walcodec.Segment) *scan {
	return &scan{base: base, mark: mark, first: segments[0].Seq, segments: make([]segmentScan, len(segments))}
}

// visit is called for every entry; see [walcodec.VerifyOptions].
func (s *scan) visit(at walcodec.Position, e walcodec.Entry) error {
	seg := &s.segments[at.Seq-s.first]
	if e.Index > s.base {
		if err := s.add(seg, at, e); err != nil {
			return err
		}
	}
	seg.last = point{e.Index, e.Term}
	return nil
}

func (s *scan) add(seg *segmentScan, at walcodec.Position, e walcodec.Entry) error {
	if seg.first == 0 {
		seg.first = e.Index
	}
	seg.entries++
	if e.Index == s.mark {
		seg.markTerm = e.Term
	}
	switch walcodec.ClassifyEntry(e) {
	case walcodec.V2Request:
		return seg.v2(at, e)
	case walcodec.V3Request:
		seg.v3++
	case walcodec.ConfChangePayload:
		cc, err := walcodec.ParseConfChange(bytes.Clone(e.Data))
		if err != nil {
			return err
		}
		return seg.note(note{at: at, point: point{e.Index, e.Term}, conf: &cc})
	}
	return nil
}

func (seg *segmentScan) note(n note) error {
	if len(seg.notes) == maxNotes {
		return fmt.Errorf("more than %d membership changes in a segment", maxNotes)
	}
	seg.notes = append(seg.notes, n)
	return nil
}

func (seg *segmentScan) v2(at walcodec.Position, e walcodec.Entry) error {
	method, path := walcodec.PeekRequest(e.Data)
	if isMembership(method, path) {
		r, err := walcodec.ParseRequest(e.Data)
		if err != nil {
			return err
		}
		return seg.note(note{at: at, point: point{e.Index, e.Term}, put: &r})
	}
	seg.other++
	if seg.firstV2 == "" {
		seg.firstV2 = describe(e.Index, method, path)
	}
	if seg.userV2 == "" && writesUserData(method, path) {
		seg.userV2 = describe(e.Index, method, path)
	}
	return nil
}

// maxPath bounds how much of a path a message shows.
const maxPath = 200

func describe(index uint64, method, path []byte) string {
	return fmt.Sprintf("%s %s at index %d", method, clientPath(string(path[:min(len(path), maxPath)])), index)
}
