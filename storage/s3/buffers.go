package s3

import (
	"context"
	"sync"
)

// buffers lends a bounded number of part buffers, and frees them when all have
// been given back.
type buffers struct {
	size  int64 // bytes
	slots chan struct{}
	reads chan struct{} // those of the slots that are lent to readers: never the last

	mu   sync.Mutex
	free [][]byte
	lent int
}

func newBuffers(n int, size int64) *buffers {
	return &buffers{size: size, slots: make(chan struct{}, n), reads: make(chan struct{}, n-1)}
}

// borrow waits for a buffer to write from. Nobody may wait for a second one
// while holding a first that is only given back after that.
func (b *buffers) borrow(ctx context.Context) ([]byte, error) {
	select {
	case b.slots <- struct{}{}:
		return b.take(), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// borrowToRead returns a buffer to read ahead into, or nil if none is free. A
// reader may keep it for as long as it likes: one is always left to write from.
func (b *buffers) borrowToRead() []byte {
	select {
	case b.reads <- struct{}{}:
	default:
		return nil
	}
	select {
	case b.slots <- struct{}{}:
		return b.take()
	default:
		<-b.reads
		return nil
	}
}

func (b *buffers) take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lent++
	if last := len(b.free) - 1; last >= 0 {
		buf := b.free[last]
		b.free = b.free[:last]
		return buf
	}
	return make([]byte, b.size)
}

func (b *buffers) giveBack(buf []byte) {
	b.mu.Lock()
	b.lent--
	b.free = append(b.free, buf)
	if b.lent == 0 {
		b.free = nil
	}
	b.mu.Unlock()
	<-b.slots
}

func (b *buffers) giveBackRead(buf []byte) {
	b.giveBack(buf)
	<-b.reads
}
