package snapcodec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"os"
	"sync"
	"syscall"
	"time"
)

// What [CopyLive] may end with.
var (
	// ErrBusy: commits came faster than they could be followed. Let the member
	// send a snapshot instead, or copy when it has less to do.
	ErrBusy = errors.New("commits came faster than they could be followed")
	// ErrReplaced: another file has the name by now, as after a
	// defragmentation. Open that one, and copy again.
	ErrReplaced = errors.New("file was replaced while it was copied")
)

// LiveCopyOptions of [CopyLive]; the zero value works.
type LiveCopyOptions struct {
	Attempts int // how often to start, when commits are missed; 0: 20
	// Progress is called with the bytes copied since the last call, also
	// when there are none. Starting over takes them back by a negative number.
	Progress func(bytes int64)

	quiet time.Duration // without commits before another attempt; 0: liveQuiet
}

// LiveCopy is what [CopyLive] copied.
type LiveCopy struct {
	TxID     uint64 // of the commit whose state the copy is
	PageSize int64  // bytes
	Pages    int64  // the copy's length in pages, those that nothing uses included
	Size     int64  // the copy's length in bytes
	Bytes    int64  // read from the source in all, more than once where it changed
	Commits  int    // followed while copying
	Attempts int    // 1: it never had to start over
}

// CopyLive copies the backend of a running member to dst, whole as of one of
// its commits, the newest one when CopyLive returns or one shortly before.
// The source is only read, by ReadAt: no lock, no mapping. It has to be read on
// the machine that writes it, since a network file system may show the writes
// in another order. dst is open for reading and writing; it is emptied first,
// and not synced. What no tree uses is a hole in it, or rubbish. Memory is at
// most some 25 MB and five bits for each page, and the largest value.
//
// It reads the tree of a commit, and follows: every new commit is compared with
// the one before, what both share stays, what is new is read. This rests on
// what makes bbolt safe against crashes. As long as the meta page of commit N+1
// is not written, the tree of commit N must be whole on disk, so nothing that
// commit N+1 writes before it goes to a page of that tree. Hence
//
//   - what was read of tree N is good when the newest meta page is still N
//     afterwards, and
//   - a page that trees N and N+1 share is unchanged, with all that is below
//     it, until meta page N+2 is written.
//
// A page of tree N that N+1 doesn't have may be written anew by N+2, and be in
// its tree. So no commit may be missed: when the number jumps by two, all is
// read again.
//
// Source: bbolt 1.3.12, 1.4.3 and 1.5.0 alike, with either list of free pages.
// DB.beginRWTx releases what commits up to N have freed (freelist.release,
// shared.ReleasePendingPages; readers only delay it), node.spill and Bucket.free
// put what transaction N+1 frees aside until the next one begins, and Tx.Commit
// writes pages (Tx.write), then the meta page (Tx.writeMeta). See
// docs/design/livecopy.md for what else was considered.
func CopyLive(ctx context.Context, src, dst *os.File, o LiveCopyOptions) (LiveCopy, error) {
	if err := distinct(src, dst); err != nil {
		return LiveCopy{}, err
	}
	size := func() (int64, error) {
		info, err := src.Stat()
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	done, err := copyLive(ctx, liveSource{src, size, src.Name()}, dst, o)
	if err == nil && replaced(src) {
		return done, fmt.Errorf("copy %s: %w", src.Name(), ErrReplaced)
	}
	return done, err
}

func distinct(src, dst *os.File) error {
	from, err := src.Stat()
	if err != nil {
		return err
	}
	to, err := dst.Stat()
	if err != nil {
		return err
	}
	if os.SameFile(from, to) {
		return fmt.Errorf("copy %s: onto itself", src.Name())
	}
	return nil
}

// replaced tells whether the file lost its name, or the name means another one.
func replaced(f *os.File) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	if st, ok := mine.Sys().(*syscall.Stat_t); ok && st.Nlink == 0 {
		return true
	}
	named, err := os.Stat(f.Name())
	return err == nil && !os.SameFile(mine, named)
}

// liveSource is the file that changes while it is read.
type liveSource struct {
	io.ReaderAt
	size func() (int64, error)
	name string
}

// liveTarget is what the copy is written to.
type liveTarget interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

const (
	liveAttempts = 20
	// livePoll is how often the meta pages are looked at; each miss halves it.
	// etcd 3.5 and later make two commits in a row for each batch that they
	// compact, with nothing but the disk's syncs in between
	// (kvstore_compaction.go, batchTxBuffered.Unlock in batch_tx.go).
	livePoll     = 200 * time.Microsecond
	livePollLess = 50 * time.Microsecond
	// After a miss, the next attempt waits until there was no commit for so
	// long, as there is none between etcd's regular ones, but not for ever.
	liveQuiet    = 30 * time.Millisecond
	liveMostWait = time.Second
	// A copy is given up when it has read so many times the file's size, and
	// this much more.
	liveRereads    = 8
	liveRereadSize = 256 << 20
)

// errMissed says that a commit was not seen in time: all that is known of the
// tree is worth nothing.
var errMissed = errors.New("missed a commit")

// liveCopier runs a copy. One goroutine follows the commits and does nothing
// else, so that it misses none; one reads pages, one writes them; the caller's
// keeps them busy. It holds the lock except while it waits.
type liveCopier struct {
	source   liveSource
	target   liveTarget
	progress func(int64)
	quiet    time.Duration

	mu     sync.Mutex // for all that follows
	tree   liveTree
	pipe   *livePipe
	result LiveCopy
	copied int64 // bytes, in this attempt
	before int64 // result.Bytes when this attempt began
	failed error // what following came to

	unsaid int64 // progress

	wake chan struct{} // there may be something to do
}

func copyLive(ctx context.Context, src liveSource, dst liveTarget, o LiveCopyOptions) (LiveCopy, error) {
	if o.Attempts == 0 {
		o.Attempts = liveAttempts
	}
	if o.quiet == 0 {
		o.quiet = liveQuiet
	}
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	c := &liveCopier{source: src, target: dst, progress: o.Progress, quiet: o.quiet, wake: make(chan struct{}, 1)}
	c.tree.src = &DB{r: src, name: src.name}
	if err := dst.Truncate(0); err != nil {
		return c.result, err
	}
	if err := c.findPageSize(); err != nil {
		return c.result, err
	}
	c.tree.dst = &DB{r: dst, name: "copy of " + src.name, pageSize: c.tree.src.pageSize}
	err := c.run(ctx, o.Attempts)
	return c.result, err
}

// run starts the other goroutines, and ends them.
func (c *liveCopier) run(ctx context.Context, attempts int) error {
	ctx, cancel := context.WithCancel(ctx)
	c.pipe = newLivePipe(ctx, c.source, c.target, c.tree.src.pageSize)
	var watcher sync.WaitGroup
	watcher.Go(func() { c.watch(ctx) })
	err := c.repeat(ctx, attempts)
	cancel()
	watcher.Wait()
	c.pipe.close()
	return err
}

// repeat starts over until an attempt sees all commits.
func (c *liveCopier) repeat(ctx context.Context, attempts int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		c.result.Attempts++
		err := c.attempt(ctx)
		if err == nil {
			return c.finish()
		}
		if err != errMissed {
			return err
		}
		if c.result.Attempts >= attempts {
			return fmt.Errorf("copy %s: %d attempts: %w", c.source.name, attempts, ErrBusy)
		}
		c.unsaid -= c.copied
		c.tree.forget()
		if err := c.calm(ctx); err != nil {
			return err
		}
	}
}

// attempt copies the tree of the newest commit, and of those that follow, until
// it has all of one.
func (c *liveCopier) attempt(ctx context.Context) error {
	c.copied, c.before, c.failed = 0, c.result.Bytes, nil
	c.tree.forget()
	m, err := c.newest()
	if err != nil {
		return err
	}
	if err := c.admit(m); err != nil {
		return err
	}
	c.tree.begin(m)
	for c.tree.missing > 0 || c.pipe.open > 0 {
		if err := c.step(ctx); err != nil {
			return err
		}
	}
	return c.failed
}

// calm waits for a time without commits.
func (c *liveCopier) calm(ctx context.Context) error {
	var last metaPage
	end := time.Now().Add(liveMostWait)
	for quiet := time.Now(); time.Since(quiet) < c.quiet && time.Now().Before(end); {
		m, err := c.newest()
		if err != nil {
			return err
		}
		if m != last {
			last, quiet = m, time.Now()
		}
		select {
		case <-time.After(c.quiet / 10):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// watch follows the commits while a tree is incomplete.
func (c *liveCopier) watch(ctx context.Context) {
	for ctx.Err() == nil {
		pause(c.interval())
		if c.look() {
			select {
			case c.wake <- struct{}{}:
			default:
			}
		}
	}
}

// interval is the time between two looks.
func (c *liveCopier) interval() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(livePoll>>max(c.result.Attempts-1, 0), livePollLess)
}

// look follows, and tells whether anything changed.
func (c *liveCopier) look() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tree.missing == 0 || c.failed != nil {
		return false
	}
	before := c.tree.meta
	c.failed = c.follow()
	return c.failed != nil || c.tree.meta != before
}

// step starts what can be started and waits for what happens next. Once the
// tree is complete, commits are no longer of interest.
func (c *liveCopier) step(ctx context.Context) error {
	if c.failed != nil {
		return c.failed
	}
	if c.tree.missing > 0 && c.pipe.canRead() {
		c.pipe.read(c.tree.plan())
	}
	out, next := c.pipe.next()
	news := c.unsaid
	c.unsaid = 0
	c.mu.Unlock()
	c.progress(news)
	select {
	case out <- next:
		c.mu.Lock()
		c.pipe.sent()
	case w := <-c.pipe.written:
		c.mu.Lock()
		c.tree.wrote(w)
		c.pipe.release(w)
		return w.err
	case r := <-c.pipe.results:
		c.mu.Lock()
		return c.took(r)
	case <-c.wake:
		c.mu.Lock()
	case <-ctx.Done():
		c.mu.Lock()
		return context.Cause(ctx)
	}
	return nil
}

// took looks whether what was read is good, and takes it over.
func (c *liveCopier) took(r *liveRead) error {
	c.result.Bytes += int64(len(r.buf))
	w := c.pipe.received(r)
	if c.failed != nil {
		c.pipe.recycle(w)
		return c.failed
	}
	if c.tree.missing > 0 {
		if err := c.follow(); err != nil {
			c.pipe.recycle(w)
			return err
		}
		n, err := c.tree.takeAll(r, w)
		if err != nil {
			return err
		}
		c.copied += n
		c.unsaid += n
	}
	c.pipe.enqueue(w)
	return c.bounded()
}

// bounded gives up when the file changes as fast as it is read.
func (c *liveCopier) bounded() error {
	size := int64(c.tree.meta.pages) * c.tree.src.pageSize
	if read := c.result.Bytes - c.before; c.tree.missing > 0 && read > liveRereads*size+liveRereadSize {
		return fmt.Errorf("copy %s: %d bytes were read of %d, and some are still missing: %w", c.source.name, read, size, ErrBusy)
	}
	return nil
}

// follow catches up with the commits since the last look. It returns when what
// was read before the call, and is still known, is known to be good.
func (c *liveCopier) follow() error {
	for {
		m, err := c.newest()
		if err != nil {
			return err
		}
		if m == c.tree.meta {
			return nil
		}
		if m.txid != c.tree.meta.txid+1 {
			return errMissed
		}
		if err := c.advance(m); err != nil {
			return err
		}
		c.result.Commits++
	}
}

// advance goes from a commit to the next.
func (c *liveCopier) advance(m metaPage) error {
	if err := c.admit(m); err != nil {
		return err
	}
	d, err := c.tree.compare(m, liveInner-c.pipe.inner)
	if err != nil && !isCorrupt(err) {
		return err
	}
	again, merr := c.newest()
	switch {
	case merr != nil:
		return merr
	case again != m:
		return errMissed // what was compared may have been half overwritten
	case err != nil:
		return err
	}
	w := &liveWrite{inner: true}
	if err := c.tree.adopt(d, w); err != nil {
		return err
	}
	c.pipe.enqueue(w)
	return nil
}

// findPageSize reads it from a meta page. One of them may be in the middle of
// being written.
func (c *liveCopier) findPageSize() error {
	size, err := c.source.size()
	if err != nil {
		return err
	}
	return retryMeta(func() error {
		first, err := c.tree.src.readMeta(0, size)
		if err != nil && isCorrupt(err) {
			first, err = c.tree.src.secondMeta(first, size)
		}
		c.tree.src.pageSize = int64(first.pageSize)
		return err
	})
}

// Reading a meta page while it is written gives a wrong checksum, for as long
// as a write of 4 KiB takes.
const (
	metaTries = 50
	metaPause = 100 * time.Microsecond
)

// retryMeta repeats a read of meta pages that found damage.
func retryMeta(read func() error) error {
	for try := 1; ; try++ {
		err := read()
		if err == nil || !isCorrupt(err) || try == metaTries {
			return err
		}
		time.Sleep(metaPause)
	}
}

// newest reads the meta page of the newest commit that is complete.
//
// Damage in one of the two is a write under way, or lasting. Either way the
// other one, when it is read afterwards, was the newest at that moment: the
// commit that replaces it comes only after the one that is being written.
func (c *liveCopier) newest() (m metaPage, err error) {
	err = retryMeta(func() error {
		first, err1 := c.tree.src.readMeta(0, math.MaxInt64)
		second, err2 := c.tree.src.readMeta(c.tree.src.pageSize, math.MaxInt64)
		if err2 != nil && err1 == nil {
			first, err1 = c.tree.src.readMeta(0, math.MaxInt64)
		}
		if m, err = newer(first, err1, second, err2); err != nil {
			return err
		}
		// A file made by "snapshot save" may have its newest meta page where
		// the next commit writes its own.
		if m.txid < c.tree.meta.txid {
			return c.tree.src.corrupt(0, fmt.Errorf("commit %d after %d", m.txid, c.tree.meta.txid))
		}
		return nil
	})
	return m, err
}

// newer picks the valid one with the higher number.
func newer(a metaPage, aerr error, b metaPage, berr error) (metaPage, error) {
	switch {
	case aerr != nil && !isCorrupt(aerr):
		return a, aerr
	case berr != nil && !isCorrupt(berr):
		return b, berr
	case aerr != nil:
		return b, berr
	case berr == nil && b.txid > a.txid:
		return b, nil
	}
	return a, nil
}

// admit tests whether a meta page fits the file, before memory is taken for it.
func (c *liveCopier) admit(m metaPage) error {
	if int64(m.pageSize) != c.tree.src.pageSize {
		return c.tree.src.corrupt(0, fmt.Errorf("page size %d after %d", m.pageSize, c.tree.src.pageSize))
	}
	size, err := c.source.size()
	if err != nil {
		return err
	}
	if m.pages < 3 || m.pages > uint64(size/c.tree.src.pageSize) {
		return c.tree.src.corrupt(0, fmt.Errorf("file of %d bytes is cut short: it has %d pages of %d bytes", size, m.pages, m.pageSize))
	}
	for _, id := range roots(m) {
		if id < 2 || id >= m.pages {
			return c.tree.src.corrupt(0, fmt.Errorf("page %d is none of the %d pages", id, m.pages))
		}
	}
	return nil
}

// finish gives the copy its meta pages and its length.
func (c *liveCopier) finish() error {
	m, size := c.tree.meta, int64(c.tree.meta.pages)*c.tree.src.pageSize
	if err := c.writeMeta(m); err != nil {
		return err
	}
	m.txid = max(m.txid, 1) - 1
	if m.txid != c.tree.meta.txid {
		if err := c.writeMeta(m); err != nil {
			return err
		}
	}
	if err := c.target.Truncate(size); err != nil {
		return err
	}
	c.progress(c.unsaid)
	r := &c.result
	r.TxID, r.PageSize, r.Pages, r.Size = c.tree.meta.txid, c.tree.src.pageSize, int64(c.tree.meta.pages), size
	return nil
}

// writeMeta writes a meta page to where bbolt has that of a commit of this
// number. Sequence and flags of the root bucket are never used.
func (c *liveCopier) writeMeta(m metaPage) error {
	le := binary.LittleEndian
	b := make([]byte, c.tree.src.pageSize)
	slot := m.txid % 2
	le.PutUint64(b, slot)
	le.PutUint16(b[8:], flagMeta)
	body := b[pageHeader : pageHeader+metaSize]
	le.PutUint32(body, dbMagic)
	le.PutUint32(body[4:], dbVersion)
	le.PutUint32(body[8:], m.pageSize)
	le.PutUint64(body[16:], m.root)
	le.PutUint64(body[32:], m.freelist)
	le.PutUint64(body[40:], m.pages)
	le.PutUint64(body[48:], m.txid)
	h := fnv.New64a()
	h.Write(body[:metaSize-8])
	le.PutUint64(body[metaSize-8:], h.Sum64())
	_, err := c.target.WriteAt(b, int64(slot)*c.tree.src.pageSize)
	return err
}
