package snapcodec

import (
	"encoding/binary"
	"sort"
)

// branchLists remembers which pages each branch leads to: the branches in order,
// each as its distance from the block's first (varint), the length of its list in
// bytes (2), and the list, where every page is its distance from the one before
// it (varint).
type branchLists struct {
	limit    int // bytes
	size     int
	lastOnly bool // too many branches: of each the last page only
	full     bool // even so too many
	blocks   []listBlock
	scratch  []byte
}

// listBlock is a piece of the lists that starts anew, to be found by its first
// branch.
type listBlock struct {
	first uint32
	data  []byte
}

const (
	listLimit     = 12 << 20
	listBlockSize = 16 << 10
)

// remember adds a branch's list, and makes room when there is none.
func (s *Inspector) remember(id uint64, below []uint32) {
	if s.lists.full {
		return
	}
	s.lists.add(uint32(id), below)
	if s.lists.size <= s.lists.limit {
		return
	}
	s.sieve()
	if s.lists.size <= s.lists.limit/4*3 {
		return
	}
	s.lists.full, s.lists.lastOnly = s.lists.lastOnly, true
	s.sieve()
}

// sieve drops the lists of branches that have meanwhile turned out to be no
// part of the image: old ones, whose pages were used again.
func (s *Inspector) sieve() {
	old := s.lists
	s.lists = branchLists{limit: old.limit, lastOnly: old.lastOnly, full: old.full}
	for i := range old.blocks {
		old.blocks[i].each(func(id uint32, list []byte) bool {
			s.below = appendList(s.below[:0], id, list)
			if child, found := s.contradiction(s.notes.at(uint64(id)), s.below); found {
				s.notes.set(uint64(id), otherNote(reasonBelow, 0, child))
			} else {
				s.lists.add(id, s.below)
			}
			return true
		})
		old.blocks[i].data = nil
	}
}

// add appends a list. Branches come in the order of their pages.
func (l *branchLists) add(id uint32, below []uint32) {
	if l.lastOnly {
		below = below[len(below)-1:]
	}
	l.scratch = encodeList(l.scratch[:0], id, below)
	need := binary.MaxVarintLen32 + 2 + len(l.scratch)
	last := len(l.blocks) - 1
	if last < 0 || cap(l.blocks[last].data)-len(l.blocks[last].data) < need {
		size := max(listBlockSize, need)
		l.blocks = append(l.blocks, listBlock{id, make([]byte, 0, size)})
		l.size += size
		last++
	}
	b := &l.blocks[last]
	b.data = binary.AppendUvarint(b.data, uint64(id-b.first))
	b.data = binary.LittleEndian.AppendUint16(b.data, uint16(len(l.scratch)))
	b.data = append(b.data, l.scratch...)
}

func encodeList(dst []byte, id uint32, below []uint32) []byte {
	before := int64(id)
	for _, child := range below {
		dst = binary.AppendVarint(dst, int64(child)-before)
		before = int64(child)
	}
	return dst
}

// each visits the lists of a block.
func (b *listBlock) each(visit func(id uint32, list []byte) bool) {
	for d := b.data; len(d) > 0; {
		distance, n := binary.Uvarint(d)
		length := int(binary.LittleEndian.Uint16(d[n:]))
		d = d[n+2:]
		if !visit(b.first+uint32(distance), d[:length]) {
			return
		}
		d = d[length:]
	}
}

// appendList decodes a list.
func appendList(below []uint32, id uint32, list []byte) []uint32 {
	child := int64(id)
	for len(list) > 0 {
		distance, n := binary.Varint(list)
		child += distance
		below = append(below, uint32(child))
		list = list[n:]
	}
	return below
}

// appendBelow appends the pages below a branch, as far as they are remembered.
func (l *branchLists) appendBelow(below []uint32, id uint32) []uint32 {
	at := sort.Search(len(l.blocks), func(i int) bool { return l.blocks[i].first > id }) - 1
	if at < 0 {
		return below
	}
	l.blocks[at].each(func(have uint32, list []byte) bool {
		if have == id {
			below = appendList(below, id, list)
		}
		return have < id
	})
	return below
}
