package datadir

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Log sums up the entries after the base snapshot, or all where there is none.
// What was overwritten by a later leader does not count.
type Log struct {
	First    uint64 // index of the first entry; 0 if there is none
	Last     uint64 // index of the last entry
	LastTerm uint64
	Entries  int
	State    walcodec.HardState // the last one written
	// Commit is the index up to which the entries are known to be committed.
	// The log's own hard state lags: etcd does not write it for a new commit
	// index alone. What a sole voter has stored is committed, and so is what
	// the backend has applied.
	Commit uint64
	// Mark is the snapshot record that etcd would write at the backend's
	// consistent index; nil if that entry is not in the log.
	Mark *walcodec.Snapshot
	// Raised is the one at the last index before the next v3 request (or at
	// the commit index): up to there nothing touches the keyspace, so that the
	// consistent index could as well be this. nil if it is not in the log.
	Raised      *walcodec.Snapshot
	Padded      bool // some record is framed as 3.0 and later do
	BaseConf    bool // the base's snapshot record says who votes (3.5 and later)
	V2          V2Entries
	V3Entries   int
	ConfChanges int
	LastConf    uint64 // index of the last conf change
}

// V2Entries counts the committed v2 requests.
type V2Entries struct {
	Membership int    // PUT of member attributes or of the cluster version
	Other      int    // everything else
	FirstOther string // the first of those, as "PUT /a at index 91"
	User       string // the first one that writes user data, likewise
	LastIndex  uint64 // of the last v2 entry of either sort
}

// summarizer collects a [Log] record by record, and follows the membership.
type summarizer struct {
	base       uint64            // index of the base snapshot
	mark       uint64            // the backend's consistent index
	commit     uint64            // entries above it are only counted
	self       uint64            // member id
	last       walcodec.Snapshot // index and term of the last committed entry
	overwrites *walcodec.Overwrites
	log        Log
	members    *roster
}

// run reads the log to its end. Its records were verified before, so that a
// torn tail is the only other end.
func (s *summarizer) run(log *walcodec.Log) error {
	for {
		rec, err := log.Next()
		if err == io.EOF || errors.Is(err, walcodec.ErrTorn) {
			s.raise()
			return nil
		}
		if err != nil {
			return err
		}
		at := walcodec.Position{Seq: log.Segment().Seq, Offset: rec.Offset}
		if err := s.add(rec, at); err != nil {
			return fmt.Errorf("segment %s: offset %d: %w", log.Segment().Name, rec.Offset, err)
		}
	}
}

func (s *summarizer) add(rec walcodec.Record, at walcodec.Position) error {
	s.log.Padded = s.log.Padded || rec.Padded
	switch rec.Kind {
	case walcodec.KindState:
		return s.state(rec)
	case walcodec.KindSnapshot:
		return s.snapshot(rec)
	case walcodec.KindEntry:
		return s.entry(rec, at)
	default:
		return nil
	}
}

func (s *summarizer) state(rec walcodec.Record) error {
	state, err := walcodec.ParseHardState(rec.Data)
	s.log.State = state
	return err
}

// snapshot notes whether the base's record says who votes.
func (s *summarizer) snapshot(rec walcodec.Record) error {
	snap, err := walcodec.ParseSnapshot(rec.Data)
	if err == nil && snap.Index == s.base {
		s.log.BaseConf = snap.ConfState != nil
	}
	return err
}

func (s *summarizer) entry(rec walcodec.Record, at walcodec.Position) error {
	e, err := walcodec.ParseEntry(rec.Data)
	if err != nil || e.Index <= s.base || s.overwrites.Discards(at, e.Index) {
		return err
	}
	if s.log.First == 0 {
		s.log.First = e.Index
	}
	s.log.Entries++
	s.log.Last, s.log.LastTerm = e.Index, e.Term
	if e.Index > s.commit && !s.members.alone(s.self) {
		return nil
	}
	s.commit = max(s.commit, e.Index)
	return s.committed(e)
}

func (s *summarizer) committed(e walcodec.Entry) error {
	kind := walcodec.ClassifyEntry(e)
	if kind == walcodec.V3Request && e.Index > s.mark {
		s.raise()
	}
	if err := s.payload(e, kind); err != nil {
		return fmt.Errorf("entry %d: %w", e.Index, err)
	}
	s.last = walcodec.Snapshot{Index: e.Index, Term: e.Term}
	if e.Index == s.mark {
		s.log.Mark = s.record()
	}
	return nil
}

// record is the snapshot record that etcd would write now.
func (s *summarizer) record() *walcodec.Snapshot {
	return &walcodec.Snapshot{Index: s.last.Index, Term: s.last.Term, ConfState: s.members.confState()}
}

// raise settles Raised, at the first v3 request past the mark or at the end.
func (s *summarizer) raise() {
	if s.log.Raised == nil && (s.log.Mark != nil || s.mark == s.base) {
		s.log.Raised = s.record()
	}
}

func (s *summarizer) payload(e walcodec.Entry, kind walcodec.PayloadKind) error {
	switch kind {
	case walcodec.V2Request:
		return s.v2(e)
	case walcodec.V3Request:
		s.log.V3Entries++
	case walcodec.ConfChangePayload:
		return s.confChange(e)
	}
	return nil
}

func (s *summarizer) confChange(e walcodec.Entry) error {
	cc, err := walcodec.ParseConfChange(e.Data)
	if err != nil {
		return err
	}
	s.log.ConfChanges++
	s.log.LastConf = e.Index
	s.members.apply(cc)
	return nil
}

func (s *summarizer) v2(e walcodec.Entry) error {
	r, err := walcodec.ParseRequest(e.Data)
	if err != nil {
		return err
	}
	v2 := &s.log.V2
	v2.LastIndex = e.Index
	what := fmt.Sprintf("%s %s at index %d", r.Method, clientPath(r.Path), e.Index)
	if isMembership(r) {
		v2.Membership++
		s.members.see(r)
		return nil
	}
	v2.Other++
	if v2.FirstOther == "" {
		v2.FirstOther = what
	}
	if v2.User == "" && writesUserData(r) {
		v2.User = what
	}
	return nil
}

// isMembership tells the two PUTs of etcd itself: member attributes and the
// cluster version.
func isMembership(r walcodec.Request) bool {
	return SetsClusterVersion(r) || r.Method == "PUT" && memberOf(r.Path) != 0
}

// SetsClusterVersion tells etcd's own request that raises the cluster version.
func SetsClusterVersion(r walcodec.Request) bool {
	return r.Method == "PUT" && r.Path == clusterVersionKey
}

const (
	clusterVersionKey = "/0/version"
	membersPrefix     = "/0/members/"
)

// memberOf is the member whose attributes path holds, 0 for another path.
func memberOf(path string) uint64 {
	rest, ok := strings.CutPrefix(path, membersPrefix)
	if !ok {
		return 0
	}
	hex, ok := strings.CutSuffix(rest, "/attributes")
	if !ok {
		return 0
	}
	id, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return 0
	}
	return id
}

// writesUserData tells requests that may leave keys behind: SYNC, QGET and
// DELETE do not.
func writesUserData(r walcodec.Request) bool {
	return (r.Method == "PUT" || r.Method == "POST") && !strings.HasPrefix(r.Path, "/0/")
}
