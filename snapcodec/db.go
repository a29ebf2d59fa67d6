package snapcodec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sync/atomic"
)

// DBOptions tells OpenDB more about its input.
type DBOptions struct {
	Name string // the file's name, for errors
}

// DB is a v3 backend, read as it lies there: never locked, mapped or written.
// Its methods may be called from several goroutines at once.
//
// A backend that an etcd has open changes while it is read; what a DB then says
// may mix states. Read a copy, or a snapshot.
type DB struct {
	r        io.ReaderAt
	name     string
	pageSize int64
	pages    uint64 // high-water mark: page ids are below
	root     uint64 // page of the root bucket
	txid     uint64
	freelist uint64
}

// Constants of the file. Source: bbolt internal/common/{meta,page,types}.go, 1.5.
const (
	dbMagic   = 0xED0CDAED
	dbVersion = 2

	minPageSize = 512
	maxPageSize = 64 << 10

	pageHeader    = 16 // id u64, flags u16, count u16, overflow u32
	elementSize   = 16 // of a branch or leaf element
	metaSize      = 64 // of the meta after the page header
	bucketHeader  = 16 // root u64, sequence u64
	flagBranch    = 1
	flagLeaf      = 2
	flagMeta      = 4
	flagFreelist  = 16
	elementBucket = 1
	noFreelist    = 1<<64 - 1
)

// maxPageBytes bounds one page with its overflow: two of the largest values
// that etcd is ever configured for, with room.
const maxPageBytes = 128 << 20

// OpenDB reads the two meta pages of a backend of size bytes (a trailing
// SHA-256 may be counted or not) and picks the newer valid one, as bbolt does.
func OpenDB(r io.ReaderAt, size int64, o DBOptions) (*DB, error) {
	db := &DB{r: r, name: o.Name}
	first, err := db.readMeta(0, size)
	if err != nil && !isCorrupt(err) {
		return nil, err
	}
	second, err2 := db.secondMeta(first, size)
	if err2 != nil && !isCorrupt(err2) {
		return nil, err2
	}
	if err != nil && err2 != nil {
		return nil, err
	}
	if err != nil || (err2 == nil && second.txid > first.txid) {
		first = second
	}
	return db, db.setMeta(first, size)
}

type metaPage struct {
	pageSize              uint32
	root, freelist, pages uint64
	txid                  uint64
}

// secondMeta reads the other meta page. Where it is depends on the page size,
// which is tried out when the first one cannot tell.
func (db *DB) secondMeta(first metaPage, size int64) (metaPage, error) {
	if first.pageSize != 0 {
		return db.readMeta(int64(first.pageSize), size)
	}
	var err error = db.corrupt(0, errNotBackend)
	for off := int64(minPageSize); off <= maxPageSize; off *= 2 {
		m, merr := db.readMeta(off, size)
		if merr == nil && int64(m.pageSize) == off {
			return m, nil
		}
		if merr != nil && !isCorrupt(merr) {
			err = merr
		}
	}
	return metaPage{}, err
}

var errNotBackend = errors.New("no etcd v3 backend (bbolt database)")

func (db *DB) readMeta(off, size int64) (metaPage, error) {
	if size-off < pageHeader+metaSize {
		return metaPage{}, db.corrupt(off, fmt.Errorf("%w: %d bytes are too few", errNotBackend, size))
	}
	b := make([]byte, pageHeader+metaSize)
	if n, err := db.r.ReadAt(b, off); n < len(b) {
		return metaPage{}, db.readError(off, err)
	}
	if err := checkMeta(b[pageHeader:]); err != nil {
		return metaPage{}, db.corrupt(off, err)
	}
	le := binary.LittleEndian
	m := metaPage{pageSize: le.Uint32(b[pageHeader+8:])}
	b = b[pageHeader+16:]
	m.root, m.freelist, m.pages, m.txid = le.Uint64(b), le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint64(b[32:])
	return m, nil
}

// checkMeta tests magic, version, checksum and page size of a meta.
func checkMeta(b []byte) error {
	le := binary.LittleEndian
	switch magic := le.Uint32(b); {
	case binary.BigEndian.Uint32(b) == dbMagic:
		return errors.New("bbolt database of a big-endian machine")
	case magic != dbMagic:
		return fmt.Errorf("%w: magic %08x", errNotBackend, magic)
	}
	if v := le.Uint32(b[4:]); v != dbVersion {
		return fmt.Errorf("bbolt format %d, want %d", v, dbVersion)
	}
	h := fnv.New64a()
	h.Write(b[:metaSize-8])
	if want := le.Uint64(b[metaSize-8:]); h.Sum64() != want {
		return fmt.Errorf("meta page: %w", ErrChecksum)
	}
	if ps := le.Uint32(b[8:]); ps < minPageSize || ps > maxPageSize || ps&(ps-1) != 0 {
		return fmt.Errorf("page size %d", ps)
	}
	return nil
}

// setMeta takes a meta over and compares it with the file's size.
func (db *DB) setMeta(m metaPage, size int64) error {
	db.pageSize, db.pages, db.root = int64(m.pageSize), m.pages, m.root
	db.txid, db.freelist = m.txid, m.freelist
	if m.pages < 2 || m.pages > uint64(size/db.pageSize) {
		return db.corrupt(0, fmt.Errorf("file of %d bytes is cut short: it has %d pages of %d bytes", size, m.pages, db.pageSize))
	}
	return nil
}

func (db *DB) corrupt(off int64, cause error) error {
	return &CorruptError{File: db.name, Offset: off, Cause: cause}
}

// damage is corruption in a page.
func (db *DB) damage(id uint64, format string, args ...any) error {
	return db.corrupt(int64(id)*db.pageSize, fmt.Errorf("page %d: %w", id, fmt.Errorf(format, args...)))
}

func (db *DB) readError(off int64, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if db.name == "" {
		return fmt.Errorf("read at offset %d: %w", off, err)
	}
	return fmt.Errorf("read %s at offset %d: %w", db.name, off, err)
}

// PageSize is that of the host that created the file, in bytes.
func (db *DB) PageSize() int64 { return db.pageSize }

// Size is the length of the pages in use or free, in bytes: what "snapshot
// status" calls the total size. The file may be longer.
func (db *DB) Size() int64 { return int64(db.pages) * db.pageSize }

// TxID is the number of the last transaction.
func (db *DB) TxID() uint64 { return db.txid }

// page is one page with its overflow. Its data is the reader's memory.
type page struct {
	db       *DB
	id       uint64 // of an inline page: the page that holds it
	flags    uint16
	count    int
	overflow uint32
	data     []byte
}

func (p *page) damage(format string, args ...any) error { return p.db.damage(p.id, format, args...) }

// pageReader reads pages through one window on the file.
type pageReader struct {
	db  *DB
	buf []byte
	off int64 // of the window in the file
	n   int   // bytes in the window
}

const (
	windowSize = 256 << 10 // bytes read at once where pages lie close together
	windowGap  = 8         // pages worth reading and not using
)

// prefetch fills the window from ids on, as far as the pages lie close together
// in the file, which is how snapshots and defragmentation leave them.
func (pr *pageReader) prefetch(ids []uint64) error {
	off := int64(ids[0]) * pr.db.pageSize
	if off >= pr.off && off+pr.db.pageSize <= pr.off+int64(pr.n) {
		return nil
	}
	last := ids[0]
	for _, id := range ids[1:] {
		if id <= last || id-last > windowGap || int64(id+1)*pr.db.pageSize-off > windowSize {
			break
		}
		last = id
	}
	if last == ids[0] || last >= pr.db.pages {
		return nil // read takes single pages, and reports bad ones
	}
	return pr.load(off, int64(last+1)*pr.db.pageSize-off)
}

// load fills the window.
func (pr *pageReader) load(off, length int64) error {
	if int64(cap(pr.buf)) < length {
		pr.buf = make([]byte, length)
	}
	pr.buf = pr.buf[:cap(pr.buf)]
	pr.off, pr.n = off, 0
	n, err := pr.db.r.ReadAt(pr.buf[:length], off)
	if int64(n) < length {
		return pr.db.readError(off+int64(n), err)
	}
	pr.n = n
	return nil
}

// view is a part of the file, from the window when it is there.
func (pr *pageReader) view(off, length int64) ([]byte, error) {
	if off < pr.off || off+length > pr.off+int64(pr.n) {
		if err := pr.load(off, length); err != nil {
			return nil, err
		}
	}
	from := off - pr.off
	return pr.buf[from : from+length : from+length], nil
}

// read reads the page id, valid until the next read. A page's header has to
// name the page and one of the types that trees are made of.
func (pr *pageReader) read(id uint64) (page, error) {
	db := pr.db
	if id < 2 || id >= db.pages {
		return page{}, db.corrupt(0, fmt.Errorf("page %d is none of the %d pages", id, db.pages))
	}
	b, err := pr.view(int64(id)*db.pageSize, db.pageSize)
	if err != nil {
		return page{}, err
	}
	p, err := db.parsePage(id, b)
	if err != nil || p.overflow == 0 {
		return p, err
	}
	if uint64(p.overflow) >= db.pages-id {
		return page{}, p.damage("says that %d pages follow it", p.overflow)
	}
	length := (int64(p.overflow) + 1) * db.pageSize
	if length > maxPageBytes {
		return page{}, p.damage("of %d bytes, more than %d", length, maxPageBytes)
	}
	p.data, err = pr.view(int64(id)*db.pageSize, length)
	return p, err
}

// parsePage reads a page's header.
func (db *DB) parsePage(id uint64, b []byte) (page, error) {
	le := binary.LittleEndian
	p := page{db: db, id: id, flags: le.Uint16(b[8:]), count: int(le.Uint16(b[10:])), overflow: le.Uint32(b[12:]), data: b}
	if got := le.Uint64(b); got != id {
		return page{}, p.damage("header names page %d", got)
	}
	if p.flags != flagBranch && p.flags != flagLeaf {
		return page{}, p.damage("type %#x where a branch or leaf should be", p.flags)
	}
	return p, nil
}

// leafElement is one entry of a leaf: where key and value are in the page. The
// value follows the key.
type leafElement struct {
	flags      uint32
	key, value int // offsets
	end        int
}

// leaf gives entry i of a leaf page, bounds checked.
func (p *page) leaf(i int) (leafElement, error) {
	at := pageHeader + i*elementSize
	if at+elementSize > len(p.data) {
		return leafElement{}, p.damage("%d entries do not fit", p.count)
	}
	le := binary.LittleEndian
	b := p.data[at : at+elementSize]
	key := uint64(at) + uint64(le.Uint32(b[4:]))
	value := key + uint64(le.Uint32(b[8:]))
	end := value + uint64(le.Uint32(b[12:]))
	if end > uint64(len(p.data)) || value == key || key < uint64(pageHeader+p.count*elementSize) {
		return leafElement{}, p.damage("entry %d lies outside of the page", i)
	}
	return leafElement{le.Uint32(b), int(key), int(value), int(end)}, nil
}

// branch gives entry i of a branch page: the smallest key below, and the page.
func (p *page) branch(i int) (key []byte, child uint64, err error) {
	at := pageHeader + i*elementSize
	if at+elementSize > len(p.data) {
		return nil, 0, p.damage("%d entries do not fit", p.count)
	}
	le := binary.LittleEndian
	b := p.data[at : at+elementSize]
	start := uint64(at) + uint64(le.Uint32(b))
	end := start + uint64(le.Uint32(b[4:]))
	if end > uint64(len(p.data)) || end == start {
		return nil, 0, p.damage("entry %d lies outside of the page", i)
	}
	return p.data[start:end], le.Uint64(b[8:]), nil
}

// children appends the pages below a branch.
func (p *page) children(ids []uint64) ([]uint64, error) {
	if p.count == 0 {
		return ids, p.damage("branch without entries")
	}
	for i := range p.count {
		_, id, err := p.branch(i)
		if err != nil {
			return ids, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// firstNotAbove is the entry of a branch below which key is, if anywhere.
func (p *page) firstNotAbove(key []byte) (int, error) {
	at := 0
	for i := 1; i < p.count; i++ {
		k, _, err := p.branch(i)
		if err != nil {
			return 0, err
		}
		if bytes.Compare(k, key) > 0 {
			break
		}
		at = i
	}
	return at, nil
}

// maxTreeDepth is far above what 2^64 entries need.
const maxTreeDepth = 64

// treeWalker visits leaves in key order.
type treeWalker struct {
	pageReader
	visit  func(*page) error
	from   []byte // start here; nil: at the first leaf
	ids    [][]uint64
	budget *pageBudget
}

// pageBudget ends a walk through more leaves than the file has pages, which
// only a tree with a cycle or a page in two places can have.
type pageBudget struct{ left atomic.Int64 }

func (db *DB) budget() *pageBudget {
	b := new(pageBudget)
	b.left.Store(int64(db.pages))
	return b
}

func (w *treeWalker) walk(id uint64, depth int) error {
	if depth >= maxTreeDepth {
		return w.db.damage(id, "tree is deeper than %d pages", maxTreeDepth)
	}
	p, err := w.read(id)
	if err != nil {
		return err
	}
	if w.budget.left.Add(-1) < 0 {
		return p.damage("tree has more pages than the file")
	}
	if p.flags == flagLeaf {
		return w.visit(&p)
	}
	return w.below(&p, depth)
}

// below walks what is under a branch.
func (w *treeWalker) below(p *page, depth int) error {
	start := 0
	if w.from != nil {
		at, err := p.firstNotAbove(w.from)
		if err != nil {
			return err
		}
		start = at
	}
	for len(w.ids) <= depth {
		w.ids = append(w.ids, nil)
	}
	ids, err := p.children(w.ids[depth][:0])
	w.ids[depth] = ids
	if err != nil {
		return err
	}
	for i := start; i < len(ids); i++ {
		if err := w.prefetch(ids[i:]); err != nil {
			return err
		}
		if err := w.walk(ids[i], depth+1); err != nil {
			return err
		}
		w.from = nil
	}
	return nil
}

// Bucket is one of the backend's buckets.
type Bucket struct {
	db     *DB
	Name   string
	root   uint64 // page, or 0
	inline []byte // a leaf page, when root is 0
	holder uint64 // page that an inline bucket lies in
}

// Buckets lists the buckets by name, in the file's order, which is that of the
// bytes. etcd nests none.
func (db *DB) Buckets() ([]Bucket, error) {
	var all []Bucket
	err := (&Bucket{db: db, root: db.root}).leaves(nil, func(p *page) error {
		for i := range p.count {
			b, err := p.bucket(i)
			if err != nil {
				return err
			}
			if len(all) == maxBuckets {
				return p.damage("more than %d buckets", maxBuckets)
			}
			all = append(all, b)
		}
		return nil
	})
	return all, err
}

// maxBuckets bounds the list of buckets; etcd 3.7 makes ten.
const maxBuckets = 1000

// bucket reads entry i of a leaf of the root bucket.
func (p *page) bucket(i int) (Bucket, error) {
	e, err := p.leaf(i)
	if err != nil {
		return Bucket{}, err
	}
	return p.bucketAt(e)
}

func (p *page) bucketAt(e leafElement) (Bucket, error) {
	name := p.data[e.key:e.value]
	if e.flags&elementBucket == 0 || e.end-e.value < bucketHeader {
		return Bucket{}, p.damage("key %.40q is no bucket", name)
	}
	b := Bucket{db: p.db, Name: string(name), root: binary.LittleEndian.Uint64(p.data[e.value:]), holder: p.id}
	if b.root == 0 {
		b.inline = slices.Clone(p.data[e.value+bucketHeader : e.end])
		if len(b.inline) < pageHeader {
			return Bucket{}, p.damage("bucket %.40q is cut short", name)
		}
	}
	return b, nil
}

// Bucket finds a bucket by name; nil when there is none.
func (db *DB) Bucket(name string) (*Bucket, error) {
	all, err := db.Buckets()
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
	}
	return nil, nil
}

// inlinePage is the page inside an inline bucket.
func (b *Bucket) inlinePage() (page, error) {
	le := binary.LittleEndian
	p := page{db: b.db, id: b.holder, flags: le.Uint16(b.inline[8:]), count: int(le.Uint16(b.inline[10:])), data: b.inline}
	if p.flags != flagLeaf {
		return page{}, p.damage("inline bucket %.40q has type %#x", b.Name, p.flags)
	}
	return p, nil
}

// leaves visits the bucket's leaf pages in order, from the one where the key
// from is or would be.
func (b *Bucket) leaves(from []byte, visit func(*page) error) error {
	if b.root == 0 {
		p, err := b.inlinePage()
		if err != nil {
			return err
		}
		return visit(&p)
	}
	w := treeWalker{pageReader: pageReader{db: b.db}, visit: visit, from: from, budget: b.db.budget()}
	return w.walk(b.root, 0)
}

// ForEach visits the bucket's entries in the order of their keys, from the
// first key not below from (nil: all). Key and value are valid until fn
// returns; an error of fn ends the visit and is returned.
func (b *Bucket) ForEach(from []byte, fn func(key, value []byte) error) error {
	return b.leaves(from, func(p *page) error {
		for i := range p.count {
			e, err := p.leaf(i)
			if err != nil {
				return err
			}
			key := p.data[e.key:e.value]
			if from != nil && bytes.Compare(key, from) < 0 {
				continue
			}
			if e.flags&elementBucket != 0 {
				return p.damage("bucket %.40q inside of bucket %s", key, b.Name)
			}
			if err := fn(key, p.data[e.value:e.end:e.end]); err != nil {
				return err
			}
		}
		return nil
	})
}

// errStop ends a visit from inside.
var errStop = errors.New("stop")

// Get reads one value; nil when the key is not there.
func (b *Bucket) Get(key []byte) (value []byte, err error) {
	err = b.ForEach(key, func(k, v []byte) error {
		if bytes.Equal(k, key) {
			value = append([]byte{}, v...)
		}
		return errStop
	})
	if err != nil && err != errStop {
		return nil, err
	}
	return value, nil
}

// forEach visits all of a bucket by name; one that is not there is empty.
func (db *DB) forEach(bucket string, fn func(key, value []byte) error) error {
	b, err := db.Bucket(bucket)
	if err != nil || b == nil {
		return err
	}
	return b.ForEach(nil, fn)
}
