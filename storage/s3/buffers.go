package s3

import (
	"context"
	"sync"
)

// buffers lends a bounded number of part buffers. Those lent out again and
// again are the same ones; those not needed for a while are freed.
type buffers struct {
	slots chan struct{}
	free  sync.Pool
}

func newBuffers(n int, size int64) *buffers {
	return &buffers{
		slots: make(chan struct{}, n),
		free:  sync.Pool{New: func() any { b := make([]byte, size); return &b }},
	}
}

// borrow waits for a buffer. Nobody may wait for a second one while holding a
// first that is only given back after that.
func (b *buffers) borrow(ctx context.Context) (*[]byte, error) {
	select {
	case b.slots <- struct{}{}:
		return b.free.Get().(*[]byte), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (b *buffers) giveBack(buf *[]byte) {
	b.free.Put(buf)
	<-b.slots
}
