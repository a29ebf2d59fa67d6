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
	defer w.close()
	for range warm {
		w.commit(t)
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

// goOn writes as much as there is time for.
func (r *replay) goOn() {
	if r.burst > 0 && r.rnd.Intn(r.burst) == 0 {
		for range 1 + r.rnd.Intn(5) {
			r.commit()
		}
		r.writeSome(r.rnd.Intn(r.pageSize))
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

// TestCopyLiveOfReplays copies files while what bbolt wrote is written to them
// page by page, at all paces and in bursts, with reads and writes torn. Each
// copy is one commit, or none is made.
func TestCopyLiveOfReplays(t *testing.T) {
	kinds := []bolt.Options{
		{PageSize: 4096, NoFreelistSync: true, FreelistType: bolt.FreelistMapType},
		{PageSize: 4096, FreelistType: bolt.FreelistArrayType},
		{PageSize: 1024, NoFreelistSync: true, FreelistType: bolt.FreelistArrayType},
		{PageSize: 512, FreelistType: bolt.FreelistMapType},
		{PageSize: 16384, NoFreelistSync: true, FreelistType: bolt.FreelistMapType},
	}
	for i, o := range kinds {
		t.Run(fmt.Sprintf("%d-%s-%v", o.PageSize, o.FreelistType, o.NoFreelistSync), func(t *testing.T) {
			t.Parallel()
			replays := 150
			if testing.Short() {
				replays = 30
			}
			seed := time.Now().UnixNano() + int64(i)
			t.Logf("seed %d", seed)
			rnd := rand.New(rand.NewSource(seed))
			var sum replaySum
			for n := 0; n < replays; n += 30 {
				tr := record(t, rnd, o, 20+rnd.Intn(200), 300)
				for range 30 {
					sum.one(t, tr, rnd)
				}
			}
			t.Logf("%+v", sum)
			if sum.Copies < replays/4 || sum.Followed < replays/10 || sum.Restarted < replays/20 || sum.Busy == 0 {
				t.Errorf("of %d replays: %+v", replays, sum)
			}
		})
	}
}

// replaySum says what became of replays.
type replaySum struct {
	Copies, Followed, Restarted, Ended, Busy int
	Commits                                  int
}

func (s *replaySum) one(t *testing.T, tr *trace, rnd *rand.Rand) {
	t.Helper()
	paces := []float64{0.01, 0.1, 0.3, 1, 3}
	bursts := []int{0, 0, 1000, 100, 20}
	r := newReplay(tr, rnd, paces[rnd.Intn(len(paces))], bursts[rnd.Intn(len(bursts))])
	from := r.newest()
	dst := tempFile(t)
	c, err := copyLive(t.Context(), r.source(), dst, LiveCopyOptions{Attempts: 1 + rnd.Intn(20)})
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
	s.Copies++
	s.Commits += c.Commits
	if c.Commits > 0 {
		s.Followed++
	}
	if c.Attempts > 1 {
		s.Restarted++
	}
	if r.at == len(r.commits) {
		s.Ended++
	}
}

func TestCopyLiveRefuses(t *testing.T) {
	refused := func(content, want string) {
		t.Helper()
		src := tempFile(t)
		if _, err := src.WriteString(content); err != nil {
			t.Fatal(err)
		}
		_, err := CopyLive(t.Context(), src, tempFile(t), LiveCopyOptions{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", content, err, want)
		}
	}
	refused("", "no etcd v3 backend")
	refused(strings.Repeat("x", 100_000), "no etcd v3 backend")
	src := tempFile(t)
	if _, err := CopyLive(context.Background(), src, src, LiveCopyOptions{}); err == nil || !strings.Contains(err.Error(), "onto itself") {
		t.Error(err)
	}
}
