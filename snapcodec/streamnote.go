package snapcodec

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// pageNote is what an [Inspector] remembers of a page. Zero: the page is zeros,
// or has not passed.
//
//	bits   field
//	0-2    kind
//	3-25   shape: overflow, and in the low bits the count of entries
//	26-63  mark of the last key
//
// A page that is none of a tree has in their place a reason (4 bits), the page's
// type (16) and, from bit 32 on, a number that goes with the reason.
type pageNote uint64

// noteKind is how to read a note.
type noteKind uint8

const (
	noteOther         noteKind = iota // no page of a tree
	noteUnfit                         // a page of a tree that does not fit in a note
	noteBranch                        // mark: of the last separator
	noteBranchBare                    // without a mark
	noteLeaf                          // the last key is no revision
	noteLeafBare                      // without a mark: empty, or the last key was not remembered
	noteRevision                      // the last key is the revision that the mark gives, sub 0
	noteRevisionOther                 // the last key is a revision with another sub, or too large for a mark
)

const (
	noteShapeAt, noteShapeBits = 3, 23
	noteMarkAt, noteMarkBits   = 26, 38
)

// noteReason is why a page is none of a tree.
type noteReason uint8

const (
	reasonHeader   noteReason = 1 + iota // number: page that the header names
	reasonOverflow                       // number: pages that are to follow
	reasonEmpty                          // a branch
	reasonEntries                        // number: of entries
	reasonEntry                          // number: entry that lies outside
	reasonChild                          // number: entry whose page is none of the image
	reasonBelow                          // number: page that can't be below this branch
)

func otherNote(r noteReason, flags uint16, number uint32) pageNote {
	return pageNote(r)<<3 | pageNote(flags)<<7 | pageNote(number)<<32
}

func (n pageNote) kind() noteKind     { return noteKind(n & 7) }
func (n pageNote) reason() noteReason { return noteReason(n >> 3 & 15) }
func (n pageNote) number() uint32     { return uint32(n >> 32) }

// describe says what is in a page that should be one of a tree.
func (n pageNote) describe() string {
	switch n.reason() {
	case reasonHeader:
		return fmt.Sprintf("holds a header of page %d, type %#x", n.number(), uint16(n>>7))
	case reasonOverflow:
		return fmt.Sprintf("says that %d pages follow it", n.number())
	case reasonEmpty:
		return "holds a branch without entries"
	case reasonEntries:
		return fmt.Sprintf("holds %d entries that do not fit", n.number())
	case reasonEntry:
		return fmt.Sprintf("holds an entry %d that lies outside of it", n.number())
	case reasonChild:
		return fmt.Sprintf("holds an entry %d whose page is none of the image", n.number())
	case reasonBelow:
		return fmt.Sprintf("leads to page %d, which can't be there", n.number())
	}
	return "holds zeros"
}

// noteLevel is where in a tree a page can be.
type noteLevel uint8

const (
	levelUnknown noteLevel = iota
	levelNone
	levelLeaf
	levelBranch
)

func (n pageNote) level() noteLevel {
	switch n.kind() {
	case noteOther:
		return levelNone
	case noteUnfit:
		return levelUnknown
	case noteBranch, noteBranchBare:
		return levelBranch
	}
	return levelLeaf
}

// mark stands for the page's last key.
func (n pageNote) mark() (mark uint64, ok bool) {
	switch n.kind() {
	case noteBranch, noteLeaf, noteRevision, noteRevisionOther:
		return uint64(n >> noteMarkAt), true
	}
	return 0, false
}

// withMark gives a note another kind and a mark.
func (n pageNote) withMark(k noteKind, mark uint64) pageNote {
	return n&^(1<<noteShapeAt-1)&(1<<noteMarkAt-1) | pageNote(k) | pageNote(mark)<<noteMarkAt
}

// markExact is the number above which marks are rounded.
const markExact = 1 << (noteMarkBits - 1)

// keyMark puts the start of a key in a mark's 38 bits, so that marks are never
// in another order than keys. Revisions up to 137 billion are their own mark.
func keyMark(key []byte) uint64 {
	var b [8]byte
	copy(b[:], key)
	v := binary.BigEndian.Uint64(b[:])
	if v < markExact {
		return v
	}
	return markExact | v>>(64-noteMarkBits+1)
}

// noteLayout says how many of the shape's bits are the count of entries. Pages
// with room for more entries need fewer bits for what follows them.
type noteLayout struct{ countBits int }

// layoutFor makes room for as many entries as fit in a page without overflow;
// that leaves room for 128 MiB of overflow, whatever the page size.
func layoutFor(pageSize int64) noteLayout {
	return noteLayout{bits.Len64(uint64(pageSize)) - 1 - 4}
}

func (l noteLayout) fits(h *pageHead) bool {
	return h.count>>l.countBits == 0 && uint64(h.overflow)>>(noteShapeBits-l.countBits) == 0
}

func (l noteLayout) note(k noteKind, h *pageHead) pageNote {
	shape := pageNote(h.overflow)<<l.countBits | pageNote(h.count)
	return pageNote(k) | shape<<noteShapeAt
}

func (l noteLayout) count(n pageNote) int64 {
	return int64(n >> noteShapeAt & (1<<l.countBits - 1))
}

func (l noteLayout) overflow(n pageNote) uint64 {
	return uint64(n&(1<<noteMarkAt-1)) >> (noteShapeAt + l.countBits)
}

// noteTable holds notes by page; stretches without any cost next to nothing.
type noteTable struct{ chunks []*noteChunk }

const noteChunkLen = 1024

type noteChunk [noteChunkLen]pageNote

func (t *noteTable) set(id uint64, n pageNote) {
	at := int(id / noteChunkLen)
	if at >= len(t.chunks) {
		t.chunks = append(t.chunks, make([]*noteChunk, at+1-len(t.chunks))...)
	}
	if t.chunks[at] == nil {
		t.chunks[at] = new(noteChunk)
	}
	t.chunks[at][id%noteChunkLen] = n
}

func (t *noteTable) at(id uint64) pageNote {
	at := id / noteChunkLen
	if at >= uint64(len(t.chunks)) || t.chunks[at] == nil {
		return 0
	}
	return t.chunks[at][id%noteChunkLen]
}
