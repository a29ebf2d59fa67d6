package repository

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Compression is how hard to compress; the zero value balances speed and size.
type Compression int

// The compressions, the fastest first but for the default.
const (
	CompressDefault Compression = iota
	CompressFastest
	CompressBetter
	CompressBest
)

// meter counts and hashes what is written to it.
type meter struct {
	hash hash.Hash
	n    int64
}

func newMeter() *meter { return &meter{hash: sha256.New()} }

func (m *meter) Write(p []byte) (int, error) {
	m.n += int64(len(p))
	return m.hash.Write(p)
}

func (m *meter) sum() string { return hex.EncodeToString(m.hash.Sum(nil)) }

// sealTo streams what write writes to key and fills in part's digests.
func (d *Draft) sealTo(ctx context.Context, key string, part *Part, write func(context.Context, io.Writer) error) error {
	pr, pw := io.Pipe()
	plain, stored := newMeter(), newMeter()
	done := make(chan error, 1)
	go func() {
		err := d.seal(ctx, io.MultiWriter(pw, stored), plain, write)
		pw.CloseWithError(err)
		done <- err
	}()
	_, err := d.repo.store.Put(ctx, key, pr, storage.PutOptions{CreateOnly: true})
	pr.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if writeErr := <-done; writeErr != nil && err == nil {
		err = writeErr
	}
	part.Size, part.SHA256 = plain.n, plain.sum()
	part.StoredSize, part.StoredSHA256 = stored.n, stored.sum()
	return err
}

func (d *Draft) seal(ctx context.Context, to io.Writer, plain *meter, write func(context.Context, io.Writer) error) error {
	closers := []io.Closer{}
	if list := d.o.Recipients.list; len(list) > 0 {
		enc, err := age.Encrypt(to, list...)
		if err != nil {
			return err
		}
		to, closers = enc, append(closers, enc)
	}
	z, err := zstd.NewWriter(to, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	closers = append([]io.Closer{z}, closers...)
	if err := write(ctx, io.MultiWriter(z, plain)); err != nil {
		return err
	}
	for _, c := range closers {
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}
