package walcodec

import (
	"errors"
	"fmt"
	"strconv"
)

// The messages of this file are those of raftpb/raft.proto and
// wal/walpb/record.proto. Up to etcd 3.6 scalars are always written, zeros
// included; 3.7 leaves unset ones out. So an absent field reads as zero, and
// the Append functions write as 3.6 and earlier do, which every etcd reads.
// A field that no release has is an error.

// Metadata is the payload of a metadata record: whose log this is. It is
// byte-identical in all segments of a log.
type Metadata struct{ NodeID, ClusterID uint64 }

// ParseMetadata decodes the payload of a metadata record.
func ParseMetadata(data []byte) (Metadata, error) {
	var m Metadata
	f := fieldsOf(data)
	for f.next() {
		switch f.tag {
		case 1<<3 | wireVarint:
			m.NodeID = f.num
		case 2<<3 | wireVarint:
			m.ClusterID = f.num
		default:
			f.err = f.unknown()
		}
	}
	if f.err != nil {
		return Metadata{}, fmt.Errorf("metadata: %w", f.err)
	}
	return m, nil
}

// AppendMetadata encodes m.
func AppendMetadata(dst []byte, m Metadata) []byte {
	dst = appendUint(dst, 1, m.NodeID)
	return appendUint(dst, 2, m.ClusterID)
}

// EntryType is the type of a raft entry.
type EntryType int32

// The types of entry.
const (
	EntryNormal       EntryType = 0
	EntryConfChange   EntryType = 1
	EntryConfChangeV2 EntryType = 2
)

// String returns normal, conf-change or conf-change-v2.
func (t EntryType) String() string {
	switch t {
	case EntryNormal:
		return "normal"
	case EntryConfChange:
		return "conf-change"
	case EntryConfChangeV2:
		return "conf-change-v2"
	}
	return "type " + strconv.Itoa(int(t))
}

// An Entry is one entry of the raft log.
type Entry struct {
	Type        EntryType
	Term, Index uint64
	Data        []byte // aliases what it was parsed from; nil when absent
}

// ParseEntry decodes the payload of an entry record, in place.
func ParseEntry(data []byte) (Entry, error) {
	var e Entry
	f := fieldsOf(data)
	for f.next() {
		switch f.tag {
		case 1<<3 | wireVarint:
			e.Type = EntryType(f.num)
		case 2<<3 | wireVarint:
			e.Term = f.num
		case 3<<3 | wireVarint:
			e.Index = f.num
		case 4<<3 | wireBytes:
			e.Data = f.data
		default:
			f.err = f.unknown()
		}
	}
	if f.err != nil {
		return Entry{}, fmt.Errorf("entry: %w", f.err)
	}
	return e, nil
}

// AppendEntry encodes e. A nil Data is left out, an empty one is written.
func AppendEntry(dst []byte, e Entry) []byte {
	dst = appendUint(dst, 1, uint64(e.Type))
	dst = appendUint(dst, 2, e.Term)
	dst = appendUint(dst, 3, e.Index)
	if e.Data == nil {
		return dst
	}
	return appendBytes(dst, 4, e.Data)
}

var errEntryZero = errors.New("entry: term or index is 0")

// plausible refuses what no raft log holds. It tells entries from hard states,
// which share their first fields.
func (e Entry) plausible() error {
	switch {
	case e.Type < EntryNormal || e.Type > EntryConfChangeV2:
		return fmt.Errorf("entry: unknown type %d", e.Type)
	case e.Term == 0 || e.Index == 0:
		return errEntryZero
	case e.Type == EntryConfChange && len(e.Data) == 0:
		return errors.New("entry: conf change without data")
	case e.Type == EntryConfChangeV2 && e.Data == nil:
		return errors.New("entry: conf change without data")
	}
	return nil
}

// HardState is the payload of a state record.
type HardState struct{ Term, Vote, Commit uint64 }

// ParseHardState decodes the payload of a state record.
func ParseHardState(data []byte) (HardState, error) {
	var s HardState
	f := fieldsOf(data)
	for f.next() {
		switch f.tag {
		case 1<<3 | wireVarint:
			s.Term = f.num
		case 2<<3 | wireVarint:
			s.Vote = f.num
		case 3<<3 | wireVarint:
			s.Commit = f.num
		default:
			f.err = f.unknown()
		}
	}
	if f.err != nil {
		return HardState{}, fmt.Errorf("hard state: %w", f.err)
	}
	return s, nil
}

// AppendHardState encodes s.
func AppendHardState(dst []byte, s HardState) []byte {
	dst = appendUint(dst, 1, s.Term)
	dst = appendUint(dst, 2, s.Vote)
	return appendUint(dst, 3, s.Commit)
}

// Snapshot is the payload of a snapshot record: a snapshot was saved at this
// point of the raft log. The snapshot itself is elsewhere.
type Snapshot struct {
	Index, Term uint64
	ConfState   *ConfState // written since 3.5; nil when absent
}

// ParseSnapshot decodes the payload of a snapshot record.
func ParseSnapshot(data []byte) (Snapshot, error) {
	var s Snapshot
	f := fieldsOf(data)
	for f.next() {
		switch f.tag {
		case 1<<3 | wireVarint:
			s.Index = f.num
		case 2<<3 | wireVarint:
			s.Term = f.num
		case 3<<3 | wireBytes:
			f.err = s.setConfState(f.data)
		default:
			f.err = f.unknown()
		}
	}
	if f.err != nil {
		return Snapshot{}, fmt.Errorf("snapshot record: %w", f.err)
	}
	return s, nil
}

func (s *Snapshot) setConfState(data []byte) error {
	c, err := ParseConfState(data)
	s.ConfState = &c
	return err
}

// AppendSnapshot encodes s.
func AppendSnapshot(dst []byte, s Snapshot) []byte {
	dst = appendUint(dst, 1, s.Index)
	dst = appendUint(dst, 2, s.Term)
	if s.ConfState == nil {
		return dst
	}
	return appendBytes(dst, 3, AppendConfState(nil, *s.ConfState))
}

// ConfState is the membership of raft at some index: member ids by role. etcd
// 2.x knows voters only.
type ConfState struct {
	Voters         []uint64
	Learners       []uint64
	VotersOutgoing []uint64
	LearnersNext   []uint64
	AutoLeave      bool
}

// ParseConfState decodes a ConfState.
func ParseConfState(data []byte) (ConfState, error) {
	var c ConfState
	f := fieldsOf(data)
	for f.next() {
		ids := c.list(f.tag >> 3)
		switch {
		case f.tag == 5<<3|wireVarint:
			c.AutoLeave = f.num != 0
		case ids != nil && f.tag&7 == wireVarint:
			*ids = append(*ids, f.num)
		case ids != nil && f.tag&7 == wireBytes:
			*ids, f.err = appendPacked(*ids, f.data)
		default:
			f.err = f.unknown()
		}
	}
	if f.err != nil {
		return ConfState{}, fmt.Errorf("conf state: %w", f.err)
	}
	return c, nil
}

func (c *ConfState) list(field uint64) *[]uint64 {
	switch field {
	case 1:
		return &c.Voters
	case 2:
		return &c.Learners
	case 3:
		return &c.VotersOutgoing
	case 4:
		return &c.LearnersNext
	}
	return nil
}

// appendPacked decodes a packed list; etcd writes them unpacked, and reads both.
func appendPacked(ids []uint64, data []byte) ([]uint64, error) {
	f := fieldsOf(data)
	for len(f.rest) > 0 {
		id, err := f.varint()
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// AppendConfState encodes c.
func AppendConfState(dst []byte, c ConfState) []byte {
	for field := uint64(1); field <= 4; field++ {
		for _, id := range *c.list(field) {
			dst = appendUint(dst, int(field), id)
		}
	}
	return appendBool(dst, 5, c.AutoLeave)
}
