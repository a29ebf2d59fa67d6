package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// maxWindow bounds what a decoder keeps, in bytes: more than any part of ours
// needs.
const maxWindow = 8 << 20

// Open streams the plain bytes of a part. What the store gives and what comes
// out of it are checked as they pass: when a digest differs from the
// manifest's, Read ends with a [*DamageError] that names the object, never with
// io.EOF, so the bytes are to be trusted only once io.EOF has come. Closing
// before that checks nothing. Reading ends with ctx.
//
// It fails with [ErrNoKey] if the backup is encrypted and ids is empty, and with
// [ErrWrongKey] if none of ids opens it.
func (b *Backup) Open(ctx context.Context, part string, ids Identities) (io.ReadCloser, error) {
	p, err := b.Part(part)
	if err != nil {
		return nil, err
	}
	r, err := b.open(ctx, p, ids)
	if err != nil {
		return nil, fmt.Errorf("open %s of backup %s: %w", part, b.ID(), err)
	}
	return r, nil
}

func (b *Backup) open(ctx context.Context, p Part, ids Identities) (*partReader, error) {
	encrypted := b.Manifest.Encryption != ""
	if encrypted && ids.Empty() {
		return nil, fmt.Errorf("%w: %s", ErrNoKey, b.encryptedFor())
	}
	ctx, cancel := context.WithCancel(ctx)
	stored, err := getStored(ctx, b.repo.store, b.key(p.Object), p)
	if err != nil {
		cancel()
		return nil, err
	}
	r := &partReader{part: p, stored: stored, plain: newMeter(), cancel: cancel}
	var from io.Reader = stored
	if encrypted {
		from, err = b.decrypt(stored, ids)
	}
	if err == nil {
		r.zstd, err = zstd.NewReader(from, zstd.WithDecoderConcurrency(workers),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow), zstd.IgnoreChecksum(true))
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.ahead = newAhead(r.zstd)
	return r, nil
}

func (b *Backup) encryptedFor() string {
	if slices.Equal(b.Manifest.Recipients, []string{byPassphrase}) {
		return "it is encrypted with a passphrase"
	}
	return "it is encrypted for " + strings.Join(b.Manifest.Recipients, ", ")
}

// decrypt tells a wrong key from a damaged header, which looks the same, by the
// digest of all that is stored, but only where one of ids should have fit.
func (b *Backup) decrypt(stored *storedReader, ids Identities) (io.Reader, error) {
	plain, err := age.Decrypt(stored, ids.list...)
	var noMatch *age.NoIdentityMatchError
	switch {
	case err == nil:
		return plain, nil
	case !errors.As(err, &noMatch):
		return nil, stored.explain(err)
	case ids.fit(b.Manifest.Recipients):
		return nil, stored.explain(fmt.Errorf("%w: %s", ErrWrongKey, b.encryptedFor()))
	}
	return nil, fmt.Errorf("%w: %s", ErrWrongKey, b.encryptedFor())
}

// partReader reads the plain bytes of a part.
type partReader struct {
	part   Part
	stored *storedReader
	zstd   *zstd.Decoder
	ahead  *ahead // of zstd
	plain  *meter
	cancel context.CancelFunc
	err    error // that ended it
}

// Read implements io.Reader.
func (r *partReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.ahead.Read(p)
	_, _ = r.plain.Write(p[:n])
	if err == nil && r.plain.n <= r.part.Size {
		return n, nil
	}
	switch {
	case r.plain.n > r.part.Size:
		n, r.err = 0, r.differs("plain size", fmt.Sprintf("over %d", r.part.Size), fmt.Sprint(r.part.Size))
	case err == io.EOF:
		r.zstd.Close() // it reads ahead
		r.err = cmp.Or(r.check(), io.EOF)
	default:
		r.zstd.Close()
		r.err = r.stored.explain(err)
	}
	return n, r.err
}

// check compares all digests once the end was read.
func (r *partReader) check() error {
	if err := r.stored.explain(nil); err != nil {
		return err
	}
	if r.plain.n != r.part.Size {
		return r.differs("plain size", fmt.Sprint(r.plain.n), fmt.Sprint(r.part.Size))
	}
	if found := r.plain.sum(); found != r.part.SHA256 {
		return r.differs("plain SHA-256", found, r.part.SHA256)
	}
	return nil
}

func (r *partReader) differs(what, found, want string) error {
	return &DamageError{Key: r.stored.key, What: what, Found: found, Want: want}
}

// Close implements io.Closer.
func (r *partReader) Close() error {
	r.cancel()
	if r.ahead != nil {
		r.ahead.stop()
	}
	if r.zstd != nil {
		r.zstd.Close()
	}
	if r.err == nil {
		r.err = io.ErrClosedPipe
	}
	return r.stored.Close()
}

// storedReader reads the stored bytes of a part and measures them.
type storedReader struct {
	ctx   context.Context
	store storage.Store
	key   string
	part  Part
	body  io.ReadCloser
	meter *meter
	err   error // of the store
}

// getStored opens an object that is a part. One that is gone is damage.
func getStored(ctx context.Context, s storage.Store, key string, p Part) (*storedReader, error) {
	body, err := s.Get(ctx, key, storage.Range{})
	if errors.Is(err, storage.ErrNotExist) {
		return nil, &DamageError{Key: key, What: gone, Cause: err}
	}
	if err != nil {
		return nil, err
	}
	return &storedReader{ctx: ctx, store: s, key: key, part: p, body: body, meter: newMeter()}, nil
}

// Read implements io.Reader. It reads one byte more than there should be.
func (r *storedReader) Read(p []byte) (int, error) {
	left := r.part.StoredSize + 1 - r.meter.n
	if r.err != nil || left <= 0 {
		return 0, cmp.Or(r.err, io.EOF)
	}
	n, err := r.body.Read(p[:min(int64(len(p)), left)])
	_, _ = r.meter.Write(p[:n])
	if err != nil && err != io.EOF {
		r.err = fmt.Errorf("%s: after %d of %d bytes: %w", r.key, r.meter.n, r.part.StoredSize, err)
		return n, r.err
	}
	return n, err
}

// Close implements io.Closer.
func (r *storedReader) Close() error { return r.body.Close() }

// explain reads what is left and says what is wrong with what is stored. If
// that is what was saved, a failure to decode it is damage nonetheless, but
// ErrWrongKey stays what it is. Without either it returns nil.
func (r *storedReader) explain(failure error) error {
	_, _ = io.Copy(io.Discard, r)
	if r.err != nil {
		return r.err
	}
	if err := r.check(); err != nil {
		return err
	}
	if failure == nil || errors.Is(failure, ErrWrongKey) {
		return failure
	}
	return &DamageError{Key: r.key, What: "it is as it was saved, but does not decode", Cause: failure}
}

// check compares what was read, to its end, with the manifest.
func (r *storedReader) check() error {
	if r.meter.n < r.part.StoredSize {
		return r.checkShort()
	}
	if r.meter.n > r.part.StoredSize {
		return r.differs("stored size", fmt.Sprintf("over %d", r.part.StoredSize), fmt.Sprint(r.part.StoredSize))
	}
	if found := r.meter.sum(); found != r.part.StoredSHA256 {
		return r.differs("stored SHA-256", found, r.part.StoredSHA256)
	}
	return nil
}

// checkShort tells an object that is too short from a store that broke off.
func (r *storedReader) checkShort() error {
	if err := checkStored(r.ctx, r.store, r.key, r.part.StoredSize); err != nil {
		return err
	}
	return fmt.Errorf("%s: the store ended after %d of %d bytes: %w", r.key, r.meter.n, r.part.StoredSize, io.ErrUnexpectedEOF)
}

func (r *storedReader) differs(what, found, want string) error {
	return &DamageError{Key: r.key, What: what, Found: found, Want: want}
}
