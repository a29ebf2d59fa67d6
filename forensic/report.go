package forensic

import (
	"strconv"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// ID is a member or cluster id; as text it is hex, as etcd prints it.
type ID uint64

// String returns the id in hex.
func (id ID) String() string { return strconv.FormatUint(uint64(id), 16) }

// MarshalText makes the id a hex string in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// MarshalJSON writes damage as a dump has it.
func (d *Damage) MarshalJSON() ([]byte, error) { return d.appendJSON(nil), nil }

// LogReport is what 'wal ls' and 'wal verify' print as JSON. Its form is a
// contract: docs/commands/wal.md.
type LogReport struct {
	Path       string           `json:"path"`
	WALDir     string           `json:"wal_dir"`
	Layout     string           `json:"layout"`
	Member     string           `json:"member"`  // running, stopped or unknown
	Verdict    string           `json:"verdict"` // clean, torn or damaged
	NodeID     *ID              `json:"node_id"`
	ClusterID  *ID              `json:"cluster_id"`
	FirstIndex uint64           `json:"first_index"`
	LastIndex  uint64           `json:"last_index"`
	LastTerm   uint64           `json:"last_term"`
	HardState  *StateReport     `json:"hard_state"`
	Records    RecordCounts     `json:"records"`
	Used       int64            `json:"used"`
	Size       int64            `json:"size"`
	Snapshots  []SnapshotReport `json:"snapshots"`
	Segments   []SegmentReport  `json:"segments"`
	Others     []string         `json:"other_files"`
	Damage     []*Damage        `json:"damage"`
	Torn       *Damage          `json:"torn"`
	Entries    *EntryReport     `json:"entries,omitempty"` // 'wal ls' only
}

// StateReport is a hard state.
type StateReport struct {
	Term   uint64 `json:"term"`
	Vote   ID     `json:"vote"`
	Commit uint64 `json:"commit"`
}

// RecordCounts are numbers of records by kind.
type RecordCounts struct {
	Metadata int64 `json:"metadata"`
	Entry    int64 `json:"entry"`
	State    int64 `json:"state"`
	CRC      int64 `json:"crc"`
	Snapshot int64 `json:"snapshot"`
}

// SnapshotReport is a snapshot record.
type SnapshotReport struct {
	Index    uint64 `json:"index"`
	Term     uint64 `json:"term"`
	Voters   []ID   `json:"voters"` // null before 3.5
	Learners []ID   `json:"learners,omitempty"`
}

// SegmentReport is one file of the log.
type SegmentReport struct {
	Name       string `json:"name"`
	Seq        uint64 `json:"seq"`
	Index      uint64 `json:"index"` // that the name says
	FirstIndex uint64 `json:"first_index"`
	LastIndex  uint64 `json:"last_index"`
	FirstTerm  uint64 `json:"first_term,omitempty"` // 'wal ls' only
	LastTerm   uint64 `json:"last_term"`
	Entries    int64  `json:"entries"`
	Used       int64  `json:"used"`
	Size       int64  `json:"size"`
	Zeros      int64  `json:"zeros"`
	Padded     bool   `json:"padded"`
	Damage     int    `json:"damage"`
	Torn       bool   `json:"torn"`
}

// EntryReport says what the entries are.
type EntryReport struct {
	V2             int64    `json:"v2"`
	V3             int64    `json:"v3"`
	ConfChange     int64    `json:"confchange"`
	Noop           int64    `json:"noop"`
	Unknown        int64    `json:"unknown"`
	Overwritten    int64    `json:"overwritten"`
	ClusterVersion string   `json:"cluster_version"`
	Evidence       []string `json:"evidence"`
}

// The verdicts on a log.
const (
	VerdictClean   = "clean"
	VerdictTorn    = "torn"
	VerdictDamaged = "damaged"
)

// Report sums up a survey, and facts unless they are nil.
func (l *Log) Report(s *Survey, f *Facts) LogReport {
	r := LogReport{
		Path:       l.Path,
		WALDir:     l.Files.WAL,
		Layout:     l.Files.Layout.String(),
		Member:     l.Live.String(),
		Verdict:    s.Verdict(),
		FirstIndex: s.FirstIndex,
		LastIndex:  s.LastIndex,
		LastTerm:   s.LastTerm,
		Records:    RecordCounts(s.Counts),
		Used:       s.Used,
		Size:       s.Size,
		Snapshots:  snapshotReports(s.Snapshots),
		Segments:   segmentReports(s),
		Others:     append([]string{}, l.Others...),
		Damage:     append([]*Damage{}, s.Damage...),
		Torn:       s.Torn,
	}
	if s.Metadata != nil {
		r.NodeID, r.ClusterID = idPointer(s.Metadata.NodeID), idPointer(s.Metadata.ClusterID)
	}
	if h := s.HardState; h != nil {
		r.HardState = &StateReport{h.Term, ID(h.Vote), h.Commit}
	}
	if f != nil {
		r.addFacts(s, f)
	}
	return r
}

// Verdict is clean, torn or damaged.
func (s *Survey) Verdict() string {
	switch {
	case len(s.Damage) > 0:
		return VerdictDamaged
	case s.Torn != nil:
		return VerdictTorn
	}
	return VerdictClean
}

func idPointer(id uint64) *ID {
	typed := ID(id)
	return &typed
}

func (r *LogReport) addFacts(s *Survey, f *Facts) {
	r.Entries = &EntryReport{
		V2:             f.V2,
		V3:             f.V3,
		ConfChange:     f.ConfChanges,
		Noop:           f.Noops,
		Unknown:        f.Unknown,
		Overwritten:    f.Overwritten,
		ClusterVersion: f.ClusterVersion,
		Evidence:       append([]string{}, f.Writers(s)...),
	}
	for i, terms := range f.Terms {
		r.Segments[i].FirstTerm = terms.First
	}
}

func snapshotReports(records []walcodec.SnapshotRecord) []SnapshotReport {
	reports := make([]SnapshotReport, 0, len(records))
	for _, r := range records {
		report := SnapshotReport{Index: r.Index, Term: r.Term}
		if r.ConfState != nil {
			report.Voters, report.Learners = typedIDs(r.ConfState.Voters), typedIDs(r.ConfState.Learners)
		}
		reports = append(reports, report)
	}
	return reports
}

func typedIDs(ids []uint64) []ID {
	typed := make([]ID, 0, len(ids))
	for _, id := range ids {
		typed = append(typed, ID(id))
	}
	return typed
}

func segmentReports(s *Survey) []SegmentReport {
	reports := make([]SegmentReport, 0, len(s.Segments))
	for _, segment := range s.Segments {
		reports = append(reports, SegmentReport{
			Name:       segment.Name,
			Seq:        segment.Seq,
			Index:      segment.Index,
			FirstIndex: segment.FirstIndex,
			LastIndex:  segment.LastIndex,
			LastTerm:   segment.LastTerm,
			Entries:    segment.Counts.Entry,
			Used:       segment.Used,
			Size:       segment.Size,
			Zeros:      segment.Zeros,
			Padded:     segment.Padded,
		})
	}
	for _, d := range s.Damage {
		reports[d.seg].Damage++
	}
	if s.Torn != nil {
		reports[s.Torn.seg].Torn = true
	}
	return reports
}
