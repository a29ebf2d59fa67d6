package snapcodec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// A trace is what bbolt wrote to a file, commit by commit.
type trace struct {
	pageSize int
	first    []byte // the file before the first of the commits
	commits  []traced
	last     uint64 // number of the commit that first is at
	digests  map[uint64]string
}

type traced struct {
	txid   uint64
	size   int
	writes []pageWrite // the meta page is the last one
}

type pageWrite struct {
	off  int
	data []byte
}

// record lets bbolt make so many commits of random changes.
func record(t testing.TB, rnd *rand.Rand, o bolt.Options, warm, commits int) *trace {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	o.NoSync, o.NoGrowSync = true, rnd.Intn(2) == 0
	w, err := openWorkload(path, rnd, &o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { w.close() }()
	for range warm {
		w.commit(t)
	}
	if rnd.Intn(3) == 0 {
		path = w.restore(t, &o)
	}
	r := &trace{pageSize: o.PageSize, first: readFile(t, path), last: w.txid, digests: map[uint64]string{w.txid: w.digest(t)}}
	before := r.first
	for range commits {
		w.commit(t)
		after := readFile(t, path)
		r.commits = append(r.commits, traced{w.txid, len(after), changedPages(before, after, o.PageSize)})
		r.digests[w.txid] = w.digest(t)
		before = after
	}
	return r
}

// changedPages gives the pages that a commit wrote, in an order that it may
// have written them in.
func changedPages(before, after []byte, pageSize int) []pageWrite {
	var writes, meta []pageWrite
	for off := 0; off < len(after); off += pageSize {
		b := after[off:min(off+pageSize, len(after))]
		if off < len(before) && bytes.Equal(b, before[off:min(off+pageSize, len(before))]) {
			continue
		}
		w := pageWrite{off, slices.Clone(b)}
		if off < 2*pageSize {
			meta = append(meta, w)
		} else {
			writes = append(writes, w)
		}
	}
	return append(writes, meta...)
}

// workload makes random changes, as etcd does and otherwise.
type workload struct {
	db      *bolt.DB
	rnd     *rand.Rand
	txid    uint64
	next    uint64
	readers []*bolt.Tx
}

func openWorkload(path string, rnd *rand.Rand, o *bolt.Options) (*workload, error) {
	o.InitialMmapSize = 256 << 20 // growing it would wait for the readers
	db, err := bolt.Open(path, 0o600, o)
	if err != nil {
		return nil, err
	}
	db.AllocSize = 1 << 16
	return &workload{db: db, rnd: rnd}, nil
}

func (w *workload) close() {
	for _, tx := range w.readers {
		tx.Rollback()
	}
	w.db.Close()
}

// restore goes on with a copy as "snapshot save" makes it. Its newest meta page
// is the first one, whatever its number.
func (w *workload) restore(t testing.TB, o *bolt.Options) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	if err := w.db.View(func(tx *bolt.Tx) error { return tx.CopyFile(path, 0o600) }); err != nil {
		t.Fatal(err)
	}
	w.close()
	restored, err := openWorkload(path, w.rnd, o)
	if err != nil {
		t.Fatal(err)
	}
	restored.txid, restored.next = w.txid, w.next
	*w = *restored
	return path
}

func (w *workload) commit(t testing.TB) {
	t.Helper()
	w.read(t)
	err := w.db.Update(func(tx *bolt.Tx) error {
		w.txid = uint64(tx.ID())
		return w.change(tx)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// read opens and ends transactions that only read, which hold pages back.
func (w *workload) read(t testing.TB) {
	t.Helper()
	if n := len(w.readers); n > 0 && w.rnd.Intn(3) == 0 {
		i := w.rnd.Intn(n)
		w.readers[i].Rollback()
		w.readers = slices.Delete(w.readers, i, i+1)
	}
	if w.rnd.Intn(12) == 0 && w.db.Stats().OpenTxN < 3 && !w.db.IsReadOnly() {
		tx, err := w.db.Begin(false)
		if err != nil {
			t.Fatal(err)
		}
		w.readers = append(w.readers, tx)
	}
}

func (w *workload) change(tx *bolt.Tx) error {
	log, err := tx.CreateBucketIfNotExists([]byte("log"))
	if err != nil {
		return err
	}
	for range w.rnd.Intn(1 + w.rnd.Intn(60)) {
		w.next++
		if err := log.Put(binary.BigEndian.AppendUint64(nil, w.next), w.value()); err != nil {
			return err
		}
	}
	if w.rnd.Intn(8) == 0 {
		if err := w.compact(log); err != nil {
			return err
		}
	}
	if err := w.scatter(tx); err != nil {
		return err
	}
	meta, err := tx.CreateBucketIfNotExists([]byte("meta"))
	if err != nil {
		return err
	}
	return meta.Put([]byte("txid"), fmt.Append(nil, tx.ID()))
}

// compact deletes old entries here and there.
func (w *workload) compact(log *bolt.Bucket) error {
	c := log.Cursor()
	for k, _ := c.First(); k != nil && w.rnd.Intn(200) > 0; k, _ = c.Next() {
		if w.rnd.Intn(3) > 0 {
			if err := c.Delete(); err != nil {
				return err
			}
		}
	}
	return nil
}

// scatter changes and deletes keys all over a bucket, and makes and deletes
// buckets inside of it.
func (w *workload) scatter(tx *bolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists(fmt.Appendf(nil, "scatter%d", w.rnd.Intn(3)))
	if err != nil {
		return err
	}
	for range w.rnd.Intn(1 + w.rnd.Intn(20)) {
		key := fmt.Appendf(nil, "%0*d", 8+w.rnd.Intn(3)*20, w.rnd.Intn(300))
		if w.rnd.Intn(3) == 0 {
			err = b.Delete(key)
		} else {
			err = b.Put(key, w.value())
		}
		if err != nil {
			return err
		}
	}
	if w.rnd.Intn(6) > 0 {
		return nil
	}
	name := fmt.Appendf(nil, "bucket%d", w.rnd.Intn(4))
	if w.rnd.Intn(3) == 0 {
		if err := b.DeleteBucket(name); !errors.Is(err, bolterrors.ErrBucketNotFound) {
			return err
		}
		return nil
	}
	in, err := b.CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	for range w.rnd.Intn(40) {
		if err := in.Put(fmt.Append(nil, w.rnd.Intn(1000)), w.value()); err != nil {
			return err
		}
	}
	return nil
}

func (w *workload) value() []byte {
	n := w.rnd.Intn(1 + w.rnd.Intn(200))
	if w.rnd.Intn(60) == 0 {
		n = w.rnd.Intn(40_000)
	}
	b := make([]byte, n)
	w.rnd.Read(b)
	return b
}

func (w *workload) digest(t testing.TB) string {
	t.Helper()
	d, err := digestOf(w.db)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// digestOf is the SHA-256 of everything in a database.
func digestOf(db *bolt.DB) (string, error) {
	h := sha256.New()
	err := db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error { return digestBucket(h, name, b) })
	})
	return string(h.Sum(nil)), err
}

func digestBucket(h io.Writer, name []byte, b *bolt.Bucket) error {
	fmt.Fprintf(h, "bucket %q\n", name)
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			return digestBucket(h, k, b.Bucket(k))
		}
		fmt.Fprintf(h, "%d %d\n", len(k), len(v))
		h.Write(k)
		h.Write(v)
		return nil
	})
}

// A replay is a file that a trace is written to while it is read: some bytes
// before a read, some in the middle of it.
type replay struct {
	*trace
	mu    sync.Mutex
	rnd   *rand.Rand
	pace  float64 // page writes for each read
	burst int     // one in so many reads, there are several commits at once

	image []byte
	size  int
	at    int // commit under way
	write int // of it
	part  int // bytes of that done
}

func newReplay(tr *trace, rnd *rand.Rand, pace float64, burst int) *replay {
	r := &replay{trace: tr, rnd: rnd, pace: pace, burst: burst, image: slices.Clone(tr.first), size: len(tr.first)}
	for range rnd.Intn(len(tr.commits) * 3 / 4) {
		r.commit()
	}
	return r
}

// newest is the number of the last commit whose meta page is there.
func (r *replay) newest() uint64 {
	if r.at < len(r.commits) {
		if c := &r.commits[r.at]; r.write == len(c.writes)-1 && r.part >= pageHeader+metaSize {
			return c.txid
		}
	}
	if r.at == 0 {
		return r.last
	}
	return r.commits[r.at-1].txid
}

// commit does what is left of a commit.
func (r *replay) commit() {
	for at := r.at; r.at == at && at < len(r.commits); {
		r.writeSome(1 << 30)
	}
}

// writeSome writes at most n bytes of one page.
func (r *replay) writeSome(n int) {
	if r.at == len(r.commits) {
		return
	}
	c := &r.commits[r.at]
	if more := c.size - len(r.image); more > 0 {
		r.image = append(r.image, make([]byte, more)...)
	}
	r.size = max(r.size, c.size)
	if r.write < len(c.writes) {
		w := c.writes[r.write]
		n = min(n, len(w.data)-r.part)
		copy(r.image[w.off+r.part:], w.data[r.part:r.part+n])
		if r.part += n; r.part < len(w.data) {
			return
		}
		r.write, r.part = r.write+1, 0
	}
	if r.write == len(c.writes) {
		r.at, r.write = r.at+1, 0
	}
}

// tear ends in the middle of a page, half of the time in that of a meta page.
func (r *replay) tear() {
	if r.at < len(r.commits) && r.rnd.Intn(2) == 0 {
		for r.write < len(r.commits[r.at].writes)-1 {
			r.writeSome(1 << 30)
		}
		r.writeSome(pageHeader + r.rnd.Intn(metaSize))
		return
	}
	r.writeSome(r.rnd.Intn(r.pageSize))
}

// goOn writes as much as there is time for.
func (r *replay) goOn() {
	if r.burst > 0 && r.rnd.Intn(r.burst) == 0 {
		for range 1 + r.rnd.Intn(5) {
			r.commit()
		}
		r.tear()
	}
	for n := r.pace * r.rnd.ExpFloat64(); n > r.rnd.Float64(); n-- {
		r.writeSome(1 + r.rnd.Intn(2*r.pageSize))
	}
}

func (r *replay) ReadAt(b []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.goOn()
	half := r.rnd.Intn(len(b) + 1)
	n := r.copyOut(b[:half], off)
	if half < len(b) && n == half {
		r.goOn()
		n += r.copyOut(b[half:], off+int64(half))
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (r *replay) copyOut(b []byte, off int64) int {
	if off >= int64(r.size) {
		return 0
	}
	return copy(b, r.image[off:r.size])
}

func (r *replay) source() liveSource {
	size := func() (int64, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return int64(r.size), nil
	}
	return liveSource{r, size, "replay"}
}

func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// checkCopy opens a copy with bbolt, checks it and returns its digest.
func checkCopy(t testing.TB, path string, c LiveCopy) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Size() != c.Size || c.Size != c.Pages*c.PageSize {
		t.Fatalf("a file of %d bytes for %+v (%v)", info.Size(), c, err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		if uint64(tx.ID()) != c.TxID {
			return fmt.Errorf("transaction %d, want %d", tx.ID(), c.TxID)
		}
		return errors.Join(slices.Collect(func(yield func(error) bool) {
			for err := range tx.Check() {
				yield(err)
			}
		})...)
	})
	if err != nil {
		t.Fatalf("commit %d: %v", c.TxID, err)
	}
	d, err := digestOf(db)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func databaseKinds() []bolt.Options {
	return []bolt.Options{
		{PageSize: 4096, NoFreelistSync: true, FreelistType: bolt.FreelistMapType},
		{PageSize: 4096, FreelistType: bolt.FreelistArrayType},
		{PageSize: 1024, NoFreelistSync: true, FreelistType: bolt.FreelistArrayType},
		{PageSize: 512, FreelistType: bolt.FreelistMapType},
		{PageSize: 16384, NoFreelistSync: true, FreelistType: bolt.FreelistMapType},
	}
}

// usedPages are the pages of a file's newest tree, and of its list of free ones.
func usedPages(t *testing.T, image []byte) map[uint64]bool {
	t.Helper()
	db := openDB(t, image)
	used := make(map[uint64]bool)
	for stack := roots(metaPage{root: db.root, freelist: db.freelist}); len(stack) > 0; {
		id := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		overflow := binary.LittleEndian.Uint32(image[int64(id)*db.pageSize+12:])
		for i := range uint64(overflow) + 1 {
			used[id+i] = true
		}
		if id == db.freelist {
			continue
		}
		p, err := (&pageReader{db: db}).read(id)
		if err != nil {
			t.Fatal(err)
		}
		links, err := p.links()
		if err != nil {
			t.Fatal(err)
		}
		stack = append(stack, links...)
	}
	return used
}

// TestCommitsSpareTheTreeBefore holds bbolt to what CopyLive rests on: no
// commit writes to a page of the tree before. The next one does.
func TestCommitsSpareTheTreeBefore(t *testing.T) {
	for i, o := range databaseKinds() {
		tr := record(t, rand.New(rand.NewSource(int64(i))), o, 20, 100)
		image := slices.Clone(tr.first)
		var reused int
		var older, old map[uint64]bool
		for _, c := range tr.commits {
			older, old = old, usedPages(t, image)
			image = append(image, make([]byte, max(0, c.size-len(image)))...)
			for _, w := range c.writes {
				copy(image[w.off:], w.data)
				switch id := uint64(w.off / o.PageSize); {
				case id < 2:
				case old[id]:
					t.Errorf("commit %d writes page %d of the tree before", c.txid, id)
				case older[id]:
					reused++
				}
			}
		}
		if reused == 0 {
			t.Errorf("%+v: no page was ever used again", o)
		}
	}
}

// TestCopyLiveOfReplays copies files while what bbolt wrote is written to them
// page by page, at all paces and in bursts, with reads and writes torn. Each
// copy is one commit, or none is made.
func TestCopyLiveOfReplays(t *testing.T) {
	kinds := databaseKinds()
	replays := 30
	if testing.Short() {
		replays = 15
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	var sum replaySum
	for _, o := range kinds {
		t.Run(fmt.Sprintf("%d-%s-%v", o.PageSize, o.FreelistType, o.NoFreelistSync), func(t *testing.T) {
			for range replays / 15 {
				tr := record(t, rnd, o, 20+rnd.Intn(200), 200)
				for range 15 {
					sum.one(t, tr, rnd)
				}
			}
		})
	}
	t.Logf("%+v", sum)
	if all := replays * len(kinds); sum.Copies < all/4 || sum.Followed < all/20 || sum.Restarted < all/50 || sum.Busy == 0 {
		t.Errorf("of %d replays: %+v", all, sum)
	}
}

// replaySum says what became of replays.
type replaySum struct {
	Copies, Busy        int
	Followed, Restarted int // copies that followed commits, and that missed some at first
	Commits             int // followed
}

func (s *replaySum) one(t *testing.T, tr *trace, rnd *rand.Rand) {
	t.Helper()
	paces := []float64{0.01, 0.1, 0.3, 1, 3}
	bursts := []int{0, 0, 1000, 100, 20, 5}
	r := newReplay(tr, rnd, paces[rnd.Intn(len(paces))], bursts[rnd.Intn(len(bursts))])
	from := r.newest()
	dst := tempFile(t)
	c, err := copyLive(t.Context(), r.source(), dst, LiveCopyOptions{Attempts: 1 + rnd.Intn(20), quiet: 1})
	switch {
	case errors.Is(err, ErrBusy):
		s.Busy++
		return
	case err != nil:
		t.Fatal(err)
	}
	if c.TxID < from || c.TxID > r.newest() {
		t.Errorf("commit %d of %d to %d", c.TxID, from, r.newest())
	}
	if checkCopy(t, dst.Name(), c) != tr.digests[c.TxID] {
		t.Fatalf("the copy is not commit %d: %+v", c.TxID, c)
	}
	s.add(c)
}

func (s *replaySum) add(c LiveCopy) {
	s.Copies++
	s.Commits += c.Commits
	if c.Commits > 0 {
		s.Followed++
	}
	if c.Attempts > 1 {
		s.Restarted++
	}
}

func TestCopyLiveRefuses(t *testing.T) {
	refused := func(content []byte, want string) {
		t.Helper()
		src := tempFile(t)
		if _, err := src.Write(content); err != nil {
			t.Fatal(err)
		}
		c, err := CopyLive(t.Context(), src, tempFile(t), LiveCopyOptions{})
		if !isCorrupt(err) || !strings.Contains(err.Error(), want) || c.Attempts > 1 {
			t.Errorf("%.20q: %v after %d attempts, want %q", content, err, c.Attempts, want)
		}
	}
	refused(nil, "no etcd v3 backend")
	refused([]byte(strings.Repeat("x", 100_000)), "no etcd v3 backend")

	tr := record(t, rand.New(rand.NewSource(1)), bolt.Options{PageSize: 4096, NoFreelistSync: true}, 100, 0)
	db := openDB(t, tr.first)
	root := int(db.root) * 4096
	damaged := func(at int, b byte) []byte {
		image := slices.Clone(tr.first)
		image[at] = b
		return image
	}
	refused(damaged(root, 1), "header names page")
	refused(damaged(root+8, flagMeta), "where a branch or leaf should be")
	refused(damaged(root+14, 1), "pages follow it")
	refused(damaged(root+10, 255), "lies outside of the page")
	refused(tr.first[:len(tr.first)/2], "is cut short")

	src := tempFile(t)
	if _, err := CopyLive(t.Context(), src, src, LiveCopyOptions{}); err == nil || !strings.Contains(err.Error(), "onto itself") {
		t.Error(err)
	}
}

// TestCopyLiveWithOneMetaPage: the other one is damaged for good, which bbolt
// takes.
func TestCopyLiveWithOneMetaPage(t *testing.T) {
	for _, size := range []int{512, 4096, 32768} {
		tr := record(t, rand.New(rand.NewSource(2)), bolt.Options{PageSize: size}, 50, 0)
		for slot := range 2 {
			image := slices.Clone(tr.first)
			image[slot*size+pageHeader+20] ^= 1
			src, dst := tempFile(t), tempFile(t)
			if _, err := src.Write(image); err != nil {
				t.Fatal(err)
			}
			want := openDB(t, image).TxID()
			c, err := CopyLive(t.Context(), src, dst, LiveCopyOptions{})
			if err != nil || c.TxID != want {
				t.Fatalf("%+v, want commit %d (%v)", c, want, err)
			}
			if d := checkCopy(t, dst.Name(), c); c.TxID == tr.last && d != tr.digests[c.TxID] {
				t.Errorf("commit %d is not what it was", c.TxID)
			}
		}
	}
}

// metaPages are the first two pages of a file, written to between reads.
type metaPages struct {
	b      []byte
	reads  int
	before map[int]func() // what happens before the n-th read
}

func (m *metaPages) ReadAt(b []byte, off int64) (int, error) {
	m.reads++
	if do := m.before[m.reads]; do != nil {
		do()
	}
	return copy(b, m.b[off:]), nil
}

func (m *metaPages) WriteAt(b []byte, off int64) (int, error) { return copy(m.b[off:], b), nil }

func (m *metaPages) Truncate(int64) error { return nil }

// TestNewestMetaPage: whatever is written between the reads of the two pages,
// the newest is one that was the newest when the last of them was made.
func TestNewestMetaPage(t *testing.T) {
	m := &metaPages{b: make([]byte, 8192)}
	c := &liveCopier{target: m}
	c.tree.src = &DB{r: m, pageSize: 4096}
	commit := func(txid uint64) {
		if err := c.writeMeta(metaPage{pageSize: 4096, root: 2, freelist: noFreelist, pages: 9, txid: txid}); err != nil {
			t.Fatal(err)
		}
	}
	tear := func(slot int) { m.b[slot*4096+pageHeader+50] ^= 1 }
	tests := []struct {
		name   string
		reads  int // before which it happens
		do     func()
		lowest uint64
	}{
		{"nothing", 1, func() {}, 11},
		{"a write of 12 under way", 1, func() { tear(0) }, 11},
		{"12", 1, func() { commit(12) }, 12},
		{"12, between", 2, func() { commit(12) }, 11},
		{"12, and 13 under way, between", 2, func() { commit(12); tear(1) }, 12},
		{"12 to 14, and 15 under way, between", 2, func() { commit(12); commit(14); tear(1) }, 14},
	}
	for _, tt := range tests {
		commit(10)
		commit(11)
		m.reads, m.before = 0, map[int]func(){tt.reads: tt.do}
		if got, err := c.newest(); err != nil || got.txid < tt.lowest {
			t.Errorf("%s: commit %d, want %d or later (%v)", tt.name, got.txid, tt.lowest, err)
		}
	}
}

// TestCopyLiveOfReplacedFile: after a defragmentation, the old file is no
// member's any more.
func TestCopyLiveOfReplacedFile(t *testing.T) {
	tr := record(t, rand.New(rand.NewSource(3)), bolt.Options{PageSize: 4096}, 50, 0)
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	open := func() *os.File {
		if err := os.WriteFile(path, tr.first, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	copyAfter := func(change func() error) error {
		src := open()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		_, err := CopyLive(t.Context(), src, tempFile(t), LiveCopyOptions{})
		return err
	}
	if err := copyAfter(func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := copyAfter(func() error { return os.Remove(path) }); !errors.Is(err, ErrReplaced) {
		t.Errorf("removed: %v", err)
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copyAfter(func() error { return errors.Join(os.Link(path, path+".link"), os.Rename(other, path)) }); !errors.Is(err, ErrReplaced) {
		t.Errorf("replaced, and still linked: %v", err)
	}
}

// failing is a file of which some call fails, or is the last one.
type failing struct {
	*os.File
	after int
	err   error
	do    func()
	mu    sync.Mutex
}

func (f *failing) turn() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.after--; f.after > 0 {
		return nil
	}
	if f.do != nil {
		f.do()
	}
	return f.err
}

func (f *failing) ReadAt(b []byte, off int64) (int, error) {
	if err := f.turn(); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, off)
}

func (f *failing) WriteAt(b []byte, off int64) (int, error) {
	if err := f.turn(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

// TestCopyLiveFails at every read and every write, and is interrupted there.
func TestCopyLiveFails(t *testing.T) {
	tr := record(t, rand.New(rand.NewSource(4)), bolt.Options{PageSize: 1024}, 100, 0)
	src := tempFile(t)
	if _, err := src.Write(tr.first); err != nil {
		t.Fatal(err)
	}
	size := func() (int64, error) { return int64(len(tr.first)), nil }
	run := func(ctx context.Context, src io.ReaderAt, dst liveTarget) error {
		_, err := copyLive(ctx, liveSource{src, size, "db"}, dst, LiveCopyOptions{})
		return err
	}
	broken := errors.New("disk on fire")
	for n, ok := 1, false; !ok; n++ {
		err := run(t.Context(), &failing{File: src, after: n, err: broken}, tempFile(t))
		if ok = err == nil; !ok && !errors.Is(err, broken) {
			t.Fatalf("read %d: %v", n, err)
		}
	}
	for n, ok := 1, false; !ok; n++ {
		err := run(t.Context(), src, &failing{File: tempFile(t), after: n, err: broken})
		if ok = err == nil; !ok && !errors.Is(err, broken) {
			t.Fatalf("write %d: %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := run(ctx, &failing{File: src, after: 4, do: cancel}, tempFile(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// TestCopyLiveFlatMemory copies a backend of 55 MB with a heap of a few.
func TestCopyLiveFlatMemory(t *testing.T) {
	db, size := bigBackend(t, 40_000)
	src, dst := db.r.(*os.File), tempFile(t)
	runtime.GC()
	stop, peak := make(chan struct{}), make(chan uint64)
	go watchHeap(stop, peak)
	var progress int64
	c, err := CopyLive(t.Context(), src, dst, LiveCopyOptions{Progress: func(n int64) { progress += n }})
	close(stop)
	if got := <-peak; err != nil || got > 32<<20 || size < 50<<20 {
		t.Errorf("%d bytes of heap for a backend of %d (%v)", got, size, err)
	}
	if c.Size != size || progress > size || progress < size*9/10 {
		t.Errorf("%+v, progress %d of %d", c, progress, size)
	}
	want, err := db.Status()
	if err != nil {
		t.Fatal(err)
	}
	copied, err := OpenDB(dst, c.Size, DBOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := copied.Status(); err != nil || got != want {
		t.Errorf("%+v, want %+v (%v)", got, want, err)
	}
}

// FuzzCopyLive: files of any content are copied or refused; what is sound
// stays so.
func FuzzCopyLive(f *testing.F) {
	for _, size := range []int{512, 1024} {
		path := filepath.Join(f.TempDir(), "db")
		db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: size, NoFreelistSync: size == 512})
		if err != nil {
			f.Fatal(err)
		}
		for n := range 3 {
			err := db.Update(func(tx *bolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists(fmt.Append(nil, n))
				for i := range 20 * n {
					err = errors.Join(err, b.Put(fmt.Append(nil, i), make([]byte, 10+i*i)))
				}
				return err
			})
			if err != nil {
				f.Fatal(err)
			}
		}
		db.Close()
		image := readFile(f, path)
		f.Add(image[:openDB(f, image).Size()])
	}
	path := filepath.Join(f.TempDir(), "copy")
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, at := range []int{0, 512, 1024, 2048} { // let damage behind the meta pages be reached
			fixMeta(b, at)
		}
		dst, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer dst.Close()
		size := func() (int64, error) { return int64(len(b)), nil }
		c, err := copyLive(t.Context(), liveSource{bytes.NewReader(b), size, "x"}, dst, LiveCopyOptions{})
		if err != nil {
			return
		}
		before, err := openDB(t, b).Check()
		if err != nil || before.Total > 0 {
			return
		}
		db, err := OpenDB(dst, c.Size, DBOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if after, err := db.Check(); err != nil || after.Total > 0 || after.Entries != before.Entries {
			t.Errorf("%+v (%v) of %+v", after, err, before)
		}
	})
}

func BenchmarkCopyLive(b *testing.B) {
	db, size := bigBackend(b, 80_000)
	dst := tempFile(b)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := CopyLive(b.Context(), db.r.(*os.File), dst, LiveCopyOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
