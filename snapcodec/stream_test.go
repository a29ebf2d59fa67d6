package snapcodec

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// inspect passes an image by in pieces of the sizes given, over and over.
func inspect(file []byte, pieces ...int) (Image, error) {
	return inspectWith(NewInspector(DBOptions{Name: "db"}), file, pieces...)
}

func inspectWith(s *Inspector, file []byte, pieces ...int) (Image, error) {
	for i := 0; len(file) > 0; i++ {
		n := len(file)
		if len(pieces) > 0 {
			n = min(n, pieces[i%len(pieces)])
		}
		piece := file[:n]
		if len(pieces) > 0 {
			piece = slices.Clone(piece)
		}
		if _, err := s.Write(piece); err != nil {
			return Image{}, err
		}
		if len(pieces) > 0 {
			clear(piece) // a writer may not keep what it is given
		}
		file = file[n:]
	}
	return s.Finish()
}

// wantImage asks the reader of files for the same facts.
func wantImage(t testing.TB, file []byte) Image {
	t.Helper()
	db := openDB(t, file)
	meta, err := db.Meta()
	if err != nil {
		t.Fatal(err)
	}
	want := Image{Size: db.Size(), PageSize: db.PageSize(), TxID: db.TxID(), Meta: &meta}
	report, err := db.Check()
	if err != nil || report.Total > 0 && !strings.Contains(errors.Join(report.Problems...).Error(), "meta page") {
		t.Fatalf("%+v, %v", report, err)
	}
	want.InUse = (report.Reachable + 2) * db.PageSize()
	err = db.Keys(Revision{}, func(r *KeyRecord) error {
		want.Entries++
		want.Revision = r.Revision
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func compareImage(t testing.TB, file []byte, pieces ...int) Image {
	t.Helper()
	want := wantImage(t, file)
	compareWith(t, want, file, pieces...)
	return want
}

func compareWith(t testing.TB, want Image, file []byte, pieces ...int) {
	t.Helper()
	if got, err := inspect(file, pieces...); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("pieces of %d:\n%+v, %v, want\n%+v", pieces, got, err, want)
	}
}

// TestImageEqualsTheFile compares the facts of a stream with those of the file,
// for backends that etcd wrote.
func TestImageEqualsTheFile(t *testing.T) {
	for seed := range int64(3) {
		s := newKeyspace(t, seed)
		s.fill(int(400 + 1200*seed))
		if seed > 0 {
			s.compact(s.kv.Rev() - 100)
		}
		s.fill(50)
		file := s.bytes()
		want := compareImage(t, file)
		for _, pieces := range [][]int{{7, 80_000}, {4096}, {4095}, {32 << 10}, {1 << 20}} {
			compareWith(t, want, file, pieces...)
		}
		if seed == 0 {
			compareWith(t, want, file, 1)
		}
	}
}

func TestImageOfEmptyBackends(t *testing.T) {
	s := newKeyspace(t, 1)
	if got := compareImage(t, s.bytes()); got.Entries != 0 || got.CurrentRevision() != 1 {
		t.Errorf("%+v", got)
	}
	b := newBolt(t, &bolt.Options{})
	if got := compareImage(t, b.bytes()); got.Meta.ConsistentIndex != 0 || got.Entries != 0 {
		t.Errorf("%+v", got)
	}
}

func TestImageOfFixtures(t *testing.T) {
	var files []string
	for _, name := range fixture.Names() {
		found, err := filepath.Glob(filepath.Join(fixture.Unpack(t, name), "*", "member", "snap", "db"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) < 2 {
		t.Fatalf("backends: %v", files)
	}
	files = append(files, "testdata/etcd-3.4.23/snapshot.db", "testdata/etcd-3.5.33/snapshot.db")
	for _, path := range files {
		got := compareImage(t, readFile(t, path), 32<<10)
		if got.Meta.ConsistentIndex == 0 || got.Entries == 0 || !got.Whole() {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

// boltFile fills bbolt files in ways that etcd rarely does.
type boltFile struct {
	testing.TB
	path string
	db   *bolt.DB
}

func newBolt(t testing.TB, o *bolt.Options) *boltFile {
	t.Helper()
	f := &boltFile{TB: t, path: filepath.Join(t.TempDir(), "db")}
	o.NoSync = true
	var err error
	if f.db, err = bolt.Open(f.path, 0o600, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.db.Close() })
	return f
}

func (f *boltFile) update(fn func(tx *bolt.Tx) error) {
	f.Helper()
	if err := f.db.Update(fn); err != nil {
		f.Fatal(err)
	}
}

func (f *boltFile) put(bucket string, key, value []byte) {
	f.Helper()
	f.update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		return b.Put(key, value)
	})
}

func (f *boltFile) bytes() []byte {
	f.db.Close()
	file := readFile(f, f.path)
	return file[:openDB(f, file).Size()]
}

// putRevisions writes the changes from main on, some of several subs.
func putRevisions(tx *bolt.Tx, from, to int64, rnd *rand.Rand, size func() int) error {
	b, err := tx.CreateBucketIfNotExists([]byte("key"))
	if err != nil {
		return err
	}
	for main := from; main < to; main++ {
		for sub := range int64(1 + rnd.Intn(2)*rnd.Intn(3)) {
			if err := b.Put(AppendRevision(nil, Revision{main, sub}), encodeChange(main, size())); err != nil {
				return err
			}
		}
	}
	return nil
}

// encodeChange is the record of a put with a value of some size.
func encodeChange(main int64, size int) []byte {
	kv := protowire.AppendTag(nil, fieldKVKey, protowire.BytesType)
	kv = protowire.AppendString(kv, "k")
	for _, field := range []protowire.Number{fieldKVCreate, fieldKVMod} {
		kv = protowire.AppendTag(kv, field, protowire.VarintType)
		kv = protowire.AppendVarint(kv, uint64(main))
	}
	kv = protowire.AppendTag(kv, fieldKVVersion, protowire.VarintType)
	kv = protowire.AppendVarint(kv, 1)
	kv = protowire.AppendTag(kv, fieldKVValue, protowire.BytesType)
	return protowire.AppendBytes(kv, make([]byte, size))
}

// mixedBolt makes a backend with all that is rare: other page sizes, overflow,
// a root of several pages, buckets with trees of their own, deletions.
func mixedBolt(t testing.TB, pageSize int, seed int64) *boltFile {
	rnd := rand.New(rand.NewSource(seed))
	f := newBolt(t, &bolt.Options{PageSize: pageSize, NoFreelistSync: seed%2 == 0, InitialMmapSize: 64 << 20})
	size := func() int {
		if rnd.Intn(20) == 0 {
			return rnd.Intn(5 * pageSize)
		}
		return rnd.Intn(pageSize / 8)
	}
	for round := range int64(6) {
		f.update(func(tx *bolt.Tx) error { return putRevisions(tx, 1+round*100, 1+(round+1)*100, rnd, size) })
		f.update(func(tx *bolt.Tx) error {
			c := tx.Bucket([]byte("key")).Cursor()
			for k, _ := c.Seek(AppendRevision(nil, Revision{round * 50, 0})); k != nil; k, _ = c.Next() {
				if rev, _, _ := ParseRevision(k); rev.Main > round*80 {
					break
				}
				if err := c.Delete(); err != nil {
					return err
				}
			}
			return nil
		})
		f.put("meta", []byte("consistent_index"), binary.BigEndian.AppendUint64(nil, uint64(900+round)))
		f.put("meta", []byte("finishedCompactRev"), AppendRevision(nil, Revision{round * 70, 0}))
		f.put("meta", []byte("term"), binary.BigEndian.AppendUint64(nil, 5))
		f.put("meta", []byte("storageVersion"), []byte("3.6.0"))
		for i := range rnd.Intn(40) {
			f.put(fmt.Sprintf("extra%d", i%12), binaryID(uint64(i)), make([]byte, rnd.Intn(pageSize/6)))
			f.put("lots", fmt.Appendf(nil, "%0*d", 8+rnd.Intn(pageSize/2), rnd.Intn(1000)), nil)
		}
	}
	return f
}

func TestImageOfOddBackends(t *testing.T) {
	for _, pageSize := range []int{512, 1024, 4096, 64 << 10} {
		for seed := range int64(2) {
			t.Run(fmt.Sprintf("pages of %d, %d", pageSize, seed), func(t *testing.T) {
				file := mixedBolt(t, pageSize, seed).bytes()
				want := compareImage(t, file)
				if len(file) < 1<<19 {
					compareWith(t, want, file, 1)
				}
				compareWith(t, want, append(file, make([]byte, sha256.Size)...), 100, 5000)
			})
		}
	}
}

// TestImageTakesTheRightMeta: one of the meta pages may be torn.
func TestImageTakesTheRightMeta(t *testing.T) {
	for _, pageSize := range []int{512, 4096, 64 << 10} {
		file := mixedBolt(t, pageSize, 2).bytes()
		for torn := range 2 {
			b := slices.Clone(file)
			b[torn*pageSize+60] ^= 1
			if openDB(t, b).TxID() == openDB(t, file).TxID() {
				compareImage(t, b, 1000)
				continue
			}
			got, err := inspect(b, 1000) // the older state: its pages may be used again
			if err == nil && !reflect.DeepEqual(got, wantImage(t, b)) {
				t.Errorf("%+v", got)
			}
		}
	}
}

// TestImageOfADatabaseInUse copies a database while it is written to, as etcd
// does for a snapshot: the facts are those of the copy's transaction.
func TestImageOfADatabaseInUse(t *testing.T) {
	for seed := range int64(3) {
		f := mixedBolt(t, 4096, 2*seed)
		rnd := rand.New(rand.NewSource(seed))
		next := int64(2000)
		commit := func() {
			f.update(func(tx *bolt.Tx) error {
				next += 5
				return putRevisions(tx, next, next+5, rnd, func() int { return rnd.Intn(2000) })
			})
			f.put("meta", []byte("consistent_index"), binary.BigEndian.AppendUint64(nil, uint64(next)))
		}
		for range 20 {
			commit()
		}
		tx, err := f.db.Begin(false)
		if err != nil {
			t.Fatal(err)
		}
		var before, during bytes.Buffer
		if _, err := tx.WriteTo(&before); err != nil {
			t.Fatal(err)
		}
		last := next
		if _, err := tx.WriteTo(&busyWriter{&during, commit}); err != nil {
			t.Fatal(err)
		}
		tx.Rollback()
		got := compareImage(t, during.Bytes(), 1+rnd.Intn(10_000))
		if want := compareImage(t, before.Bytes()); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
		if got.Revision.Main >= last+5 || !holdsRevision(during.Bytes(), got) {
			t.Errorf("the image holds nothing that is newer than %v: this proves nothing", got.Revision)
		}
	}
}

// busyWriter has something done to the database after each write.
type busyWriter struct {
	io.Writer
	meanwhile func()
}

func (w *busyWriter) Write(p []byte) (int, error) {
	w.meanwhile()
	return w.Writer.Write(p)
}

// holdsRevision tells whether pages of an image hold changes that are newer than
// its own latest.
func holdsRevision(file []byte, m Image) bool {
	for at := int(2 * m.PageSize); at < int(m.Size); at += int(m.PageSize) {
		p, err := new(DB).parsePage(uint64(at)/uint64(m.PageSize), file[at:at+int(m.PageSize)])
		if err != nil || p.flags != flagLeaf || p.count == 0 {
			continue
		}
		e, err := p.leaf(p.count - 1)
		if err != nil {
			continue
		}
		if rev, _, err := ParseRevision(p.data[e.key:e.value]); err == nil && m.Revision.Less(rev) {
			return true
		}
	}
	return false
}

// treePage is a page that a tree uses, without its overflow.
type treePage struct {
	id     uint64
	flags  uint16
	bucket string
	root   bool
}

// treePages lists the pages of all trees.
func treePages(t testing.TB, db *DB) []treePage {
	t.Helper()
	var all []treePage
	var walk func(name string, id uint64, root bool)
	walk = func(name string, id uint64, root bool) {
		p, err := (&pageReader{db: db}).read(id)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, treePage{id, p.flags, name, root})
		if p.flags == flagBranch {
			ids, err := p.children(nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, child := range ids {
				walk(name, child, false)
			}
		}
	}
	walk("", db.root, true)
	buckets, err := db.Buckets()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range buckets {
		if b.root != 0 {
			walk(b.Name, b.root, true)
		}
	}
	return all
}

// damagedImages are the files to damage, one page after the other.
func damagedImages(t *testing.T) map[string][]byte {
	s := newKeyspace(t, 3)
	s.fill(1500)
	s.compact(s.kv.Rev() - 1000)
	return map[string][]byte{"etcd": s.bytes(), "odd": mixedBolt(t, 512, 4).bytes(), "free list": mixedBolt(t, 1024, 3).bytes()}
}

func wantDamage(t *testing.T, file []byte, what string, args ...any) {
	t.Helper()
	got, err := inspect(file)
	if !isCorrupt(err) {
		t.Errorf("%s: %+v, %v", fmt.Sprintf(what, args...), got, err)
	}
}

// TestImageWithoutAPage takes one page in use after the other away.
func TestImageWithoutAPage(t *testing.T) {
	for name, file := range damagedImages(t) {
		db := openDB(t, file)
		size := int(db.pageSize)
		for _, p := range treePages(t, db) {
			page := file[int(p.id)*size:][:size]
			before := slices.Clone(page)
			clear(page)
			_, err := inspect(file)
			want := fmt.Sprintf("db: offset %d: page %d: is referenced by", int(p.id)*size, p.id)
			if !isCorrupt(err) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "holds zeros") {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
			for i := range page {
				page[i] = byte(i*7 + int(p.id))
			}
			wantDamage(t, file, "%s: page %d is noise", name, p.id)
			copy(page, before)
		}
	}
}

// TestImageWithSwappedPages puts pages in each other's place: as they are, and
// as if each had always been there. A bucket's root is not told from another
// page that may be the root of such a bucket.
func TestImageWithSwappedPages(t *testing.T) {
	for name, file := range damagedImages(t) {
		db := openDB(t, file)
		size := int(db.pageSize)
		pages := treePages(t, db)
		for i, p := range pages {
			o := pages[(i*7+3)%len(pages)]
			if o.id == p.id || overflows(file, db, p.id) || overflows(file, db, o.id) {
				continue
			}
			b := slices.Clone(file)
			copy(b[int(p.id)*size:][:size], file[int(o.id)*size:][:size])
			copy(b[int(o.id)*size:][:size], file[int(p.id)*size:][:size])
			wantDamage(t, b, "%s: pages %d and %d swapped", name, p.id, o.id)
			if p.root || o.root || p.bucket != "key" && o.bucket != "key" {
				continue
			}
			binary.LittleEndian.PutUint64(b[int(p.id)*size:], p.id)
			binary.LittleEndian.PutUint64(b[int(o.id)*size:], o.id)
			wantDamage(t, b, "%s: pages %d and %d swapped with their numbers", name, p.id, o.id)
		}
	}
}

func overflows(file []byte, db *DB, id uint64) bool {
	return binary.LittleEndian.Uint32(file[int64(id)*db.pageSize+12:]) > 0
}

// TestImageCutShort ends the stream at every page, and within some.
func TestImageCutShort(t *testing.T) {
	for name, file := range damagedImages(t) {
		db := openDB(t, file)
		for n := int64(0); n < db.Size(); n += db.pageSize {
			wantDamage(t, file[:n], "%s: cut to %d bytes", name, n)
			wantDamage(t, file[:n+5], "%s: cut to %d bytes", name, n+5)
		}
		wantDamage(t, file[:db.Size()-1], "%s: the last byte is missing", name)
	}
}

// TestImageDamage breaks pages one way each and expects it by name.
func TestImageDamage(t *testing.T) {
	s := newKeyspace(t, 3)
	s.fill(3000)
	file := s.bytes()
	db := openDB(t, file)
	bucket, err := db.Bucket("key")
	if err != nil {
		t.Fatal(err)
	}
	lowest, child := lowestBranch(t, bucket)
	branch, leaf := int(lowest)*int(db.pageSize), int(child)*int(db.pageSize)
	tests := []struct {
		name  string
		at    int
		write string
		want  string
	}{
		{"foreign page", leaf, "\x07\x00", "holds a header of page 7, type 0x2"},
		{"page type", leaf + 8, "\x10", fmt.Sprintf("holds a header of page %d, type 0x10", child)},
		{"too many entries", leaf + 10, "\xff\xff", "65535 entries that do not fit"},
		{"overflow past the end", leaf + 12, "\xff\xff\xff\x7f", "says that 2147483647 pages follow it"},
		{"overflow into others", leaf + 12, "\x05", "is used twice"},
		{"entry outside", leaf + 16 + 4, "\xff\xff\xff\xff", "an entry 0 that lies outside"},
		{"branch without entries", branch + 10, "\x00\x00", "a branch without entries"},
		{"entry of a branch outside", branch + 16 + 4, "\xff\xff\xff\xff", "an entry 0 that lies outside"},
		{"child outside", branch + 16 + 8, "\xff\xff\xff\xff", "an entry 0 whose page is none of the image"},
		{"cycle", branch + 16 + 8, string(binaryID(lowest)), "an entry 0 whose page is none of the image"},
		{"page in two places", branch + 16 + 8, string(binaryID(child)), "is used twice"},
		{"a leaf where a branch should be", leaf + 8, "\x01", "holds"},
		{"bucket at no page", bytes.Index(file[db.root*4096:], []byte("key")) + int(db.root)*4096 + 3, "\x01", "is none of the"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := slices.Clone(file)
			copy(b[tt.at:], tt.write)
			if tt.name == "bucket at no page" {
				clear(b[tt.at+1 : tt.at+8])
			}
			_, err := inspect(b)
			if !isCorrupt(err) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "db: offset ") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestStreamOfNoBackend(t *testing.T) {
	for _, length := range []int{0, 10, 5000, headSize, 1 << 20} {
		b := bytes.Repeat([]byte("no backend"), length/10+1)[:length]
		s := NewInspector(DBOptions{Name: "x"})
		_, werr := s.Write(b)
		if (werr != nil) != (length >= headSize) {
			t.Errorf("%d bytes: Write gives %v", length, werr)
		}
		if _, err := s.Finish(); !isCorrupt(err) || werr != nil && err != werr {
			t.Errorf("%d bytes: %v", length, err)
		}
		if _, err := s.Write(b); !isCorrupt(err) {
			t.Errorf("%d bytes and more: %v", length, err)
		}
	}
}

// TestTooManyBranches: what is not remembered is told, and no more than that.
func TestTooManyBranches(t *testing.T) {
	var b bytes.Buffer
	newDenseImage(512, 20_000, rand.New(rand.NewSource(1))).writeTo(&b)
	file := b.Bytes()
	want := wantImage(t, file)
	tests := []struct {
		limit int // bytes
		want  Image
	}{
		{0, Image{Revision: Revision{-1, -1}, Entries: -1, InUse: -1}},
		{20 << 10, Image{Revision: want.Revision, Entries: -1, InUse: -1}},
		{30 << 10, Image{Revision: want.Revision, Entries: -1, InUse: -1}},
		{200 << 10, want},
	}
	for _, tt := range tests {
		s := NewInspector(DBOptions{})
		s.lists.limit = tt.limit
		got, err := inspectWith(s, file, 10_000)
		if err != nil || got.Revision != tt.want.Revision || got.Entries != tt.want.Entries || got.InUse != tt.want.InUse {
			t.Errorf("limit %d: %+v, %v, want %+v", tt.limit, got, err, tt.want)
		}
		if got.Whole() != (tt.want.Entries >= 0) || !reflect.DeepEqual(got.Meta, want.Meta) {
			t.Errorf("limit %d: %+v", tt.limit, got)
		}
	}
}

// TestPageThatIsNotRemembered: entries that reach beyond a page's own bytes,
// which bbolt never writes, are no damage.
func TestPageThatIsNotRemembered(t *testing.T) {
	d := newDenseImage(4096, 1, rand.New(rand.NewSource(1)))
	d.pages = 5
	d.roles = append(d.roles, 0)
	var b bytes.Buffer
	d.writeTo(&b)
	file := b.Bytes()
	leaf := file[3*4096:]
	clear(leaf)
	binary.LittleEndian.PutUint64(leaf, 3)
	leaf[8], leaf[12] = flagLeaf, 1
	binary.LittleEndian.PutUint16(leaf[10:], 300)
	got, err := inspect(file)
	if err != nil || got.Whole() || got.Entries != -1 || got.Revision != (Revision{-1, -1}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestDeepTree: branches of one entry, without an end.
func TestDeepTree(t *testing.T) {
	d := newDenseImage(4096, 1, rand.New(rand.NewSource(1)))
	d.pages = 80
	d.roles = make([]uint32, d.pages)
	var b bytes.Buffer
	d.writeTo(&b)
	file := b.Bytes()
	for id := 3; id < 79; id++ {
		page := file[id*4096:][:4096]
		page[8], page[10], page[16], page[20] = flagBranch, 1, elementSize, revisionLen
		binary.LittleEndian.PutUint64(page[24:], uint64(id+1))
	}
	if _, err := inspect(file); !isCorrupt(err) || !strings.Contains(err.Error(), "tree is deeper than 64 pages") {
		t.Errorf("got %v", err)
	}
}

func TestImageWithoutItsFreeList(t *testing.T) {
	file := mixedBolt(t, 1024, 3).bytes()
	compareImage(t, file)
	list := openDB(t, file).freelist
	clear(file[list*1024:][:1024])
	_, err := inspect(file)
	if !isCorrupt(err) || !strings.Contains(err.Error(), "should be the list of free pages, but holds zeros") {
		t.Errorf("got %v", err)
	}
}

// TestRootPagesNotKept: pages of buckets may come before the root bucket has
// said which are its own.
func TestRootPagesNotKept(t *testing.T) {
	var whole, partial int
	var files [][]byte
	for seed := range int64(4) {
		files = append(files, mixedBolt(t, 512, seed).bytes())
	}
	for i := range 40 {
		file := files[i%len(files)]
		s := NewInspector(DBOptions{})
		s.kept.limit = i * 512
		got, err := inspectWith(s, file, 1000)
		if err != nil {
			t.Fatal(err)
		}
		want := wantImage(t, file)
		if got.Whole() {
			whole++
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%+v, want %+v", got, want)
			}
			continue
		}
		partial++
		if got.Meta == nil != (got.CurrentRevision() == -1) || got.Meta != nil && !reflect.DeepEqual(got.Meta, want.Meta) ||
			got.Entries != -1 && (got.Entries != want.Entries || got.Revision != want.Revision) {
			t.Fatalf("%+v, want %+v", got, want)
		}
	}
	if whole == 0 || partial == 0 {
		t.Errorf("%d whole, %d partial", whole, partial)
	}
}

// TestMetaPagesNotKept: where pages are small, the meta bucket has its own.
func TestMetaPagesNotKept(t *testing.T) {
	f := newBolt(t, &bolt.Options{PageSize: 512})
	f.put("meta", []byte("consistent_index"), binaryID(1))
	f.put("meta", []byte("other"), make([]byte, 200))
	f.put("key", AppendRevision(nil, Revision{7, 0}), encodeChange(7, 600))
	file := f.bytes()
	want := compareImage(t, file)
	s := NewInspector(DBOptions{})
	s.kept.limit = 0
	got, err := inspectWith(s, file)
	if err != nil || got.Whole() || got.Meta != nil || got.Revision != want.Revision || got.Entries != want.Entries {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestLastRevisionForgotten: newer changes in pages that are not the image's may
// push out the sub of its latest revision.
func TestLastRevisionForgotten(t *testing.T) {
	for _, main := range []int64{77, markExact - 1, markExact, markExact * 1000} {
		f := newBolt(t, &bolt.Options{})
		f.put("key", AppendRevision(nil, Revision{main, 5}), encodeChange(main, 5000))
		file := f.bytes()
		compareImage(t, file)
		s := NewInspector(DBOptions{})
		for i := range uint32(maxRecent) {
			s.recent.add(1<<20+i, Revision{markExact * 2000, int64(i)})
		}
		got, err := inspectWith(s, file)
		want := Revision{main, -1}
		if main >= markExact {
			want.Main = -1
		}
		if err != nil || got.Whole() || got.Revision != want || got.Entries != 1 {
			t.Errorf("%+v, %v, want %v", got, err, want)
		}
	}
}

// TestMarks: marks are in the order of keys.
func TestMarks(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	var keys [][]byte
	for range 10_000 {
		key := make([]byte, rnd.Intn(12))
		rnd.Read(key)
		for i := range min(len(key), rnd.Intn(9)) {
			key[i] = byte(rnd.Intn(2) * 255 * rnd.Intn(2))
		}
		keys = append(keys, key)
	}
	slices.SortFunc(keys, bytes.Compare)
	for i, key := range keys[1:] {
		if keyMark(key) < keyMark(keys[i]) {
			t.Fatalf("mark of %x is below that of %x", key, keys[i])
		}
	}
}

// FuzzInspect: an image that passes the check of files passes that of streams,
// with the same facts.
func FuzzInspect(f *testing.F) {
	for seed := range int64(2) {
		b := newBolt(f, &bolt.Options{PageSize: 512, NoFreelistSync: seed == 0})
		rnd := rand.New(rand.NewSource(seed))
		for i := range int64(4) {
			b.update(func(tx *bolt.Tx) error {
				return putRevisions(tx, i*20+1, i*20+20, rnd, func() int { return rnd.Intn(200) })
			})
			b.put("meta", []byte("consistent_index"), binaryID(7))
			b.put("meta", []byte("term"), binaryID(2))
			b.put(fmt.Sprint("other", i), []byte("a"), make([]byte, 100))
		}
		file := b.bytes()
		f.Add(file, uint16(0))
		f.Add(append(file, make([]byte, TrailerSize)...), uint16(100))
	}
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		for at := range 2 { // let damage behind the meta pages be reached
			fixMeta(b, at*512)
		}
		got, err := inspect(b, int(piece)+1)
		db, openErr := OpenDB(bytes.NewReader(b), int64(len(b)), DBOptions{Name: "db"})
		if openErr != nil {
			if err == nil {
				t.Fatalf("%+v, but the file gives %v", got, openErr)
			}
			return
		}
		if report, checkErr := db.Check(); checkErr != nil || report.Total > 0 {
			return
		}
		if err != nil {
			t.Fatalf("%v, but the file passes", err)
		}
		if want := wantImage(t, b); got.Whole() && !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}
