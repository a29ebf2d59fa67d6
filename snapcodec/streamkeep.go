package snapcodec

import (
	"container/heap"
	"encoding/binary"
	"slices"
)

// keySpan is where a key lies, in bytes from the start of its page.
type keySpan struct{ at, size int64 }

// lastKey adds the page's last key to its note, or waits for it when it lies in
// the pages to come.
func (s *Inspector) lastKey(h *pageHead, b []byte, note pageNote, key keySpan) pageNote {
	want := min(key.size, tombstoneLen)
	if key.at+want <= int64(len(b)) {
		return s.marked(h.id, note, b[key.at:key.at+want], key.size)
	}
	t := tail{id: h.id, off: int64(h.id)*s.db.pageSize + key.at, want: int(want), size: key.size}
	if key.at < int64(len(b)) {
		t.have = copy(t.key[:], b[key.at:])
		t.off += int64(t.have)
	}
	s.tails.add(t)
	return note
}

// marked puts a key into the note of its page. Of a key longer than revisions,
// only the start is there.
func (s *Inspector) marked(id uint64, note pageNote, key []byte, size int64) pageNote {
	mark := keyMark(key)
	if note.level() == levelBranch {
		return note.withMark(noteBranch, mark)
	}
	if size != revisionLen && size != tombstoneLen || key[8] != '_' {
		return note.withMark(noteLeaf, mark)
	}
	rev, _, err := ParseRevision(key)
	if err != nil || rev.Main < 0 {
		return note.withMark(noteLeaf, mark)
	}
	if rev.Sub == 0 && rev.Main < markExact {
		return note.withMark(noteRevision, mark)
	}
	s.recent.add(uint32(id), rev)
	return note.withMark(noteRevisionOther, mark)
}

// tail is a page's last key that lies in its overflow and has not passed.
type tail struct {
	id   uint64
	off  int64 // in the image
	size int64 // of the key
	want int   // bytes of it
	have int
	key  [tombstoneLen]byte
}

// tails are sorted by offset, the next to come last. There is one at a time but
// for what earlier pages left in the overflow of later ones.
type tails []tail

// maxTails bounds them; the page of one that is left out has no mark.
const maxTails = 1024

func (t *tails) add(a tail) {
	if len(*t) == maxTails {
		return
	}
	at, _ := slices.BinarySearchFunc(*t, a.off, func(b tail, off int64) int { return int(off - b.off) })
	*t = slices.Insert(*t, at, a)
}

// resolveTails takes the keys that lie in a page.
func (s *Inspector) resolveTails(id uint64, b []byte) {
	start := int64(id) * s.db.pageSize
	end := start + s.db.pageSize
	first := len(s.tails)
	for first > 0 && s.tails[first-1].off < end {
		first--
	}
	due := s.tails[first:]
	s.tails = s.tails[:first]
	for _, t := range due {
		n := copy(t.key[t.have:t.want], b[t.off-start:])
		t.have += n
		t.off += int64(n)
		if t.have < t.want {
			s.tails = append(s.tails, t) // overwrites due where it has been read
			continue
		}
		note := s.notes.at(t.id)
		if k := note.kind(); k == noteLeafBare || k == noteBranchBare {
			s.notes.set(t.id, s.marked(t.id, note, t.key[:t.want], t.size))
		}
	}
}

// recentRevisions keeps the exact last revisions of those pages whose mark does
// not say it, as far as they are the latest.
type recentRevisions []pageRevision

type pageRevision struct {
	id  uint32
	rev Revision
}

// maxRecent bounds them. While an image is read, etcd may fill as many pages
// with newer revisions before the image's own latest is lost.
const maxRecent = 8192

func (r recentRevisions) Len() int           { return len(r) }
func (r recentRevisions) Less(i, j int) bool { return r[i].rev.Less(r[j].rev) }
func (r recentRevisions) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *recentRevisions) Push(x any)        { *r = append(*r, x.(pageRevision)) }
func (r *recentRevisions) Pop() any {
	last := len(*r) - 1
	p := (*r)[last]
	*r = (*r)[:last]
	return p
}

func (r *recentRevisions) add(id uint32, rev Revision) {
	if len(*r) < maxRecent {
		heap.Push(r, pageRevision{id, rev})
		return
	}
	if (*r)[0].rev.Less(rev) {
		(*r)[0] = pageRevision{id, rev}
		heap.Fix(r, 0)
	}
}

func (r recentRevisions) find(id uint64) (Revision, bool) {
	for _, p := range r {
		if uint64(p.id) == id {
			return p.rev, true
		}
	}
	return Revision{}, false
}

// keptPages are leaves kept whole, for the values in them: those of the root
// bucket, and of the meta bucket where it has pages of its own. Which they are
// is known once the root has passed; until then whatever looks like them counts.
type keptPages struct {
	limit   int // bytes, of those that are not known to be needed
	size    int
	pages   map[uint64]*keptPage
	open    []*keptPage // whose overflow is passing
	wanted  map[uint64]bool
	settled bool // what holds the buckets is all in wanted
	full    bool
}

type keptPage struct {
	data    []byte
	count   int
	length  int64
	buckets bool // holds buckets
}

const (
	keepLimit   = 1 << 20
	keepPageMax = 512 << 10
)

// want makes sure that a page is kept when it passes.
func (k *keptPages) want(id uint64) {
	if k.wanted == nil {
		k.pages, k.wanted = make(map[uint64]*keptPage), make(map[uint64]bool)
	}
	k.wanted[id] = true
}

// settle says where the buckets are: below the root, or in the root alone.
func (k *keptPages) settle(below []uint32) {
	for _, id := range below {
		k.want(uint64(id))
	}
	k.settled = true
	for id, p := range k.pages {
		if p.buckets && !k.wanted[id] {
			k.drop(id, p)
		}
	}
}

func (k *keptPages) drop(id uint64, p *keptPage) {
	k.size -= int(p.length)
	delete(k.pages, id)
	k.open = slices.DeleteFunc(k.open, func(o *keptPage) bool { return o == p })
}

// keep keeps a leaf when it may be needed.
func (s *Inspector) keep(h *pageHead, b []byte) {
	k := &s.kept
	if h.id == s.db.root {
		k.settle(nil)
	}
	buckets := binary.LittleEndian.Uint32(b[pageHeader:])&elementBucket != 0
	needed := k.wanted[h.id]
	if !needed && (!buckets || k.settled) && !startsWithMeta(b) {
		return
	}
	length := h.length(s.db.pageSize)
	if length > keepPageMax || !needed && !s.roomToKeep(length) {
		return
	}
	p := &keptPage{data: append(make([]byte, 0, length), b...), count: h.count, length: length, buckets: buckets}
	k.size += int(length)
	k.pages[h.id] = p
	if h.overflow > 0 {
		k.open = append(k.open, p)
	}
}

// roomToKeep makes room for a page. When hardly any could be made, it is not
// tried again.
func (s *Inspector) roomToKeep(length int64) bool {
	k := &s.kept
	if k.size+int(length) <= k.limit {
		return true
	}
	if k.full {
		return false
	}
	for id, p := range k.pages {
		if p.buckets && !k.wanted[id] && s.isOutdated(id, p) {
			k.drop(id, p)
		}
	}
	k.full = k.size > k.limit/4*3
	return k.size+int(length) <= k.limit
}

// isOutdated tells whether a page leads to a bucket at a page that has passed
// and is none of a tree: the page is an old one.
func (s *Inspector) isOutdated(id uint64, k *keptPage) bool {
	if int64(len(k.data)) < k.length {
		return false
	}
	p := page{db: s.db, id: id, count: k.count, data: k.data}
	for i := range p.count {
		b, err := p.bucket(i)
		if err != nil || b.root != 0 && b.root < s.next && s.notes.at(b.root).level() == levelNone {
			return true
		}
	}
	return false
}

// startsWithMeta tells whether a leaf's first key is one of the meta bucket's.
func startsWithMeta(b []byte) bool {
	le := binary.LittleEndian
	at, size := pageHeader+int64(le.Uint32(b[pageHeader+4:])), int64(le.Uint32(b[pageHeader+8:]))
	if size == revisionLen || size > 20 || at+size > int64(len(b)) {
		return false // most pages: spares a look at the key
	}
	switch string(b[at : at+size]) {
	case "confState", "consistent_index", "finishedCompactRev", "scheduledCompactRev", "storageVersion", "term":
		return true
	}
	return false
}

// feed gives a page to those that it may be the overflow of.
func (k *keptPages) feed(b []byte) {
	if len(k.open) == 0 {
		return
	}
	k.open = slices.DeleteFunc(k.open, func(p *keptPage) bool {
		p.data = append(p.data, b...)
		return int64(len(p.data)) >= p.length
	})
}
