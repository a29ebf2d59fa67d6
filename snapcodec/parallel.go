package snapcodec

import (
	"runtime"
	"sync"
)

// scan visits a bucket's leaves in parallel. The tree is cut into parts, one
// for each of the lowest branch pages; visit sees the leaves of one part in
// order, with a P of its own; merge gets the parts in order, in the caller's
// goroutine, and may leave the P to be used again. The first error in the
// bucket's order ends the scan and is returned.
type scan[P any] struct {
	bucket *Bucket
	visit  func(v P, part int, leaf *page) error
	merge  func(P) error
	make   func() P

	stop chan struct{}
	work chan *part[P]
	free chan P

	budget *pageBudget
}

// part is a piece of the tree, and what became of it.
type part[P any] struct {
	root  uint64
	n     int // parts before it
	value P
	err   error
	done  chan struct{}
}

// partsAhead is how many parts may be done or under way before the one that is
// merged next, for each worker: it bounds the memory.
const partsAhead = 4

func (s *scan[P]) run() error {
	if s.bucket.root == 0 {
		return s.runInline()
	}
	workers := runtime.GOMAXPROCS(0)
	s.stop = make(chan struct{})
	s.work = make(chan *part[P], workers*partsAhead)
	s.free = make(chan P, workers*(partsAhead+2))
	s.budget = s.bucket.db.budget()
	ordered := make(chan *part[P], workers*partsAhead)
	var wg sync.WaitGroup
	wg.Go(func() { s.cut(ordered) })
	for range workers {
		wg.Go(s.worker)
	}
	err := s.collect(ordered)
	wg.Wait()
	return err
}

func (s *scan[P]) runInline() error {
	p, err := s.bucket.inlinePage()
	if err != nil {
		return err
	}
	v := s.make()
	if err := s.visit(v, 0, &p); err != nil {
		return err
	}
	return s.merge(v)
}

// cut walks the branch pages and hands out the parts.
func (s *scan[P]) cut(ordered chan<- *part[P]) {
	defer close(ordered)
	defer close(s.work)
	c := cutter[P]{scan: s, ordered: ordered, reader: pageReader{db: s.bucket.db}, left: s.bucket.db.pages}
	if err := c.cut(s.bucket.root, 0); err != nil && err != errStop {
		failed := &part[P]{err: err, done: make(chan struct{})}
		close(failed.done)
		select {
		case ordered <- failed:
		case <-s.stop:
		}
	}
}

type cutter[P any] struct {
	*scan[P]
	ordered chan<- *part[P]
	reader  pageReader
	n       int
	left    uint64 // pages that may still be seen
}

// cut hands out the part at id, or those below it when its children are
// branches too.
func (c *cutter[P]) cut(id uint64, depth int) error {
	if depth >= maxTreeDepth || c.left == 0 {
		return c.reader.db.damage(id, "tree is deeper than %d pages, or has more pages than the file", maxTreeDepth)
	}
	c.left--
	p, err := c.reader.read(id)
	if err != nil {
		return err
	}
	if p.flags == flagLeaf {
		return c.hand(id)
	}
	ids, err := p.children(nil)
	if err != nil {
		return err
	}
	below, err := c.reader.read(ids[0])
	if err != nil || below.flags == flagLeaf {
		return c.hand(id) // the worker meets the error again
	}
	for _, child := range ids {
		if err := c.cut(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *cutter[P]) hand(id uint64) error {
	p := &part[P]{root: id, n: c.n, done: make(chan struct{})}
	c.n++
	select {
	case c.ordered <- p:
	case <-c.stop:
		return errStop
	}
	c.work <- p // as long as ordered: never blocks for ever
	return nil
}

func (s *scan[P]) worker() {
	w := treeWalker{pageReader: pageReader{db: s.bucket.db}, budget: s.budget}
	for p := range s.work {
		select {
		case <-s.stop:
			p.err = errStop
		default:
			p.value = s.take()
			w.visit = func(pg *page) error { return s.visit(p.value, p.n, pg) }
			p.err = w.walk(p.root, 0)
		}
		close(p.done)
	}
}

// take gives a P that merge is done with, or a new one.
func (s *scan[P]) take() P {
	select {
	case v := <-s.free:
		return v
	default:
		return s.make()
	}
}

// collect merges the parts in order; after an error it only waits for the rest.
func (s *scan[P]) collect(ordered <-chan *part[P]) (err error) {
	for p := range ordered {
		<-p.done
		if err != nil {
			continue
		}
		if err = p.err; err == nil {
			err = s.merge(p.value)
		}
		if err != nil {
			close(s.stop)
			continue
		}
		s.recycle(p.value)
	}
	return err
}

func (s *scan[P]) recycle(v P) {
	select {
	case s.free <- v:
	default:
	}
}
