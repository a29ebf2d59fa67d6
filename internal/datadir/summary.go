package datadir

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Log sums up the entries after the base snapshot, or all where there is none.
type Log struct {
	First    uint64 // index of the first entry; 0 if there is none
	Last     uint64 // index of the last entry
	LastTerm uint64
	Entries  int                // those overwritten by a later leader included
	State    walcodec.HardState // the last one written
	// Commit is the index up to which the entries are known to be committed.
	// The log's own hard state lags: etcd does not write it for a new commit
	// index alone. What a sole voter has stored is committed, and so is what
	// the backend has applied.
	Commit uint64
	// Mark is the snapshot record that etcd would write at the backend's
	// consistent index; nil if that entry is not in the log.
	Mark *walcodec.Snapshot
	// Raised is the one at the last conf change after the mark that the
	// backend holds nevertheless, as 3.4 and before leave it; nil if there is
	// none. A backend is a prefix of the log's effects, so it holds everything
	// up to there.
	Raised   *walcodec.Snapshot
	Padded   bool // some record is framed as 3.0 and later do
	BaseConf bool // the base's snapshot record says who votes (3.5 and later)
	Recorded bool // there is a record of some snapshot
	V2       V2Entries
	V3       int // v3 requests
}

// V2Entries counts the v2 requests.
type V2Entries struct {
	Membership int    // PUT of member attributes or of the cluster version
	Other      int    // everything else
	FirstOther string // the first of those, as "PUT /a at index 91"
	User       string // the first one that writes user data, likewise
}

// fold puts the segments' parts together in the order of the log.
type fold struct {
	scan    *scan
	report  *walcodec.Report
	members *roster
	self    uint64                         // member id
	held    func(walcodec.ConfChange) bool // by the backend
	log     Log
}

// sum is the summary; members starts as of the base and ends as of the commit index.
func (f *fold) sum(base point) Log {
	if f.report.HardState != nil {
		f.log.State = *f.report.HardState
	}
	f.counts(base)
	f.log.Commit = max(f.log.State.Commit, f.scan.mark, base.index)
	f.membership(f.notes())
	f.log.Commit = min(f.log.Commit, f.log.Last)
	return f.log
}

// counts adds up what needs no order, and finds the marked entries.
func (f *fold) counts(base point) {
	last := base
	for i := range f.scan.segments {
		seg := &f.scan.segments[i]
		if f.log.First == 0 {
			f.log.First = seg.first
		}
		f.log.Entries += seg.entries
		f.log.V3 += seg.v3
		f.log.V2.Other += seg.other
		f.log.V2.FirstOther = firstOf(f.log.V2.FirstOther, seg.firstV2)
		f.log.V2.User = firstOf(f.log.V2.User, seg.userV2)
		if seg.markTerm != 0 {
			f.log.Mark = &walcodec.Snapshot{Index: f.scan.mark, Term: seg.markTerm}
		}
		if seg.last.index > base.index {
			last = seg.last
		}
	}
	if f.scan.mark == base.index && base.index != 0 {
		f.log.Mark = &walcodec.Snapshot{Index: base.index, Term: base.term}
	}
	f.log.Last, f.log.LastTerm = last.index, last.term
	for _, seg := range f.report.Segments {
		f.log.Padded = f.log.Padded || seg.Padded
	}
	for _, rec := range f.report.Snapshots {
		f.log.Recorded = f.log.Recorded || rec.Index > 0
		f.log.BaseConf = f.log.BaseConf || rec.Index == base.index && rec.ConfState != nil
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// notes are the membership changes that no later leader took back.
func (f *fold) notes() []note {
	var all []note
	for _, seg := range f.scan.segments {
		for _, n := range seg.notes {
			if !f.report.Overwrites.Discards(n.at, n.index) {
				all = append(all, n)
			}
		}
	}
	return all
}

// membership follows the changes up to the commit index, and beyond it as far
// as the backend proves it, or as this member is the only voter: what a sole
// voter has stored is committed.
func (f *fold) membership(notes []note) {
	for _, n := range notes {
		f.passMark(n.index)
		held := n.conf != nil && n.index > f.scan.mark && f.held(*n.conf)
		if n.index > f.log.Commit && !held && !f.members.alone(f.self) {
			return
		}
		f.log.Commit = max(f.log.Commit, n.index)
		f.take(n)
		if held {
			f.log.Raised = f.record(n.point)
		}
	}
	f.passMark(f.log.Last + 1)
	if f.members.alone(f.self) {
		f.log.Commit = f.log.Last
	}
}

func (f *fold) take(n note) {
	if n.put != nil {
		f.log.V2.Membership++
		f.members.see(*n.put)
		return
	}
	f.members.apply(*n.conf)
}

// passMark says who votes at the mark, if it lies before index.
func (f *fold) passMark(index uint64) {
	if m := f.log.Mark; m != nil && m.ConfState == nil && m.Index < index {
		m.ConfState = f.members.confState()
	}
}

// record is the snapshot record that etcd would write after p.
func (f *fold) record(p point) *walcodec.Snapshot {
	return &walcodec.Snapshot{Index: p.index, Term: p.term, ConfState: f.members.confState()}
}

// isMembership tells etcd's own two PUTs: member attributes and cluster version.
func isMembership(method, path []byte) bool {
	if string(method) != "PUT" || !bytes.HasPrefix(path, []byte(systemPrefix)) {
		return false
	}
	return string(path) == clusterVersionKey || memberOf(string(path)) != 0
}

// SetsClusterVersion tells etcd's own request that raises the cluster version.
func SetsClusterVersion(r walcodec.Request) bool {
	return r.Method == "PUT" && r.Path == clusterVersionKey
}

// Paths in the v2 store. Source: etcdserver/membership/store.go, etcd 2.3.
const (
	systemPrefix      = "/0/"
	clusterVersionKey = "/0/version"
	membersPrefix     = "/0/members/"
	attributesSuffix  = "/attributes"
)

// memberOf is the member whose attributes path holds, 0 for another path.
func memberOf(path string) uint64 {
	rest, ok := strings.CutPrefix(path, membersPrefix)
	if !ok {
		return 0
	}
	hex, ok := strings.CutSuffix(rest, attributesSuffix)
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
func writesUserData(method, path []byte) bool {
	return (string(method) == "PUT" || string(method) == "POST") && !bytes.HasPrefix(path, []byte(systemPrefix))
}
