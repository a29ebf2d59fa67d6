package snapcodec

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand"
	"reflect"
	"runtime"
	"testing"
)

// denseImage writes an image that no database has to be filled for: a key
// bucket whose leaves and branches lie all over the file.
type denseImage struct {
	pageSize int
	fanout   int // of a branch
	pages    int
	root     int      // page of the root bucket
	roles    []uint32 // by page: leaf, or branch by level
	at       []uint32 // page by role
	levels   []int    // first role of each level, leaves first
}

// denseEntries are those of a leaf.
const denseEntries = 3

// newDenseImage has branches about as full as etcd's.
func newDenseImage(pageSize, leaves int, rnd *rand.Rand) *denseImage {
	d := &denseImage{pageSize: pageSize, fanout: pageSize / 37, root: 2}
	roles := 0
	for n := leaves; ; n = (n + d.fanout - 1) / d.fanout {
		d.levels = append(d.levels, roles)
		roles += n
		if n == 1 {
			break
		}
	}
	d.levels = append(d.levels, roles)
	d.place(roles, rnd)
	return d
}

// place puts the pages somewhere behind the meta pages and the root bucket.
func (d *denseImage) place(roles int, rnd *rand.Rand) {
	d.pages = 3 + roles
	d.roles, d.at = make([]uint32, d.pages), make([]uint32, roles)
	for role, place := range rnd.Perm(roles) {
		d.at[role], d.roles[3+place] = uint32(3+place), uint32(role)
	}
}

// addOld adds pages that no tree uses: branches that lead to a page that does
// not belong there.
func (d *denseImage) addOld(n int, rnd *rand.Rand) {
	d.place(d.levels[len(d.levels)-1]+n, rnd)
}

// oldBranch is one of them.
func (d *denseImage) oldBranch(b []byte, i int) {
	nth := i % (d.levels[2] - d.levels[1] - 1)
	d.treePage(b, d.levels[1]+nth)
	stranger := (nth*d.fanout + d.levels[1]/2) % d.levels[1]
	binary.LittleEndian.PutUint64(b[pageHeader+(1+i%(d.fanout-1))*elementSize+8:], uint64(d.at[stranger]))
}

func (d *denseImage) revision(leaf int) Revision { return Revision{int64(1 + leaf*denseEntries), 0} }

// last is the latest revision.
func (d *denseImage) last() int64 { return d.revision(d.levels[1]-1).Main + denseEntries - 1 }

func (d *denseImage) writeTo(w io.Writer) error {
	page := make([]byte, d.pageSize)
	for id := range d.pages {
		clear(page)
		d.page(page, id)
		if _, err := w.Write(page); err != nil {
			return err
		}
	}
	return nil
}

func (d *denseImage) page(b []byte, id int) {
	le := binary.LittleEndian
	le.PutUint64(b, uint64(id))
	switch {
	case id < 2:
		le.PutUint16(b[8:], flagMeta)
		m := b[pageHeader:]
		le.PutUint32(m, dbMagic)
		le.PutUint32(m[4:], dbVersion)
		le.PutUint32(m[8:], uint32(d.pageSize))
		le.PutUint64(m[16:], uint64(d.root))
		le.PutUint64(m[32:], noFreelist)
		le.PutUint64(m[40:], uint64(d.pages))
		le.PutUint64(m[48:], uint64(7+id))
		fixMeta(b, 0)
	case id == d.root:
		le.PutUint16(b[8:], flagLeaf)
		le.PutUint16(b[10:], 1)
		putElement(b, elementBucket, []byte("key"), le.AppendUint64(nil, uint64(d.at[d.rootRole()])))
	case int(d.roles[id]) > d.rootRole():
		d.oldBranch(b, int(d.roles[id]))
	default:
		d.treePage(b, int(d.roles[id]))
	}
}

// rootRole is the root of the key bucket.
func (d *denseImage) rootRole() int { return d.levels[len(d.levels)-1] - 1 }

// putElement writes a leaf's only entry.
func putElement(b []byte, flags uint32, key, value []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[16:], flags)
	le.PutUint32(b[20:], elementSize)
	le.PutUint32(b[24:], uint32(len(key)))
	le.PutUint32(b[28:], bucketHeader)
	copy(b[32:], key)
	copy(b[32+len(key):], value)
}

func (d *denseImage) treePage(b []byte, role int) {
	le := binary.LittleEndian
	level := 0
	for role >= d.levels[level+1] {
		level++
	}
	nth, span := role-d.levels[level], 1
	for range level {
		span *= d.fanout
	}
	first, count := nth*d.fanout, denseEntries
	if level == 0 {
		le.PutUint16(b[8:], flagLeaf)
	} else {
		le.PutUint16(b[8:], flagBranch)
		count = min(d.fanout, d.levels[level]-d.levels[level-1]-first)
	}
	le.PutUint16(b[10:], uint16(count))
	data := pageHeader + count*elementSize
	for i := range count {
		e := b[pageHeader+i*elementSize:]
		distance := uint32(data + i*revisionLen - pageHeader - i*elementSize)
		rev := d.revision(nth)
		if level == 0 {
			rev.Main += int64(i)
			le.PutUint32(e[4:], distance)
			le.PutUint32(e[8:], revisionLen)
		} else {
			rev = d.revision((first + i) * span / d.fanout)
			le.PutUint32(e, distance)
			le.PutUint32(e[4:], revisionLen)
			le.PutUint64(e[8:], uint64(d.at[d.levels[level-1]+first+i]))
		}
		copy(b[data+i*revisionLen:], AppendRevision(nil, rev))
	}
}

// TestDenseImages: the images of the memory test are good ones.
func TestDenseImages(t *testing.T) {
	for _, leaves := range []int{1, 2, 12, 14, 3000} {
		var file bytes.Buffer
		d := newDenseImage(512, leaves, rand.New(rand.NewSource(1)))
		d.writeTo(&file)
		report, err := openDB(t, file.Bytes()).Check()
		if err != nil || report.Entries != int64(leaves*denseEntries) {
			t.Fatalf("%+v, %v", report, err)
		}
		got, err := inspect(file.Bytes())
		if err != nil || got.Entries != report.Entries || got.Revision.Main != d.last() || !got.Whole() {
			t.Errorf("%d leaves: %+v, %v", leaves, got, err)
		}
	}
}

// heapOf tells by how many bytes the heap has grown at the end of an image.
func heapOf(t testing.TB, s *Inspector, write func(io.Writer) error) (grown int64, m Image) {
	t.Helper()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := write(s); err != nil {
		t.Fatal(err)
	}
	m, err := s.Finish()
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(s)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc), m
}

// TestInspectorMemory: twelve bytes a page for an image of 256 MiB without order.
func TestInspectorMemory(t *testing.T) {
	d := newDenseImage(4096, 256<<20/4096, rand.New(rand.NewSource(1)))
	s := NewInspector(DBOptions{})
	heap, m := heapOf(t, s, d.writeTo)
	if m.Revision.Main != d.last() || !m.Whole() || heap > 12*int64(d.pages)+256<<10 {
		t.Errorf("%d bytes of heap for %d pages: %+v", heap, d.pages, m)
	}
}

// TestSparseImageMemory: zeros cost nothing.
func TestSparseImageMemory(t *testing.T) {
	var file bytes.Buffer
	d := newDenseImage(4096, 1, rand.New(rand.NewSource(1)))
	d.pages = 8 << 30 / 4096
	for id := range 4 {
		b := make([]byte, 4096)
		d.page(b, id)
		file.Write(b)
	}
	zeros := make([]byte, 1<<20)
	s := NewInspector(DBOptions{})
	heap, m := heapOf(t, s, func(w io.Writer) error {
		w.Write(file.Bytes())
		for range 8 << 30 >> 20 {
			if _, err := w.Write(zeros); err != nil {
				return err
			}
		}
		return nil
	})
	if m.Size != 8<<30 || !m.Whole() || heap > 1<<20 {
		t.Errorf("%d bytes of heap: %+v", heap, m)
	}
}

// TestHostileImageMemory: an image that is nothing but branches, buckets and
// pages that claim what follows, with one small tree at its end.
func TestHostileImageMemory(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	d := newDenseImage(4096, 1, rnd)
	d.pages = 512 << 20 / 4096
	d.root = 64 << 20 / 4096
	d.at[0] = uint32(d.root + 1)
	d.roles = make([]uint32, d.root+2)
	s := NewInspector(DBOptions{})
	s.lists.limit = 2 << 20
	heap, m := heapOf(t, s, func(w io.Writer) error {
		b := make([]byte, d.pageSize)
		for id := range d.pages {
			switch {
			case id >= 2 && id < d.root:
				hostilePage(b, id, d.pages, rnd)
			case id < d.root+2:
				clear(b)
				d.page(b, id)
			default:
				clear(b[:pageHeader])
			}
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		return nil
	})
	if !s.lists.lastOnly || !s.kept.full || m.Revision.Main != d.last() || !m.Whole() {
		t.Errorf("%+v: lists %v, pages %v", m, s.lists.lastOnly, s.kept.full)
	}
	if heap > 8*int64(d.root)+5<<20 {
		t.Errorf("%d bytes of heap", heap)
	}
}

// hostilePage makes a branch to pages far ahead, or a leaf of buckets there,
// with keys in the page or where its overflow ends.
func hostilePage(b []byte, id, pages int, rnd *rand.Rand) {
	le := binary.LittleEndian
	count := 1 + rnd.Intn(200)
	overflow := rnd.Intn(32000) * rnd.Intn(2)
	clear(b)
	le.PutUint64(b, uint64(id))
	le.PutUint16(b[8:], uint16(1+rnd.Intn(2)))
	le.PutUint16(b[10:], uint16(count))
	le.PutUint32(b[12:], uint32(overflow))
	const key = 4000
	le.PutUint64(b[key+18:], uint64(pages-1))
	for i := range count {
		at := pageHeader + i*elementSize
		e, distance := b[at:], uint32(overflow*4096+key-at)
		if b[8] == flagLeaf {
			le.PutUint32(e, elementBucket)
			le.PutUint32(e[4:], distance)
			le.PutUint32(e[8:], 18)
			le.PutUint32(e[12:], bucketHeader)
			continue
		}
		le.PutUint32(e, distance)
		le.PutUint32(e[4:], 18)
		le.PutUint64(e[8:], uint64(pages-1-rnd.Intn(pages/4)))
	}
}

// TestOldBranchesAreDropped: branches of the past, of which a page has been used
// again, make room for those of the image.
func TestOldBranchesAreDropped(t *testing.T) {
	d := newDenseImage(512, 20_000, rand.New(rand.NewSource(1)))
	d.addOld(20_000, rand.New(rand.NewSource(2)))
	var file bytes.Buffer
	d.writeTo(&file)
	want := wantImage(t, file.Bytes())
	for _, limit := range []int{96 << 10, 200 << 10, 400 << 10} {
		s := NewInspector(DBOptions{})
		s.lists.limit = limit
		got, err := inspectWith(s, file.Bytes(), 32<<10)
		if err != nil || got.Revision != want.Revision || got.Whole() && !reflect.DeepEqual(got, want) {
			t.Fatalf("limit %d: %+v, %v, want %+v", limit, got, err, want)
		}
		if !got.Whole() && limit == 400<<10 {
			t.Errorf("limit %d: %s", limit, got.Unknown)
		}
	}
	s := NewInspector(DBOptions{})
	if _, err := inspectWith(s, file.Bytes()); err != nil || s.lists.size < 450<<10 {
		t.Errorf("all branches take %d bytes: this proves nothing (%v)", s.lists.size, err)
	}
}

func BenchmarkInspect(b *testing.B) {
	db, size := bigBackend(b, 80_000)
	file := make([]byte, size)
	if _, err := db.r.ReadAt(file, 0); err != nil && err != io.EOF {
		b.Fatal(err)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		s := NewInspector(DBOptions{})
		for at := 0; at < len(file); at += 32 << 10 {
			s.Write(file[at:min(at+32<<10, len(file))])
		}
		if m, err := s.Finish(); err != nil || !m.Whole() {
			b.Fatal(m, err)
		}
	}
}

// BenchmarkInspectDense tells the heap for an image without order of 8 GiB; the
// time is mostly that of making it.
func BenchmarkInspectDense(b *testing.B) {
	d := newDenseImage(4096, 8<<30/4096, rand.New(rand.NewSource(1)))
	b.SetBytes(int64(d.pages) * 4096)
	for b.Loop() {
		heap, m := heapOf(b, NewInspector(DBOptions{}), d.writeTo)
		if !m.Whole() {
			b.Error(m)
		}
		b.ReportMetric(float64(heap)/(1<<20), "MiB")
	}
}
