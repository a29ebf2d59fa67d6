package snapcodec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// Inspector looks at the image of a backend while it streams by: it is an
// io.Writer, and [Inspector.Finish] tells afterwards whether all pages were
// there, and what the image holds. Nothing is read back, so the image may go
// straight into compression and encryption.
//
// Pages come in the order of the file, not of the trees, and an etcd that goes
// on writing leaves newer and older pages where the image's own trees do not
// reach. So eight bytes are remembered for each page that might belong to a
// tree, and the page numbers below each branch; the trees are walked at the end.
//
// Memory: 8 bytes for each page that is not zeros (16 MiB for 8 GiB in pages of
// 4 KiB), up to 12 MiB for the branches (about 3 bytes for each page that they
// lead to) and 1 MiB for pages kept whole: never more than 31 MiB for 8 GiB.
//
// Values, and keys other than the last of each page, are not looked at. What
// follows the image, such as the SHA-256 of a snapshot, is passed over.
type Inspector struct {
	name string
	db   *DB    // nil until the meta pages have passed
	head []byte // what has passed until then
	part []byte // of a page that has begun
	size int64  // bytes that have passed
	next uint64 // page that comes next
	err  error

	layout noteLayout
	notes  noteTable
	lists  branchLists
	tails  tails
	recent recentRevisions
	kept   keptPages
	free   pageHead // of the list of free pages
	below  []uint32 // scratch: what a branch leads to
}

// NewInspector makes an Inspector for one image, to be written from its first
// byte on, in pieces of any size.
func NewInspector(o DBOptions) *Inspector {
	return &Inspector{name: o.Name, lists: branchLists{limit: listLimit}, kept: keptPages{limit: keepLimit}}
}

// headSize is where the second meta page ends at the latest.
const headSize = maxPageSize + pageHeader + metaSize

// maxImagePages is what a note's 32 bits can number: 16 TiB in pages of 4 KiB.
const maxImagePages = math.MaxUint32

// Write looks at the next piece of the image. It fails, for good, when what the
// stream begins with is no backend.
func (s *Inspector) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.size += int64(len(p))
	rest := p
	if s.db == nil {
		n := min(headSize-len(s.head), len(p))
		s.head = append(s.head, p[:n]...)
		if len(s.head) < headSize {
			return len(p), nil
		}
		if s.err = s.open(math.MaxInt64); s.err != nil {
			return 0, s.err
		}
		rest = p[n:]
	}
	s.feed(rest)
	return len(p), nil
}

// open picks the meta page, and looks at what has passed. The size is the
// largest that the image may have.
func (s *Inspector) open(size int64) error {
	db, err := OpenDB(bytes.NewReader(s.head), size, DBOptions{Name: s.name})
	if err != nil {
		return err
	}
	if db.pages > maxImagePages {
		return db.corrupt(0, fmt.Errorf("image of %d pages, more than %d", db.pages, uint64(maxImagePages)))
	}
	s.db, s.layout = db, layoutFor(db.pageSize)
	s.kept.want(db.root)
	head := s.head
	s.head = nil
	s.feed(head)
	return nil
}

// feed cuts the stream into pages.
func (s *Inspector) feed(p []byte) {
	size := int(s.db.pageSize)
	if len(s.part) > 0 {
		n := min(size-len(s.part), len(p))
		s.part = append(s.part, p[:n]...)
		p = p[n:]
		if len(s.part) < size {
			return
		}
		s.page(s.part)
		s.part = s.part[:0]
	}
	for ; len(p) >= size; p = p[size:] {
		s.page(p[:size])
	}
	s.part = append(s.part, p...)
}

// page looks at the page that comes next. Until it has a note it has not passed.
func (s *Inspector) page(b []byte) {
	if s.next >= 2 && s.next < s.db.pages {
		s.kept.feed(b)
		s.resolveTails(s.next, b)
		s.look(s.next, b)
	}
	s.next++
}

// look takes a note of a page. It may belong to the overflow of one before it,
// be a page of its own, or have been both.
func (s *Inspector) look(id uint64, b []byte) {
	le := binary.LittleEndian
	if le.Uint64(b)|le.Uint64(b[8:]) == 0 {
		return
	}
	h := pageHead{id: id, flags: le.Uint16(b[8:]), count: int(le.Uint16(b[10:])), overflow: le.Uint32(b[12:])}
	if named := le.Uint64(b); named != id {
		s.notes.set(id, otherNote(reasonHeader, h.flags, uint32(min(named, math.MaxUint32))))
		return
	}
	s.notes.set(id, s.examine(&h, b))
}

// pageHead is the header of a page, at the place that it names.
type pageHead struct {
	id       uint64
	flags    uint16
	count    int
	overflow uint32
}

// tableEnd is where the page's entries end and keys may begin.
func (h *pageHead) tableEnd() int64 { return pageHeader + int64(h.count)*elementSize }

// length is that of the page with its overflow, in bytes.
func (h *pageHead) length(pageSize int64) int64 { return (int64(h.overflow) + 1) * pageSize }

// examine tells what is to be remembered of a page.
func (s *Inspector) examine(h *pageHead, b []byte) pageNote {
	if h.id == s.db.freelist {
		s.free = *h
	}
	length := h.length(s.db.pageSize)
	switch {
	case h.flags != flagBranch && h.flags != flagLeaf:
		return otherNote(reasonHeader, h.flags, uint32(h.id))
	case uint64(h.overflow) >= s.db.pages-h.id:
		return otherNote(reasonOverflow, 0, h.overflow)
	case h.count == 0 && h.flags == flagBranch:
		return otherNote(reasonEmpty, 0, 0)
	case h.tableEnd() > length:
		return otherNote(reasonEntries, 0, uint32(h.count))
	case h.tableEnd() > int64(len(b)) || !s.layout.fits(h):
		return pageNote(noteUnfit) // bbolt writes no such page
	case h.flags == flagBranch:
		return s.branch(h, b)
	}
	return s.leaf(h, b)
}

// leaf looks at a leaf: where its entries lie, and its last key.
func (s *Inspector) leaf(h *pageHead, b []byte) pageNote {
	note := s.layout.note(noteLeafBare, h)
	if h.count == 0 {
		return note
	}
	last, bad := checkLeafTable(b[pageHeader:h.tableEnd()], h.length(s.db.pageSize))
	if bad >= 0 {
		return otherNote(reasonEntry, 0, uint32(bad))
	}
	s.keep(h, b)
	return s.lastKey(h, b, note, last)
}

// checkLeafTable checks the bounds of a leaf's entries, as page.leaf does. It
// gives the last key's place, and the entry that is out of bounds or -1.
func checkLeafTable(table []byte, length int64) (last keySpan, bad int) {
	le := binary.LittleEndian
	end := pageHeader + uint64(len(table))
	for at := 0; at+elementSize <= len(table); at += elementSize {
		e := table[at : at+elementSize : at+elementSize]
		key := uint64(pageHeader+at) + uint64(le.Uint32(e[4:]))
		size := uint64(le.Uint32(e[8:]))
		if key < end || size == 0 || key+size+uint64(le.Uint32(e[12:])) > uint64(length) {
			return keySpan{}, at / elementSize
		}
		last = keySpan{int64(key), int64(size)}
	}
	return last, -1
}

// branch looks at a branch: what it leads to, and its last key.
func (s *Inspector) branch(h *pageHead, b []byte) pageNote {
	le := binary.LittleEndian
	length := uint64(h.length(s.db.pageSize))
	var last keySpan
	s.below = s.below[:0]
	for i := range h.count {
		at := pageHeader + i*elementSize
		e := b[at : at+elementSize]
		key, size, child := uint64(at)+uint64(le.Uint32(e)), uint64(le.Uint32(e[4:])), le.Uint64(e[8:])
		if size == 0 || key+size > length {
			return otherNote(reasonEntry, 0, uint32(i))
		}
		if child < 2 || child >= s.db.pages || child == h.id {
			return otherNote(reasonChild, 0, uint32(i))
		}
		s.below = append(s.below, uint32(child))
		last = keySpan{int64(key), int64(size)}
	}
	if h.id == s.db.root {
		s.kept.settle(s.below)
	}
	note := s.lastKey(h, b, s.layout.note(noteBranchBare, h), last)
	if child, found := s.contradiction(note, s.below); found {
		return otherNote(reasonBelow, 0, child)
	}
	s.remember(h.id, s.below)
	return note
}

// contradiction finds a page below a branch that can't belong there, among
// those that have passed: it is none, is a branch where the others are leaves,
// or has a last key that is out of order. The branch is then an old one whose
// pages were used again, or the image is damaged.
func (s *Inspector) contradiction(branch pageNote, below []uint32) (child uint32, found bool) {
	separator, known := branch.mark()
	var before uint64
	var level noteLevel
	for i, child := range below {
		if uint64(child) >= s.next {
			continue
		}
		note := s.notes.at(uint64(child))
		switch l := note.level(); {
		case l == levelNone:
			return child, true
		case l == levelUnknown:
			continue
		case level == levelUnknown:
			level = l
		case level != l:
			return child, true
		}
		mark, ok := note.mark()
		if !ok {
			continue
		}
		isLast := i == len(below)-1
		if mark < before || known && (isLast && mark < separator || !isLast && mark > separator) {
			return child, true
		}
		before = mark
	}
	return 0, false
}
