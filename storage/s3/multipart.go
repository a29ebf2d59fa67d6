package s3

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// upload is a multipart upload under way.
type upload struct {
	*write
	id    string
	whole bool   // the server checks the checksum of the whole object
	crc   uint32 // of what was read so far

	mu    sync.Mutex
	parts []types.CompletedPart
}

// multipart sends an object that begins with a full part, whose buffer it takes
// over, and goes on with next and what body still holds.
func (w *write) multipart(ctx context.Context, first []byte, next []byte, body *source) error {
	u, err := w.begin(ctx)
	if err != nil {
		w.s.buffers.giveBack(first)
		return err
	}
	err = u.send(ctx, first, next, body)
	if err == nil {
		err = u.finish(ctx)
	}
	if err != nil {
		return u.abort(ctx, err)
	}
	return nil
}

func (w *write) begin(ctx context.Context) (*upload, error) {
	in := &awss3.CreateMultipartUploadInput{
		Bucket: &w.s.o.Bucket, Key: w.s.object(w.key),
		Metadata:             w.metadata(),
		ServerSideEncryption: types.ServerSideEncryption(w.s.o.SSE),
		SSEKMSKeyId:          optional(w.s.o.KMSKey),
		StorageClass:         types.StorageClass(w.s.o.StorageClass),
	}
	in.ObjectLockMode, in.ObjectLockRetainUntilDate = w.lock()
	if w.s.sums {
		in.ChecksumAlgorithm, in.ChecksumType = types.ChecksumAlgorithmCrc32c, types.ChecksumTypeFullObject
	}
	out, err := w.s.client.CreateMultipartUpload(ctx, in)
	if in.ChecksumType != "" && (status(err) == http.StatusBadRequest || status(err) == http.StatusNotImplemented) {
		in.ChecksumType = "" // not every server can tell the whole's checksum from those of the parts
		out, err = w.s.client.CreateMultipartUpload(ctx, in)
	}
	if err != nil {
		return nil, err
	}
	return &upload{write: w, id: aws.ToString(out.UploadId), whole: out.ChecksumType == types.ChecksumTypeFullObject}, nil
}

// send reads part after part and sends those read meanwhile, as many at a time
// as there are buffers. It has given back all of them when it returns.
func (u *upload) send(ctx context.Context, first, next []byte, body *source) error {
	g, ctx := errgroup.WithContext(ctx)
	body.ctx = ctx // ends with the first part that fails
	rest := io.MultiReader(bytes.NewReader(next), body)
	g.Go(func() error {
		buf, n, more, err := first, len(first), true, error(nil)
		for number := int32(1); ; number++ {
			if err == nil && n > 0 && number > u.s.limits.parts {
				err = fmt.Errorf("it has more than %d parts of %d bytes: give a larger part size", u.s.limits.parts, u.s.o.PartSize)
			}
			if err != nil || n == 0 {
				u.s.buffers.giveBack(buf)
				return err
			}
			u.sendLater(ctx, g, number, buf, n)
			if !more {
				return nil
			}
			if buf, err = u.s.buffers.borrow(ctx); err != nil {
				return err
			}
			n, more, err = fill(buf, rest)
		}
	})
	return g.Wait()
}

// sendLater takes over a buffer that holds n bytes.
func (u *upload) sendLater(ctx context.Context, g *errgroup.Group, number int32, buf []byte, n int) {
	u.count(buf[:n])
	g.Go(func() error {
		defer u.s.buffers.giveBack(buf)
		return u.sendPart(ctx, number, buf[:n])
	})
}

// count takes the next part into account.
func (u *upload) count(data []byte) {
	u.crc = crc32.Update(u.crc, castagnoli, data)
	u.size += int64(len(data))
}

func (u *upload) sendPart(ctx context.Context, number int32, data []byte) error {
	in := &awss3.UploadPartInput{
		Bucket: &u.s.o.Bucket, Key: u.s.object(u.key), UploadId: &u.id, PartNumber: &number,
		Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))),
	}
	in.ChecksumCRC32C, in.ContentMD5 = u.s.digests(data)
	out, err := u.s.client.UploadPart(ctx, in)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parts = append(u.parts, types.CompletedPart{ETag: out.ETag, PartNumber: &number, ChecksumCRC32C: in.ChecksumCRC32C})
	return nil
}

// finish makes the object of the parts.
func (u *upload) finish(ctx context.Context) error {
	slices.SortFunc(u.parts, func(a, b types.CompletedPart) int { return cmp.Compare(*a.PartNumber, *b.PartNumber) })
	if err := u.commit(ctx, probeJoin, u.join); err != nil {
		return err
	}
	return u.checkSize(ctx)
}

func (u *upload) join(ctx context.Context, ifNoneMatch *string) error {
	in := &awss3.CompleteMultipartUploadInput{
		Bucket: &u.s.o.Bucket, Key: u.s.object(u.key), UploadId: &u.id,
		IfNoneMatch:     ifNoneMatch,
		MpuObjectSize:   &u.size,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts},
	}
	if u.whole {
		in.ChecksumCRC32C, in.ChecksumType = aws.String(encodeCRC(u.crc)), types.ChecksumTypeFullObject
	}
	_, err := u.s.client.CompleteMultipartUpload(ctx, in, u.s.patient)
	return err
}

// checkSize is for servers that ignore MpuObjectSize. Keys that may write but
// not read leave it out.
func (u *upload) checkSize(ctx context.Context) error {
	out, err := u.s.head(ctx, u.key)
	if err != nil || out.Metadata[tokenName] != u.token || aws.ToInt64(out.ContentLength) == u.size {
		return nil
	}
	return errors.Join(
		fmt.Errorf("the server made %d bytes of the %d that it got", aws.ToInt64(out.ContentLength), u.size),
		u.s.remove(ctx, u.key))
}

// abort removes the parts after err, also when ctx has ended. It returns nil if
// the upload turns out to have been finished.
func (u *upload) abort(ctx context.Context, err error) error {
	after, cancel := u.s.afterwards(ctx)
	defer cancel()
	abortErr := u.drop(after)
	if code(abortErr) != "NoSuchUpload" || isSource(err) || errors.Is(err, storage.ErrExist) {
		return err // if parts are left, Sweep finds them
	}
	if token, headErr := u.standing(after); headErr == nil && token == u.token {
		return nil
	}
	return err
}

// aborts is how often parts are removed at most, for servers that do so again
// and again.
const aborts = 3

// drop removes the parts, and again what has come since: a part whose connection
// was cut may be put in its place a moment later. The error is of the first try.
func (u *upload) drop(ctx context.Context) error {
	in := &awss3.AbortMultipartUploadInput{Bucket: &u.s.o.Bucket, Key: u.s.object(u.key), UploadId: &u.id}
	_, first := u.s.client.AbortMultipartUpload(ctx, in)
	err := first
	for try := 1; err == nil && try < aborts; try++ {
		if err = sleep(ctx, min(u.s.limits.backoff, 200*time.Millisecond)); err == nil {
			_, err = u.s.client.AbortMultipartUpload(ctx, in)
		}
	}
	return first
}
