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

	mu   sync.Mutex
	free [][]byte
	lent int
}

func newBuffers(n int, size int64) *buffers {
	return &buffers{size: size, slots: make(chan struct{}, n)}
}

// borrow waits for a buffer. Nobody may wait for a second one while holding a
// first that is only given back after that.
func (b *buffers) borrow(ctx context.Context) ([]byte, error) {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lent++
	if last := len(b.free) - 1; last >= 0 {
		buf := b.free[last]
		b.free = b.free[:last]
		return buf, nil
	}
	return make([]byte, b.size), nil
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
