package forensic

import (
	"io"
	"runtime"
	"sync"
)

// pipeline prints items on all cores and writes the results in order. What is
// in flight is bounded: a few batches of some hundred KiB, and of larger
// records one at a time.
type pipeline struct {
	d    *dumper
	w    io.Writer
	cur  *batch
	free chan *batch
	work chan *batch // to the printers
	line chan *batch // to the writer, in order

	op  op // for large items
	out []byte

	inFlight sync.WaitGroup // batches not yet written
	running  sync.WaitGroup // goroutines

	mu  sync.Mutex
	err error // of the writer
}

// The bounds of a batch: bytes of records, and their number.
const (
	batchBytes = 128 << 10
	batchItems = 1024
)

// batch is a run of items with their bytes, and what is printed of them.
type batch struct {
	data    []byte
	items   []item
	out     []byte
	printed chan struct{}
}

func newPipeline(w io.Writer, d *dumper) *pipeline {
	printers := runtime.GOMAXPROCS(0)
	n := 2*printers + 2
	p := &pipeline{
		d:    d,
		w:    w,
		free: make(chan *batch, n),
		work: make(chan *batch, n),
		line: make(chan *batch, n),
	}
	for range n {
		p.free <- &batch{printed: make(chan struct{}, 1)}
	}
	p.cur = <-p.free
	for range printers {
		p.running.Go(p.printLoop)
	}
	p.running.Go(p.writeLoop)
	return p
}

// add takes a copy of the item. It returns the writer's error, if there was one.
func (p *pipeline) add(it *item) error {
	if len(it.data) > batchBytes {
		return p.direct(it)
	}
	if len(p.cur.data)+len(it.data) > batchBytes || len(p.cur.items) == batchItems {
		if err := p.flush(); err != nil {
			return err
		}
	}
	p.cur.add(it)
	return nil
}

// direct prints a large item where it stands, after all before it are written:
// a copy of it, and others of its size at the same time, would take too much
// memory.
func (p *pipeline) direct(it *item) error {
	if err := p.flush(); err != nil {
		return err
	}
	p.inFlight.Wait()
	if err := p.failure(); err != nil {
		return err
	}
	p.out = p.d.print(p.out[:0], it, &p.op)
	_, err := p.w.Write(p.out)
	return err
}

func (b *batch) add(it *item) {
	start := len(b.data)
	b.data = append(b.data, it.data...)
	copied := *it
	copied.data = b.data[start:len(b.data):len(b.data)]
	copied.entry.Data = copied.data
	b.items = append(b.items, copied)
}

// flush hands the current batch on and takes a new one.
func (p *pipeline) flush() error {
	if len(p.cur.items) > 0 {
		p.inFlight.Add(1)
		p.line <- p.cur
		p.work <- p.cur
		p.cur = <-p.free
	}
	return p.failure()
}

func (p *pipeline) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *pipeline) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// close writes what is left and waits for everybody.
func (p *pipeline) close() error {
	err := p.flush()
	close(p.work)
	close(p.line)
	p.running.Wait()
	if err != nil {
		return err
	}
	return p.failure()
}

func (p *pipeline) printLoop() {
	var o op
	for b := range p.work {
		for i := range b.items {
			b.out = p.d.print(b.out, &b.items[i], &o)
		}
		b.printed <- struct{}{}
	}
}

func (p *pipeline) writeLoop() {
	for b := range p.line {
		<-b.printed
		if p.failure() == nil && len(b.out) > 0 {
			if _, err := p.w.Write(b.out); err != nil {
				p.fail(err)
			}
		}
		b.reset()
		p.inFlight.Done()
		p.free <- b
	}
}

// reset empties a batch, and lets go of the room that unusual output took.
func (b *batch) reset() {
	b.data, b.items, b.out = b.data[:0], b.items[:0], b.out[:0]
	if cap(b.out) > 8*batchBytes {
		b.out = nil
	}
}
