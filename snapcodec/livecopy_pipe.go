package snapcodec

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// livePipe reads and writes beside the goroutine that follows the commits. It
// is that goroutine's alone, but for the channels.
type livePipe struct {
	pageSize int64

	reads   chan *liveRead
	results chan *liveRead
	busy    bool // a read is under way

	writes  chan *liveWrite
	written chan *liveWrite
	queue   []*liveWrite // not yet taken by the writer
	open    int          // writes not yet done
	held    int64        // bytes of reads, until they are written
	inner   int64        // bytes of pages that were compared, until they are written
	free    [][]byte

	wg sync.WaitGroup
}

const (
	liveReadSize = 1 << 20   // bytes read at once
	liveReadGap  = 128 << 10 // bytes worth reading and not using
	liveHeld     = 4 << 20   // bytes waiting to be written at which reading waits
	liveInner    = 16 << 20  // the same for pages that are compared
)

func newLivePipe(ctx context.Context, src io.ReaderAt, dst io.WriterAt, pageSize int64) *livePipe {
	p := &livePipe{
		pageSize: pageSize,
		reads:    make(chan *liveRead, 1), results: make(chan *liveRead, 1),
		writes: make(chan *liveWrite), written: make(chan *liveWrite),
	}
	p.wg.Go(func() { readRuns(src, pageSize, p.reads, p.results) })
	p.wg.Go(func() { writeSpans(ctx, dst, p.writes, p.written) })
	return p
}

// close waits for what is under way. The context has to be cancelled before.
func (p *livePipe) close() {
	close(p.reads)
	close(p.writes)
	p.wg.Wait()
}

// liveRun is a part of the file to read.
type liveRun struct {
	id    uint64 // first page
	pages uint64
	heads []uint64 // pages that are wanted
	at    int64    // in the buffer
	err   error
}

// liveRead is several runs, one after the other in the buffer.
type liveRead struct {
	runs []liveRun
	buf  []byte
}

// canRead tells whether another read may start. They are made one at a time,
// so that a page is in no more than one.
func (p *livePipe) canRead() bool { return !p.busy && p.held < liveHeld }

func (p *livePipe) read(runs []liveRun) {
	if len(runs) == 0 {
		return
	}
	var length int64
	for i := range runs {
		runs[i].at = length
		length += int64(runs[i].pages) * p.pageSize
	}
	p.busy = true
	p.held += length
	p.reads <- &liveRead{runs: runs, buf: p.buffer(length)}
}

func (p *livePipe) buffer(length int64) []byte {
	if n := len(p.free); n > 0 && length <= liveReadSize {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b[:length]
	}
	return make([]byte, length, max(length, liveReadSize))
}

// received ends a read. What is taken of it goes into the write.
func (p *livePipe) received(r *liveRead) *liveWrite {
	p.busy = false
	return &liveWrite{buf: r.buf}
}

func readRuns(src io.ReaderAt, pageSize int64, reads <-chan *liveRead, results chan<- *liveRead) {
	for r := range reads {
		for i := range r.runs {
			run := &r.runs[i]
			length := int64(run.pages) * pageSize
			if n, err := src.ReadAt(r.buf[run.at:run.at+length], int64(run.id)*pageSize); int64(n) < length {
				run.err = err
			}
		}
		results <- r
	}
}

// liveWrite is pages to write.
type liveWrite struct {
	buf     []byte // of the read that they came with; nil: each has its own
	inner   bool   // pages that were compared
	size    int64  // bytes
	end     int64  // of the last span in buf
	spans   []liveSpan
	leading []uint64 // of the pages, those that lead to others
	err     error
}

// liveSpan is a part of the file.
type liveSpan struct {
	off  int64
	at   int64 // in the buffer
	data []byte
}

// add appends length bytes that lie in the buffer. What follows the last span
// in the file and in the buffer is written with it.
func (w *liveWrite) add(off, at, length int64) {
	w.size += length
	if n := len(w.spans); n > 0 && w.end == at {
		if last := &w.spans[n-1]; last.off+int64(len(last.data)) == off {
			w.end = at + length
			last.data = w.buf[last.at:w.end]
			return
		}
	}
	w.end = at + length
	w.spans = append(w.spans, liveSpan{off, at, w.buf[at:w.end]})
}

// addOwn appends bytes that lie elsewhere.
func (w *liveWrite) addOwn(off int64, data []byte) {
	w.size += int64(len(data))
	w.spans = append(w.spans, liveSpan{off: off, data: data})
}

// enqueue hands pages to the writer, behind those before.
func (p *livePipe) enqueue(w *liveWrite) {
	if w.inner {
		p.inner += w.size
	}
	if len(w.spans) == 0 {
		p.recycle(w)
		return
	}
	p.open++
	p.queue = append(p.queue, w)
}

// next is the write that comes next, and the channel that it goes to: nil when
// there is none.
func (p *livePipe) next() (chan<- *liveWrite, *liveWrite) {
	if len(p.queue) == 0 {
		return nil, nil
	}
	return p.writes, p.queue[0]
}

// sent notes that the writer took it.
func (p *livePipe) sent() {
	p.queue[0] = nil
	p.queue = p.queue[1:]
}

// release ends a write.
func (p *livePipe) release(w *liveWrite) {
	p.open--
	p.recycle(w)
}

// recycle gives the memory of a write back.
func (p *livePipe) recycle(w *liveWrite) {
	if w.inner {
		p.inner -= w.size
		return
	}
	p.held -= int64(len(w.buf))
	if cap(w.buf) == liveReadSize {
		p.free = append(p.free, w.buf)
	}
}

// writeSpans writes in the order given: a page may be written again.
func writeSpans(ctx context.Context, dst io.WriterAt, writes <-chan *liveWrite, written chan<- *liveWrite) {
	for w := range writes {
		for _, s := range w.spans {
			if _, err := dst.WriteAt(s.data, s.off); err != nil {
				w.err = fmt.Errorf("write the copy: %w", err)
				break
			}
		}
		select {
		case written <- w:
		case <-ctx.Done():
		}
	}
}
