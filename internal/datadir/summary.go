package datadir

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Log sums up the entries after the base snapshot, or all where there is none.
// Overwritten entries count where they stand.
type Log struct {
	First     uint64 // index of the first entry; 0 if there is none
	Last      uint64 // index of the last entry
	LastTerm  uint64
	Entries   int
	State     walcodec.HardState // the last one
	Segment   string             // file that the last record is in
	End       int64              // where that record ends in it, bytes
	Padded    bool               // some record is framed as 3.0 and later do
	V2        V2Entries
	V3Entries int
}

// V2Entries counts the committed v2 requests.
type V2Entries struct {
	Membership int    // PUT of member attributes or of the cluster version
	Other      int    // everything else
	FirstOther string // the first of those, as "index 91 PUT /1/a"
	User       string // the first one that writes user data, likewise
	LastIndex  uint64 // of the last v2 entry of either sort
}

// summarizer collects a [Log] record by record, and follows the membership.
type summarizer struct {
	base    uint64 // index of the base snapshot
	commit  uint64 // entries above it are only counted
	log     Log
	members *roster
}

func (s *summarizer) add(rec walcodec.Record, segment string) error {
	s.log.Segment, s.log.End = segment, rec.End()
	s.log.Padded = s.log.Padded || rec.Padded
	switch rec.Kind {
	case walcodec.KindState:
		return s.state(rec)
	case walcodec.KindEntry:
		return s.entry(rec)
	default:
		return nil
	}
}

func (s *summarizer) state(rec walcodec.Record) error {
	state, err := walcodec.ParseHardState(rec.Data)
	s.log.State = state
	return err
}

func (s *summarizer) entry(rec walcodec.Record) error {
	e, err := walcodec.ParseEntry(rec.Data)
	if err != nil || e.Index <= s.base {
		return err
	}
	if s.log.First == 0 {
		s.log.First = e.Index
	}
	s.log.Entries++
	s.log.Last, s.log.LastTerm = e.Index, e.Term
	if e.Index > s.commit {
		return nil
	}
	return s.payload(e)
}

func (s *summarizer) payload(e walcodec.Entry) error {
	switch walcodec.ClassifyEntry(e) {
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
		return fmt.Errorf("entry %d: %w", e.Index, err)
	}
	if cc.Type == walcodec.ConfChangeRemoveNode {
		s.members.remove(cc.NodeID)
	}
	return nil
}

func (s *summarizer) v2(e walcodec.Entry) error {
	r, err := walcodec.ParseRequest(e.Data)
	if err != nil {
		return fmt.Errorf("entry %d: %w", e.Index, err)
	}
	v2 := &s.log.V2
	v2.LastIndex = e.Index
	what := fmt.Sprintf("index %d %s %s", e.Index, r.Method, r.Path)
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
	return r.Method == "PUT" && (r.Path == clusterVersionKey || memberOf(r.Path) != 0)
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

// roster follows who has started and who was removed.
type roster struct {
	started map[uint64]string // name by id
	removed map[uint64]bool
	version string // cluster version
}

// see takes in one of the two membership PUTs.
func (m *roster) see(r walcodec.Request) {
	id := memberOf(r.Path)
	if id == 0 {
		m.version = r.Val
		return
	}
	var attr struct {
		Name string `json:"name"`
	}
	if json.Unmarshal([]byte(r.Val), &attr) == nil && attr.Name != "" {
		m.started[id] = attr.Name
	}
}

func (m *roster) remove(id uint64) {
	delete(m.started, id)
	m.removed[id] = true
}
