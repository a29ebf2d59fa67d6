package snapcodec

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// liveTree is what is known of the tree of one commit. What is known is
// certain: known pages are in the tree, pages that were taken have the content
// that they have in it, and all pages that they lead to are known. So the tree
// is complete when no known page is missing.
type liveTree struct {
	src, dst *DB
	meta     metaPage

	known   bitmap // first pages of nodes that are in the tree
	have    bitmap // of these, those that were taken
	inner   bitmap // of these, those that lead to others: branches, and leaves with buckets
	reading bitmap // known pages that are being read, and were not dropped since
	kept    bitmap // while comparing: known pages that the next tree has too
	missing int64  // pages known and not taken

	cursor uint64    // where the next read begins to look
	large  []liveRun // pages that did not fit the read that met them

	unwritten map[uint64]innerPage // inner pages that dst may not have yet
}

type innerPage struct {
	data []byte
	by   *liveWrite
}

func (b bitmap) unset(i uint64) { b[i/64] &^= 1 << (i % 64) }

// roots are the pages that a meta page leads to. The list of free pages is
// copied like a tree, when there is one: it too changes by copying.
func roots(m metaPage) []uint64 {
	if m.freelist == noFreelist {
		return []uint64{m.root}
	}
	return []uint64{m.root, m.freelist}
}

// forget drops all that is known.
func (t *liveTree) forget() {
	for _, b := range []bitmap{t.known, t.have, t.inner, t.reading} {
		clear(b)
	}
	t.meta, t.missing, t.cursor, t.large = metaPage{}, 0, 0, nil
	if t.unwritten == nil {
		t.unwritten = make(map[uint64]innerPage)
	}
}

// begin starts with the tree of a commit.
func (t *liveTree) begin(m metaPage) {
	t.resize(m.pages)
	t.meta = m
	for _, id := range roots(m) {
		t.know(id)
	}
}

// resize makes room for page ids below pages.
func (t *liveTree) resize(pages uint64) {
	t.src.pages, t.dst.pages = pages, max(pages, t.dst.pages)
	for _, b := range []*bitmap{&t.known, &t.have, &t.inner, &t.reading, &t.kept} {
		if more := int(pages/64+1) - len(*b); more > 0 {
			*b = append(*b, make(bitmap, more)...)
		}
	}
}

func (t *liveTree) know(id uint64) {
	if !t.known.has(id) {
		t.known.set(id)
		t.missing++
	}
}

// drop forgets a page that the tree no longer has.
func (t *liveTree) drop(id uint64) {
	if !t.have.has(id) {
		t.missing--
	}
	t.known.unset(id)
	t.have.unset(id)
	t.inner.unset(id)
	t.reading.unset(id)
}

// plan says what to read next: missing pages in the file's order, those
// together that lie close. Pages that are too large for that are read alone.
func (t *liveTree) plan() []liveRun {
	for len(t.large) > 0 {
		run := t.large[0]
		t.large = t.large[1:]
		if id := run.id; t.known.has(id) && !t.have.has(id) && !t.reading.has(id) {
			t.reading.set(id)
			return []liveRun{run}
		}
	}
	id, ok := t.nextMissing(t.cursor)
	if !ok {
		id, ok = t.nextMissing(0)
	}
	var runs []liveRun
	left := uint64(liveReadSize / t.src.pageSize)
	for ok && left > 0 {
		var used uint64
		if runs, used = t.extend(runs, id, left); used == 0 {
			break
		}
		left -= used
		t.reading.set(id)
		t.cursor = id + 1
		id, ok = t.nextMissing(t.cursor)
	}
	return runs
}

// extend adds a page to the last run, or a run for it, and tells how many
// pages more are read; 0: it does not fit.
func (t *liveTree) extend(runs []liveRun, id, left uint64) ([]liveRun, uint64) {
	if n := len(runs); n > 0 {
		run := &runs[n-1]
		used := id - (run.id + run.pages) + 1
		if used > left {
			return runs, 0
		}
		if used <= uint64(liveReadGap/t.src.pageSize) {
			run.pages += used
			run.heads = append(run.heads, id)
			return runs, used
		}
	}
	return append(runs, liveRun{id: id, pages: 1, heads: []uint64{id}}), 1
}

// nextMissing finds a page that is missing and not being read.
func (t *liveTree) nextMissing(from uint64) (uint64, bool) {
	mask := ^uint64(0) << (from % 64)
	for i := from / 64; i < uint64(len(t.known)); i++ {
		if w := t.known[i] &^ t.have[i] &^ t.reading[i] & mask; w != 0 {
			return i*64 + uint64(bits.TrailingZeros64(w)), true
		}
		mask = ^uint64(0)
	}
	return 0, false
}

// takeAll takes those pages of a read that are still wanted. The read has to
// be good for the commit that the tree is at. It returns their length in bytes.
func (t *liveTree) takeAll(r *liveRead, w *liveWrite) (int64, error) {
	var taken int64
	for i := range r.runs {
		run := &r.runs[i]
		for _, id := range run.heads {
			if !t.reading.has(id) {
				continue // dropped since
			}
			t.reading.unset(id)
			if run.err != nil {
				return taken, t.src.readError(int64(run.id)*t.src.pageSize, run.err)
			}
			at := run.at + int64(id-run.id)*t.src.pageSize
			n, err := t.take(id, at, run.at+int64(run.pages)*t.src.pageSize, w)
			if err != nil {
				return taken, err
			}
			taken += n
		}
	}
	return taken, nil
}

// take takes one page, which lies in w's buffer from at and may end before
// end. If it does not, it is read again as a whole.
func (t *liveTree) take(id uint64, at, end int64, w *liveWrite) (int64, error) {
	p, err := t.parse(t.src, id, w.buf[at:end])
	if err != nil {
		return 0, err
	}
	if p.data == nil {
		t.large = append(t.large, liveRun{id: id, pages: uint64(p.overflow) + 1, heads: []uint64{id}})
		return 0, nil
	}
	links, err := p.links()
	if err != nil {
		return 0, err
	}
	length := int64(len(p.data))
	w.add(int64(id)*t.src.pageSize, at, length)
	t.hold(&p, links, w)
	return length, nil
}

// parse reads a page's header and finds its data in b; nil when there is more
// of it than b has.
func (t *liveTree) parse(db *DB, id uint64, b []byte) (page, error) {
	p, err := t.parseHeader(db, id, b[:db.pageSize])
	if err != nil {
		return p, err
	}
	if uint64(p.overflow) >= db.pages-id {
		return p, p.damage("says that %d pages follow it", p.overflow)
	}
	length := (int64(p.overflow) + 1) * db.pageSize
	if length > maxPageBytes {
		return p, p.damage("of %d bytes, more than %d", length, maxPageBytes)
	}
	p.data = nil
	if length <= int64(len(b)) {
		p.data = b[:length:length]
	}
	return p, nil
}

func (t *liveTree) parseHeader(db *DB, id uint64, b []byte) (page, error) {
	if id != t.meta.freelist {
		return db.parsePage(id, b)
	}
	le := binary.LittleEndian
	p := page{db: db, id: id, flags: le.Uint16(b[8:]), overflow: le.Uint32(b[12:])}
	if le.Uint64(b) != id || p.flags != flagFreelist {
		return p, p.damage("is no list of free pages")
	}
	return p, nil
}

// links lists the pages that a page leads to.
func (p *page) links() (ids []uint64, err error) {
	switch p.flags {
	case flagBranch:
		ids, err = p.children(nil)
	case flagLeaf:
		ids, err = p.bucketRoots()
	}
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if id < 2 || id >= p.db.pages {
			return nil, p.damage("leads to page %d of %d", id, p.db.pages)
		}
	}
	return ids, nil
}

// bucketRoots lists the root pages of the buckets in a leaf.
func (p *page) bucketRoots() (ids []uint64, err error) {
	for i := range p.count {
		e, err := p.leaf(i)
		if err != nil {
			return nil, err
		}
		if e.flags&elementBucket == 0 {
			continue
		}
		if e.end-e.value < bucketHeader {
			return nil, p.damage("bucket %.40q is cut short", p.data[e.key:e.value])
		}
		if root := binary.LittleEndian.Uint64(p.data[e.value:]); root != 0 {
			ids = append(ids, root)
		}
	}
	return ids, nil
}

// hold notes that a page was taken, and to which pages it leads.
func (t *liveTree) hold(p *page, links []uint64, w *liveWrite) {
	t.have.set(p.id)
	t.missing--
	for _, id := range links {
		t.know(id)
	}
	if len(links) > 0 {
		t.inner.set(p.id)
		t.unwritten[p.id] = innerPage{p.data, w}
		w.leading = append(w.leading, p.id)
	}
}

// wrote notes that dst has what was to be written.
func (t *liveTree) wrote(w *liveWrite) {
	for _, id := range w.leading {
		if t.unwritten[id].by == w {
			delete(t.unwritten, id)
		}
	}
}

// liveDiff is what the tree of a commit has that the one before does not.
type liveDiff struct {
	meta  metaPage
	fresh []freshPage
	later []uint64 // pages that were not looked into
	seen  map[uint64]bool
	room  int64      // bytes that fresh pages may still take
	queue [][]uint64 // pages below one page
}

type freshPage struct {
	page
	links []uint64
}

// compare walks the tree of the next commit as far as it differs from the one
// that is known. It marks in kept the pages that both have, and changes nothing
// else. Leaves are left for later, and so is all else when the room is used up:
// what then is not found to be kept is read again. What it returns, its error
// included, is good only if m is still the newest commit afterwards.
func (t *liveTree) compare(m metaPage, room int64) (*liveDiff, error) {
	t.resize(max(m.pages, t.meta.pages))
	t.src.pages = m.pages
	clear(t.kept)
	d := &liveDiff{meta: m, seen: make(map[uint64]bool), room: room}
	d.queue = append(d.queue, []uint64{m.root})
	if m.freelist != noFreelist {
		d.later = t.unknown(d, []uint64{m.freelist})
	}
	for len(d.queue) > 0 {
		group := d.queue[0]
		d.queue = d.queue[1:]
		if err := t.compareGroup(d, group); err != nil {
			return d, err
		}
	}
	return d, nil
}

// unknown marks those pages that are known as kept, and returns the others.
func (t *liveTree) unknown(d *liveDiff, ids []uint64) (others []uint64) {
	for _, id := range ids {
		switch {
		case t.known.has(id):
			t.kept.set(id)
		case !d.seen[id]:
			d.seen[id] = true
			others = append(others, id)
		}
	}
	return others
}

// manyNew is how many pages below one page, and none of them known, tell that
// nothing below is known either: not much was read so far.
const manyNew = 8

// compareGroup looks at pages that lie below one page: if one of them is a
// leaf, so are the others.
func (t *liveTree) compareGroup(d *liveDiff, group []uint64) error {
	others := t.unknown(d, group)
	leaves := len(others) == len(group) && len(group) > manyNew || slices.ContainsFunc(group, func(id uint64) bool {
		return t.known.has(id) && t.have.has(id) && !t.inner.has(id)
	})
	for i, id := range others {
		if leaves || d.room < t.src.pageSize {
			d.later = append(d.later, others[i:]...)
			return nil
		}
		inner, err := t.compareOne(d, id)
		if err != nil {
			return err
		}
		leaves = !inner
	}
	return nil
}

// compareOne reads a page of the new tree. It tells whether it leads to others.
func (t *liveTree) compareOne(d *liveDiff, id uint64) (inner bool, err error) {
	b := make([]byte, t.src.pageSize)
	off := int64(id) * t.src.pageSize
	if n, err := t.src.r.ReadAt(b, off); n < len(b) {
		return false, t.src.readError(off, err)
	}
	p, err := t.parse(t.src, id, b)
	if err != nil {
		return false, err
	}
	if p.data == nil {
		d.later = append(d.later, id)
		return p.flags == flagBranch, nil
	}
	links, err := p.links()
	if err != nil {
		return false, err
	}
	d.room -= int64(len(b))
	d.fresh = append(d.fresh, freshPage{p, links})
	if p.flags == flagBranch {
		d.queue = append(d.queue, links)
		return true, nil
	}
	for _, root := range links {
		d.queue = append(d.queue, []uint64{root})
	}
	return len(links) > 0, nil
}

// adopt goes to the tree that was compared: what is not kept is dropped, what
// is new is known.
func (t *liveTree) adopt(d *liveDiff, w *liveWrite) error {
	stack := roots(t.meta)
	for len(stack) > 0 {
		id := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if !t.known.has(id) || t.kept.has(id) {
			continue
		}
		if t.inner.has(id) {
			links, err := t.linksOf(id)
			if err != nil {
				return err
			}
			stack = append(stack, links...)
		}
		t.drop(id)
	}
	t.meta = d.meta
	for i := range d.fresh {
		p := &d.fresh[i]
		t.know(p.id)
		w.addOwn(int64(p.id)*t.src.pageSize, p.data)
		t.hold(&p.page, p.links, w)
	}
	for _, id := range d.later {
		t.know(id)
	}
	return nil
}

// linksOf reads an inner page that was taken, from the copy.
func (t *liveTree) linksOf(id uint64) ([]uint64, error) {
	if u, ok := t.unwritten[id]; ok {
		p, err := t.parse(t.dst, id, u.data)
		if err != nil {
			return nil, err
		}
		return p.links()
	}
	r := pageReader{db: t.dst}
	p, err := r.read(id)
	if err != nil {
		return nil, err
	}
	return p.links()
}
