package walcodec

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// ConfChangeType is what a conf change does to a member.
type ConfChangeType int32

// The types of conf change.
const (
	ConfChangeAddNode        ConfChangeType = 0
	ConfChangeRemoveNode     ConfChangeType = 1
	ConfChangeUpdateNode     ConfChangeType = 2
	ConfChangeAddLearnerNode ConfChangeType = 3
)

// String returns add, remove, update or add-learner.
func (t ConfChangeType) String() string {
	switch t {
	case ConfChangeAddNode:
		return "add"
	case ConfChangeRemoveNode:
		return "remove"
	case ConfChangeUpdateNode:
		return "update"
	case ConfChangeAddLearnerNode:
		return "add-learner"
	}
	return "type " + strconv.Itoa(int(t))
}

// ConfChange is the data of an entry of type EntryConfChange.
type ConfChange struct {
	ID      uint64
	Type    ConfChangeType
	NodeID  uint64
	Context []byte // see ParseMember; aliases what it was parsed from
}

// ParseConfChange decodes the data of a conf change entry.
func ParseConfChange(data []byte) (ConfChange, error) {
	var c ConfChange
	f := fieldsOf(data)
	for f.next() {
		switch f.tag {
		case 1<<3 | wireVarint:
			c.ID = f.num
		case 2<<3 | wireVarint:
			c.Type = ConfChangeType(f.num)
		case 3<<3 | wireVarint:
			c.NodeID = f.num
		case 4<<3 | wireBytes:
			c.Context = f.data
		default:
			f.err = f.unknown()
		}
	}
	if f.err != nil {
		return ConfChange{}, fmt.Errorf("conf change: %w", f.err)
	}
	return c, nil
}

// AppendConfChange encodes c. A nil Context is left out.
func AppendConfChange(dst []byte, c ConfChange) []byte {
	dst = appendUint(dst, 1, c.ID)
	dst = appendUint(dst, 2, uint64(c.Type))
	dst = appendUint(dst, 3, c.NodeID)
	if c.Context == nil {
		return dst
	}
	return appendBytes(dst, 4, c.Context)
}

// ConfChangeV2 is the data of an entry of type EntryConfChangeV2. No etcd
// proposes one, and applying one panics; raft's own format allows it.
type ConfChangeV2 struct {
	Transition int32
	Changes    []ConfChangeSingle
	Context    []byte // aliases what it was parsed from
}

// ConfChangeSingle is one of the changes of a ConfChangeV2.
type ConfChangeSingle struct {
	Type   ConfChangeType
	NodeID uint64
}

// ParseConfChangeV2 decodes the data of a conf change v2 entry.
func ParseConfChangeV2(data []byte) (ConfChangeV2, error) {
	var c ConfChangeV2
	f := fieldsOf(data)
	for f.next() {
		switch f.tag {
		case 1<<3 | wireVarint:
			c.Transition = int32(f.num)
		case 2<<3 | wireBytes:
			var s ConfChangeSingle
			s, f.err = parseConfChangeSingle(f.data)
			c.Changes = append(c.Changes, s)
		case 3<<3 | wireBytes:
			c.Context = f.data
		default:
			f.err = f.unknown()
		}
	}
	if f.err != nil {
		return ConfChangeV2{}, fmt.Errorf("conf change v2: %w", f.err)
	}
	return c, nil
}

func parseConfChangeSingle(data []byte) (ConfChangeSingle, error) {
	var s ConfChangeSingle
	f := fieldsOf(data)
	for f.next() {
		switch f.tag {
		case 1<<3 | wireVarint:
			s.Type = ConfChangeType(f.num)
		case 2<<3 | wireVarint:
			s.NodeID = f.num
		default:
			f.err = f.unknown()
		}
	}
	return s, f.err
}

// AppendConfChangeV2 encodes c. A nil Context is left out.
func AppendConfChangeV2(dst []byte, c ConfChangeV2) []byte {
	dst = appendUint(dst, 1, uint64(c.Transition))
	for _, s := range c.Changes {
		single := appendUint(nil, 1, uint64(s.Type))
		dst = appendBytes(dst, 2, appendUint(single, 2, s.NodeID))
	}
	if c.Context == nil {
		return dst
	}
	return appendBytes(dst, 3, c.Context)
}

// Member is the context of a ConfChange that adds or updates a member, as
// etcd writes it (membership.ConfigChangeContext): JSON with the id in decimal.
type Member struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"` // 3.4 and later
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
	IsPromote  bool     `json:"isPromote,omitempty"` // 3.4 and later: a learner becomes a voter
}

// ParseMember decodes the context of a ConfChange. A removal has none: its
// zero Member is not an error.
func ParseMember(context []byte) (Member, error) {
	var m Member
	if len(context) == 0 {
		return m, nil
	}
	if err := json.Unmarshal(context, &m); err != nil {
		return Member{}, fmt.Errorf("conf change context: %w", err)
	}
	return m, nil
}
