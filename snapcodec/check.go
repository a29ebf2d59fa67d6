package snapcodec

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// CheckReport is what a structural check of a backend found.
type CheckReport struct {
	Pages     int64 // in the file, up to the high-water mark
	Reachable int64 // of these, those that the trees use
	Entries   int64 // in all buckets
	// Problems lists the damage in the order of the trees, each a
	// *CorruptError with the page's offset; at most a thousand.
	Problems []error
	Total    int64 // problems found, listed or not
}

// maxProblems bounds the list.
const maxProblems = 1000

// Check reads the whole backend and tells all that is wrong with it: meta
// pages, page headers, bounds of entries, order of keys inside of pages and
// across them, pages used twice, the list of free pages when there is one, and
// every record of the buckets that etcd has. Damage is in the report; the error
// says only that the file could not be read.
//
// Values carry no checksum: a changed byte in a value that still decodes is
// found by [VerifyTrailer] or by comparing [DB.HashKV], not here.
func (db *DB) Check() (CheckReport, error) {
	c := checker{db: db, reader: pageReader{db: db}, seen: make(bitmap, db.pages/64+1)}
	c.report.Pages = int64(db.pages)
	c.seen.set(0)
	c.seen.set(1)
	c.metaPages()
	c.tree(db.root, c.bucket)
	c.freePages()
	c.report.Reachable = c.reachable
	return c.report, c.err
}

type bitmap []uint64

func (b bitmap) has(i uint64) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bitmap) set(i uint64)      { b[i/64] |= 1 << (i % 64) }

type checker struct {
	db        *DB
	reader    pageReader
	seen      bitmap // pages claimed by a tree
	reachable int64
	report    CheckReport
	err       error // the file cannot be read
	last      Revision
}

// problem notes damage. Other errors end the check.
func (c *checker) problem(err error) {
	if !isCorrupt(err) {
		if c.err == nil {
			c.err = err
		}
		return
	}
	c.report.Total++
	if len(c.report.Problems) < maxProblems {
		c.report.Problems = append(c.report.Problems, err)
	}
}

// metaPages looks at both meta pages: one is enough to open the file.
func (c *checker) metaPages() {
	for i := range uint64(2) {
		if _, err := c.db.readMeta(int64(i)*c.db.pageSize, c.db.Size()); err != nil {
			c.problem(err)
		}
	}
}

// keyRange is where the keys of a subtree have to lie; nil: no bound.
type keyRange struct{ from, below []byte }

// entryCheck looks at one entry of a leaf.
type entryCheck func(p *page, e leafElement)

// tree checks the tree at id and all its entries.
func (c *checker) tree(id uint64, each entryCheck) {
	c.subtree(id, 0, keyRange{}, each)
}

func (c *checker) subtree(id uint64, depth int, keys keyRange, each entryCheck) {
	if c.err != nil {
		return
	}
	if depth >= maxTreeDepth {
		c.problem(c.db.damage(id, "tree is deeper than %d pages", maxTreeDepth))
		return
	}
	p, err := c.reader.read(id)
	if err != nil {
		c.problem(err)
		return
	}
	if !c.claim(&p) {
		return
	}
	if p.flags == flagLeaf {
		c.leaf(&p, keys, each)
		return
	}
	c.branch(&p, depth, keys, each)
}

// claim marks a page and its overflow as used.
func (c *checker) claim(p *page) bool {
	for i := range uint64(p.overflow) + 1 {
		if c.seen.has(p.id + i) {
			c.problem(p.damage("is used twice"))
			return false
		}
	}
	for i := range uint64(p.overflow) + 1 {
		c.seen.set(p.id + i)
		c.reachable++
	}
	return true
}

// branch checks a branch's own keys, then what is below each.
func (c *checker) branch(p *page, depth int, keys keyRange, each entryCheck) {
	starts, ids := c.branchEntries(p, keys)
	for i, id := range ids {
		below := keys.below
		if i+1 < len(ids) {
			below = starts[i+1]
		}
		c.subtree(id, depth+1, keyRange{starts[i], below}, each)
	}
}

// branchEntries copies the entries of a branch, as far as they are sound.
func (c *checker) branchEntries(p *page, keys keyRange) (starts [][]byte, ids []uint64) {
	if p.count == 0 {
		c.problem(p.damage("branch without entries"))
	}
	previous := keys.from
	for i := range p.count {
		key, id, err := p.branch(i)
		if err != nil {
			c.problem(err)
			return starts, ids
		}
		c.order(p, i, key, previous, keys.below)
		previous = slices.Clone(key)
		starts, ids = append(starts, previous), append(ids, id)
	}
	return starts, ids
}

// order compares a key with the one before it (for the first, with the one that
// leads to the page) and with the end of the page's range.
func (c *checker) order(p *page, i int, key, previous, below []byte) {
	cmp := 1
	if previous != nil {
		cmp = bytes.Compare(key, previous)
	}
	if cmp < 0 || (cmp == 0 && i > 0) {
		c.problem(p.damage("key %x is not above %x before it", clip(key), clip(previous)))
	}
	if below != nil && bytes.Compare(key, below) >= 0 {
		c.problem(p.damage("key %x is not below %x, where the next page starts", clip(key), clip(below)))
	}
}

// clip shortens a key for an error.
func clip(b []byte) []byte { return b[:min(len(b), 64)] }

func (c *checker) leaf(p *page, keys keyRange, each entryCheck) {
	previous := keys.from
	for i := range p.count {
		e, err := p.leaf(i)
		if err != nil {
			c.problem(err)
			return
		}
		key := p.data[e.key:e.value]
		c.order(p, i, key, previous, keys.below)
		previous = key
		each(p, e)
	}
}

// bucket checks an entry of the root bucket, and the bucket that it is. The
// root's leaf has to be copied: the walk below needs the reader.
func (c *checker) bucket(p *page, e leafElement) {
	b, err := p.bucketAt(e)
	if err != nil {
		c.problem(err)
		return
	}
	inner := checker{db: c.db, reader: pageReader{db: c.db}, seen: c.seen, reachable: c.reachable, report: c.report, err: c.err}
	inner.contents(&b)
	c.reachable, c.report, c.err = inner.reachable, inner.report, inner.err
}

// contents checks one bucket.
func (c *checker) contents(b *Bucket) {
	each := c.records(b.Name)
	if b.root != 0 {
		c.tree(b.root, each)
		return
	}
	p, err := b.inlinePage()
	if err != nil {
		c.problem(err)
		return
	}
	c.leaf(&p, keyRange{}, each)
}

// records gives the check for the entries of a bucket.
func (c *checker) records(bucket string) entryCheck {
	decode := c.decoder(bucket)
	return func(p *page, e leafElement) {
		c.report.Entries++
		key, value := p.data[e.key:e.value], p.data[e.value:e.end]
		err := decode(key, value)
		if e.flags&elementBucket != 0 {
			err = errors.New("a bucket inside of a bucket")
		}
		if err != nil {
			c.problem(p.damage("bucket %s: key %q: %w", bucket, clip(key), err))
		}
	}
}

// decoder gives the check for one entry's key and value. Buckets that etcd 3.7
// does not have pass.
func (c *checker) decoder(bucket string) func(k, v []byte) error {
	switch bucket {
	case "key":
		return c.checkRecord
	case "meta":
		return func(k, v []byte) error { return new(BackendMeta).set(string(k), v) }
	case "lease":
		return checkLease
	case "members":
		return checkMember
	case "members_removed":
		return func(k, _ []byte) error { _, err := ParseID(string(k)); return err }
	case "cluster":
		return checkCluster
	case "alarm":
		return func(k, _ []byte) error { _, err := parseMessage(k); return err }
	case "auth":
		return func(k, v []byte) error { return new(Auth).set(string(k), v) }
	case "authUsers":
		return func(k, v []byte) error { return checkNamed(k, v, new(Auth).addUser) }
	case "authRoles":
		return func(k, v []byte) error { return checkNamed(k, v, new(Auth).addRole) }
	}
	return func(_, _ []byte) error { return nil }
}

// checkRecord checks a change of the keyspace.
func (c *checker) checkRecord(k, v []byte) error {
	rev, tombstone, err := ParseRevision(k)
	if err != nil {
		return err
	}
	if rev.Main < 1 || rev.Sub < 0 {
		return fmt.Errorf("revision %s", rev)
	}
	if !c.last.Less(rev) {
		return fmt.Errorf("revision %s after %s", rev, c.last)
	}
	c.last = rev
	kv, err := ParseKeyValue(v)
	switch {
	case err != nil:
		return err
	case len(v) == 0 && !tombstone:
		return nil // what "snapshot restore --bump-revision" adds
	case tombstone && (kv.ModRevision != 0 || kv.Version != 0 || len(kv.Value) > 0):
		return fmt.Errorf("deletion %s has more than a key", rev)
	case !tombstone && kv.ModRevision != rev.Main:
		return fmt.Errorf("revision %s holds a change of revision %d", rev, kv.ModRevision)
	case !tombstone && (kv.Version < 1 || kv.CreateRevision > kv.ModRevision):
		return fmt.Errorf("revision %s: version %d, created at %d", rev, kv.Version, kv.CreateRevision)
	}
	return nil
}

func checkLease(k, v []byte) error {
	m, err := parseMessage(v)
	if err != nil {
		return err
	}
	id, err := bigEndian(k)
	if err == nil && m.varint(1) != id {
		err = fmt.Errorf("holds lease %x", m.varint(1))
	}
	return err
}

func checkMember(k, v []byte) error {
	m, err := parseBackendMember(k, v)
	if err != nil {
		return err
	}
	var inside struct {
		ID uint64 `json:"id"`
	}
	if err := json.Unmarshal(v, &inside); err != nil || inside.ID != m.ID {
		return fmt.Errorf("holds member %x", inside.ID)
	}
	return nil
}

func checkCluster(k, v []byte) error {
	if string(k) == "downgrade" {
		return json.Unmarshal(v, new(Downgrade))
	}
	return nil
}

// checkNamed checks a user or role: field 1 repeats the name.
func checkNamed(k, v []byte, decode func(k, v []byte) error) error {
	if err := decode(k, v); err != nil {
		return err
	}
	m, err := parseMessage(v)
	if err == nil && !bytes.Equal(m.bytes(1), k) {
		err = fmt.Errorf("holds %.40q", m.bytes(1))
	}
	return err
}

// freePages compares the list of free pages, when the file has one, with what
// the trees use. etcd 3.3 and later write none on Linux.
func (c *checker) freePages() {
	if c.db.freelist == noFreelist || c.err != nil {
		return
	}
	free, err := c.freelist()
	if err != nil {
		c.problem(err)
		return
	}
	for id := range c.db.pages {
		switch used, isFree := c.seen.has(id), free.has(id); {
		case used && isFree:
			c.problem(c.db.damage(id, "is used and listed as free"))
		case !used && !isFree:
			c.problem(c.db.damage(id, "is neither used nor free"))
		}
	}
}

// freelist reads the list of free pages and claims its own.
func (c *checker) freelist() (bitmap, error) {
	db, id := c.db, c.db.freelist
	if id < 2 || id >= db.pages {
		return nil, db.corrupt(0, fmt.Errorf("free list at page %d of %d", id, db.pages))
	}
	head, err := c.reader.view(int64(id)*db.pageSize, db.pageSize)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	p := page{db: db, id: id, flags: le.Uint16(head[8:]), count: int(le.Uint16(head[10:])), overflow: le.Uint32(head[12:])}
	if le.Uint64(head) != id || p.flags != flagFreelist || uint64(p.overflow) >= db.pages-id {
		return nil, p.damage("is no list of free pages")
	}
	if !c.claim(&p) {
		return nil, p.damage("list of free pages lies in a tree")
	}
	return c.freeIDs(&p)
}

// freeIDs reads the list itself. A count of 0xffff says that the real one
// follows in 8 bytes.
func (c *checker) freeIDs(p *page) (bitmap, error) {
	off := int64(p.id)*c.db.pageSize + pageHeader
	end := int64(p.id+uint64(p.overflow)+1) * c.db.pageSize
	count := int64(p.count)
	if count == 0xffff {
		b, err := c.reader.view(off, 8)
		if err != nil {
			return nil, err
		}
		count, off = int64(binary.LittleEndian.Uint64(b)), off+8
	}
	if count < 0 || count > (end-off)/8 {
		return nil, p.damage("list of %d free pages does not fit", count)
	}
	return c.freeBitmap(p, io.NewSectionReader(c.db.r, off, count*8))
}

func (c *checker) freeBitmap(p *page, list io.Reader) (bitmap, error) {
	free := make(bitmap, c.db.pages/64+1)
	r := bufio.NewReader(list)
	var b [8]byte
	for {
		_, err := io.ReadFull(r, b[:])
		if err == io.EOF {
			return free, nil
		}
		if err != nil {
			return nil, c.db.readError(int64(p.id)*c.db.pageSize, err)
		}
		id := binary.LittleEndian.Uint64(b[:])
		if id < 2 || id >= c.db.pages || free.has(id) {
			return nil, p.damage("lists page %d as free, twice or out of bounds", id)
		}
		free.set(id)
	}
}
