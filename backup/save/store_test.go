package save

import (
	"context"
	"io"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// failing is a store of which one Put fails, in its midst.
type failing struct {
	*storagetest.Memory
	left int // puts until then
	err  error
}

func (f *failing) Put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	if f.left--; f.left == 0 {
		io.CopyN(io.Discard, body, 100)
		return storage.Object{}, f.err
	}
	return f.Memory.Put(ctx, key, body, o)
}
