package snapcodec

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// ConfState is raft's view of who votes. etcd 2.x knows Voters only.
type ConfState struct {
	Voters         []uint64 `json:"voters"`
	Learners       []uint64 `json:"learners,omitempty"`
	VotersOutgoing []uint64 `json:"voters_outgoing,omitempty"`
	LearnersNext   []uint64 `json:"learners_next,omitempty"`
	AutoLeave      bool     `json:"auto_leave,omitempty"`
}

// lists names the repeated fields by number. Source: raftpb/raft.proto, raft 3.7.
func (c *ConfState) list(n protowire.Number) *[]uint64 {
	switch n {
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

const fieldAutoLeave = 5

// ParseConfState decodes raftpb.ConfState. Lists may be packed or not; fields
// that are not known are skipped.
func ParseConfState(data []byte) (ConfState, error) {
	var c ConfState
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return ConfState{}, fmt.Errorf("conf state: %w", protowire.ParseError(n))
		}
		m, err := c.consume(num, typ, data[n:])
		if err != nil {
			return ConfState{}, err
		}
		data = data[n+m:]
	}
	return c, nil
}

// consume decodes the value of one field and returns its length in bytes.
func (c *ConfState) consume(num protowire.Number, typ protowire.Type, data []byte) (int, error) {
	list := c.list(num)
	switch {
	case list != nil && typ == protowire.BytesType:
		return consumePacked(list, data)
	case list != nil && typ == protowire.VarintType, num == fieldAutoLeave && typ == protowire.VarintType:
		v, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return 0, fmt.Errorf("conf state field %d: %w", num, protowire.ParseError(n))
		}
		if list != nil {
			*list = append(*list, v)
		} else {
			c.AutoLeave = v != 0
		}
		return n, nil
	case list != nil || num == fieldAutoLeave:
		return 0, fmt.Errorf("conf state field %d: wire type %d", num, typ)
	}
	n := protowire.ConsumeFieldValue(num, typ, data)
	if n < 0 {
		return 0, fmt.Errorf("conf state field %d: %w", num, protowire.ParseError(n))
	}
	return n, nil
}

var errPacked = errors.New("conf state: bad packed list")

func consumePacked(list *[]uint64, data []byte) (int, error) {
	packed, n := protowire.ConsumeBytes(data)
	if n < 0 {
		return 0, errPacked
	}
	for len(packed) > 0 {
		v, m := protowire.ConsumeVarint(packed)
		if m < 0 {
			return 0, errPacked
		}
		*list = append(*list, v)
		packed = packed[m:]
	}
	return n, nil
}

// AppendConfState encodes c, unpacked as etcd does. AutoLeave is left out when
// false, as etcd 3.7 does: every version reads absence as false.
func AppendConfState(dst []byte, c ConfState) []byte {
	for num := protowire.Number(1); num < fieldAutoLeave; num++ {
		for _, v := range *c.list(num) {
			dst = protowire.AppendTag(dst, num, protowire.VarintType)
			dst = protowire.AppendVarint(dst, v)
		}
	}
	if c.AutoLeave {
		dst = protowire.AppendTag(dst, fieldAutoLeave, protowire.VarintType)
		dst = protowire.AppendVarint(dst, 1)
	}
	return dst
}
