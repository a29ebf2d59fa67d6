package snapcodec

import (
	"fmt"
)

// Image is what an [Inspector] found out about a backend's image. All of it is
// that of the image's own transaction, whatever else lay in its pages.
type Image struct {
	Size     int64  // bytes: see DB.Size
	PageSize int64  // bytes
	TxID     uint64 // of the last transaction
	InUse    int64  // bytes of the pages that the trees use; -1: not known

	// Meta is the meta bucket; nil: not known.
	Meta *BackendMeta
	// Revision is that of the last change; zero when there is none. A part of
	// it that is not known is -1.
	Revision Revision
	// Entries counts the changes in the key bucket, deletions included; -1: not
	// known.
	Entries int64

	// Unknown says what could not be told within the bounds of memory, and so
	// was not checked either. Empty: every page of every tree was there.
	Unknown []string
}

// Whole tells whether every page of every tree was seen to be there.
func (m *Image) Whole() bool { return len(m.Unknown) == 0 }

// CurrentRevision is the revision that etcd has after loading the backend; -1:
// not known. See [DB.CurrentRevision].
func (m *Image) CurrentRevision() int64 {
	if m.Meta == nil || m.Revision.Main < 0 {
		return -1
	}
	return max(1, m.Revision.Main, m.Meta.FinishedCompact, m.Meta.ScheduledCompact)
}

// Finish walks the trees of the image that has passed. An image that is not
// whole is a [*CorruptError] that names the first page that is missing, used
// twice or out of order. What could not be remembered is no error: see
// [Image.Unknown].
func (s *Inspector) Finish() (Image, error) {
	if s.err == nil && s.db == nil {
		s.err = s.open(int64(len(s.head)))
	}
	if s.err != nil {
		return Image{}, s.err
	}
	if s.size < s.db.Size() {
		return Image{}, s.db.corrupt(s.size, fmt.Errorf("image is cut short: it has %d pages of %d bytes", s.db.pages, s.db.pageSize))
	}
	w := imageWalk{Inspector: s, used: make(bitmap, s.db.pages/64+1)}
	return w.run()
}

// imageWalk walks an image's trees in the notes.
type imageWalk struct {
	*Inspector
	used    bitmap // pages claimed
	inUse   int64  // of them
	image   Image
	buckets []Bucket
	ids     [][]uint32 // by depth: what a branch leads to
}

func (w *imageWalk) run() (Image, error) {
	db := w.db
	w.image = Image{Size: db.Size(), PageSize: db.pageSize, TxID: db.txid}
	for id := range uint64(2) {
		w.used.set(id)
		w.inUse++
	}
	if err := w.freePages(); err != nil {
		return Image{}, err
	}
	if err := w.rootBucket(); err != nil {
		return Image{}, err
	}
	for i := range w.buckets {
		if err := w.bucket(&w.buckets[i]); err != nil {
			return Image{}, err
		}
	}
	w.image.InUse = w.inUse * db.pageSize
	if !w.image.Whole() {
		w.image.InUse = -1
	}
	return w.image, nil
}

func (w *imageWalk) unknown(format string, args ...any) {
	w.image.Unknown = append(w.image.Unknown, fmt.Sprintf(format, args...))
}

// freePages claims the list of free pages, when the image has one.
func (w *imageWalk) freePages() error {
	id := w.db.freelist
	if id == noFreelist {
		return nil
	}
	if id < 2 || id >= w.db.pages {
		return w.db.corrupt(0, fmt.Errorf("free list at page %d of %d", id, w.db.pages))
	}
	if w.free.flags != flagFreelist || uint64(w.free.overflow) >= w.db.pages-id {
		return w.db.damage(id, "should be the list of free pages, but %s", w.notes.at(id).describe())
	}
	return w.claim(id, uint64(w.free.overflow), 0)
}

// claim marks a page and its overflow as used.
func (w *imageWalk) claim(id, overflow, parent uint64) error {
	for i := id; i <= id+overflow; i++ {
		if w.used.has(i) {
			return w.db.damage(id, "is referenced by %s, but page %d is used twice", referrer(parent), i)
		}
		w.used.set(i)
		w.inUse++
	}
	return nil
}

// referrer names the page that leads to another; 0: the meta page.
func referrer(parent uint64) string {
	if parent == 0 {
		return "the meta page"
	}
	return fmt.Sprintf("page %d", parent)
}

// imageTree is the walk through one bucket's tree.
type imageTree struct {
	walk     *imageWalk
	name     string
	visit    func(id uint64, note pageNote) error // each leaf with entries
	entries  int64
	partial  bool   // some pages were not remembered
	depth    int    // of the leaves; 0: no leaf yet
	mark     uint64 // of the last leaf that has one
	last     uint64 // the last leaf with entries
	lastSure bool   // it is the bucket's last
}

// tree walks the tree at root.
func (w *imageWalk) tree(name string, root, parent uint64, visit func(id uint64, note pageNote) error) (imageTree, error) {
	t := imageTree{walk: w, name: name, visit: visit, lastSure: true}
	err := t.page(root, parent, 1)
	if t.partial {
		w.unknown("%s: more pages than can be remembered", name)
	}
	return t, err
}

func (t *imageTree) page(id, parent uint64, depth int) error {
	w := t.walk
	if depth > maxTreeDepth {
		return w.db.damage(id, "tree is deeper than %d pages", maxTreeDepth)
	}
	if id < 2 || id >= w.db.pages {
		return w.db.corrupt(int64(parent)*w.db.pageSize, fmt.Errorf("page %d, referenced by %s, is none of the %d pages", id, referrer(parent), w.db.pages))
	}
	note := w.notes.at(id)
	switch note.level() {
	case levelNone:
		return t.missing(id, parent, note)
	case levelUnknown:
		t.partial, t.lastSure = true, false
		return w.claim(id, 0, parent)
	}
	if err := w.claim(id, w.layout.overflow(note), parent); err != nil {
		return err
	}
	if note.level() == levelLeaf {
		return t.leaf(id, parent, depth, note)
	}
	return t.branch(id, depth, note)
}

// missing is the error for a page that is none of a tree. A branch that can't be
// one of the image's is told by the page below it that is wrong.
func (t *imageTree) missing(id, parent uint64, note pageNote) error {
	for range maxTreeDepth {
		if note.level() != levelNone || note.reason() != reasonBelow {
			break
		}
		id, parent = uint64(note.number()), id
		note = t.walk.notes.at(id)
	}
	if note.level() != levelNone || note.reason() == reasonBelow {
		return t.walk.db.damage(id, "is referenced by %s, but holds other keys than belong there, or is of another depth", referrer(parent))
	}
	return t.walk.db.damage(id, "is referenced by %s, but %s", referrer(parent), note.describe())
}

func (t *imageTree) leaf(id, parent uint64, depth int, note pageNote) error {
	w := t.walk
	if t.depth == 0 {
		t.depth = depth
	}
	if depth != t.depth {
		return t.missing(id, parent, note)
	}
	if mark, ok := note.mark(); ok {
		if mark < t.mark {
			return w.db.damage(id, "is referenced by %s, but its keys are below those of page %d before it", referrer(parent), t.last)
		}
		t.mark = mark
	}
	count := w.layout.count(note)
	if count == 0 {
		return nil
	}
	t.entries += count
	t.last, t.lastSure = id, true
	if t.visit == nil {
		return nil
	}
	return t.visit(id, note)
}

// branch walks what is below a branch.
func (t *imageTree) branch(id uint64, depth int, note pageNote) error {
	w := t.walk
	for len(w.ids) <= depth {
		w.ids = append(w.ids, nil)
	}
	below := w.lists.appendBelow(w.ids[depth][:0], uint32(id))
	w.ids[depth] = below
	if int64(len(below)) < w.layout.count(note) {
		t.partial, t.lastSure = true, false
	} else if child, found := w.contradiction(note, below); found {
		return t.missing(uint64(child), id, w.notes.at(uint64(child)))
	}
	for _, child := range below {
		if err := t.page(uint64(child), id, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// rootBucket finds the buckets.
func (w *imageWalk) rootBucket() error {
	_, err := w.tree("root bucket", w.db.root, 0, func(id uint64, _ pageNote) error {
		p, ok := w.keptPage(id)
		if !ok {
			w.unknown("root bucket: page %d was not kept", id)
			return nil
		}
		return w.addBuckets(&p)
	})
	if !w.image.Whole() {
		w.image.Revision, w.image.Entries = Revision{-1, -1}, -1
	} else {
		w.image.Meta = &BackendMeta{ScheduledCompact: -1, FinishedCompact: -1}
	}
	return err
}

// keptPage gives a page that was kept as readers of a file do.
func (w *imageWalk) keptPage(id uint64) (page, bool) {
	k := w.kept.pages[id]
	if k == nil || int64(len(k.data)) < k.length {
		return page{}, false
	}
	return page{db: w.db, id: id, flags: flagLeaf, count: k.count, data: k.data}, true
}

func (w *imageWalk) addBuckets(p *page) error {
	for i := range p.count {
		b, err := p.bucket(i)
		if err != nil {
			return err
		}
		if len(w.buckets) == maxBuckets {
			return p.damage("more than %d buckets", maxBuckets)
		}
		w.buckets = append(w.buckets, b)
	}
	return nil
}

// bucket walks one bucket.
func (w *imageWalk) bucket(b *Bucket) error {
	if b.root == 0 {
		return w.inline(b)
	}
	name := fmt.Sprintf("bucket %.40s", b.Name)
	var visit func(id uint64, note pageNote) error
	switch b.Name {
	case "meta":
		visit = w.metaLeaf
	case "key":
		visit = w.keyLeaf
	}
	t, err := w.tree(name, b.root, b.holder, visit)
	if err != nil {
		return err
	}
	switch {
	case b.Name == "key":
		w.setKeys(&t)
	case b.Name == "meta" && t.partial:
		w.image.Meta = nil
	}
	return nil
}

// inline reads a bucket that lies within the root bucket.
func (w *imageWalk) inline(b *Bucket) error {
	p, err := b.inlinePage()
	if err != nil {
		return err
	}
	switch b.Name {
	case "meta":
		return w.setMeta(&p)
	case "key":
		if w.image.Revision, err = b.lastRevision(); err != nil {
			return err
		}
		w.image.Entries = int64(p.count)
	}
	return nil
}

// metaLeaf reads a leaf of the meta bucket.
func (w *imageWalk) metaLeaf(id uint64, _ pageNote) error {
	p, ok := w.keptPage(id)
	if !ok {
		w.unknown("bucket meta: page %d was not kept", id)
		w.image.Meta = nil
		return nil
	}
	return w.setMeta(&p)
}

func (w *imageWalk) setMeta(p *page) error {
	if w.image.Meta == nil {
		return nil
	}
	for i := range p.count {
		e, err := p.leaf(i)
		if err != nil {
			return err
		}
		key, value := p.data[e.key:e.value], p.data[e.value:e.end]
		if err := w.image.Meta.set(string(key), value); err != nil {
			return p.damage("bucket meta: key %.64q: %w", key, err)
		}
	}
	return nil
}

// keyLeaf looks at a leaf of the key bucket.
func (w *imageWalk) keyLeaf(id uint64, note pageNote) error {
	if note.kind() == noteLeaf {
		return w.db.damage(id, "belongs to the key bucket, but its last key is no revision")
	}
	return nil
}

// setKeys takes over what the walk through the key bucket found.
func (w *imageWalk) setKeys(t *imageTree) {
	w.image.Entries = t.entries
	if t.partial {
		w.image.Entries = -1
	}
	w.image.Revision = Revision{}
	if t.last == 0 && t.lastSure {
		return
	}
	w.image.Revision = w.lastRevision(t)
	if w.image.Revision.Main < 0 || w.image.Revision.Sub < 0 {
		w.unknown("bucket key: the last revision was not remembered")
	}
}

// lastRevision is the last key of the key bucket; -1 for what is not known.
func (w *imageWalk) lastRevision(t *imageTree) Revision {
	note := w.notes.at(t.last)
	mark, ok := note.mark()
	if !ok || !t.lastSure {
		return Revision{-1, -1}
	}
	if note.kind() == noteRevision {
		return Revision{int64(mark), 0}
	}
	if rev, found := w.recent.find(t.last); found {
		return rev
	}
	if mark < markExact {
		return Revision{int64(mark), -1}
	}
	return Revision{-1, -1}
}
