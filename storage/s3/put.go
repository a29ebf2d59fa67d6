package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// tokenName is the metadata that holds the random token of the write that made
// an object.
const tokenName = "lifeboat-write"

// ahead is read before a part buffer is borrowed: most objects are smaller.
const ahead = 64 << 10 // bytes

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Put implements [storage.Store].
//
// A body of more than 10,000 parts is an error, which shows only once so much
// of it has been sent: its length is not known before. Then Options.PartSize
// is to be larger.
func (s *Store) Put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	if err := storage.CheckKey(key); err != nil {
		return storage.Object{}, s.fail(ctx, opPut, key, err)
	}
	w := &write{s: s, key: key, createOnly: o.CreateOnly, lockFor: s.o.LockFor, token: rand.Text()}
	if err := w.put(ctx, &source{ctx: ctx, r: body}); err != nil {
		return storage.Object{}, s.fail(ctx, opPut, key, err)
	}
	return storage.Object{Key: key, Size: w.size}, nil
}

// source is a body that ends with its context, and whose errors are told from
// the server's.
type source struct {
	ctx context.Context
	r   io.Reader
}

type sourceError struct{ err error }

func (e *sourceError) Error() string { return "read what to store: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

func isSource(err error) bool {
	var e *sourceError
	return errors.As(err, &e)
}

func (s *source) Read(p []byte) (int, error) {
	if err := context.Cause(s.ctx); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p)
	if ended := context.Cause(s.ctx); ended != nil {
		return n, ended
	}
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}

// fill reads until buf is full or the source at its end.
func fill(buf []byte, r io.Reader) (n int, more bool, err error) {
	n, err = io.ReadFull(r, buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return n, false, nil
	}
	return n, err == nil, err
}

// write is one Put.
type write struct {
	s          *Store
	key        string
	createOnly bool
	lockFor    time.Duration // 0: not at all
	token      string
	size       int64 // bytes
}

func (w *write) put(ctx context.Context, body *source) error {
	start := make([]byte, min(ahead, w.s.o.PartSize))
	n, more, err := fill(start, body)
	if err != nil {
		return err
	}
	if !more {
		return w.single(ctx, start[:n])
	}
	if w.createOnly { // before all of it is sent in vain
		if err := w.refuseTaken(ctx); err != nil {
			return err
		}
	}
	part, err := w.s.buffers.borrow(ctx)
	if err != nil {
		return err
	}
	copy(part, start)
	n, more, err = fill(part[len(start):], body)
	rest := 0
	if more { // is there anything behind the first part?
		rest, _, err = fill(start, body)
	}
	if err != nil || rest == 0 {
		defer w.s.buffers.giveBack(part)
	}
	switch {
	case err != nil:
		return err
	case rest == 0:
		return w.single(ctx, part[:len(start)+n])
	}
	return w.multipart(ctx, part, start[:rest], body)
}

// single sends the whole object in one request.
func (w *write) single(ctx context.Context, data []byte) error {
	w.size = int64(len(data))
	return w.commit(ctx, probePut, func(ctx context.Context, ifNoneMatch *string) error {
		return w.putObject(ctx, data, ifNoneMatch)
	})
}

func (w *write) putObject(ctx context.Context, data []byte, ifNoneMatch *string) error {
	in := &awss3.PutObjectInput{
		Bucket: &w.s.o.Bucket, Key: w.s.object(w.key), Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))),
		Metadata:             w.metadata(),
		IfNoneMatch:          ifNoneMatch,
		ServerSideEncryption: types.ServerSideEncryption(w.s.o.SSE),
		SSEKMSKeyId:          optional(w.s.o.KMSKey),
		StorageClass:         types.StorageClass(w.s.o.StorageClass),
	}
	in.ObjectLockMode, in.ObjectLockRetainUntilDate = w.lock()
	in.ChecksumCRC32C, in.ContentMD5 = w.s.digests(data)
	_, err := w.s.client.PutObject(ctx, in, askFirst)
	return err
}

// askFirst waits for a nod before a body that is more than a few packets: what
// a server refuses without reading it may cost the connection, and the answer.
func askFirst(o *awss3.Options) { o.ContinueHeaderThresholdBytes = ahead }

func (w *write) metadata() map[string]string { return map[string]string{tokenName: w.token} }

// lock is what the new object gets.
func (w *write) lock() (types.ObjectLockMode, *time.Time) {
	if w.lockFor == 0 {
		return "", nil
	}
	return w.s.lockMode(), aws.Time(wholeSecond(time.Now().Add(w.lockFor)))
}

func (s *Store) lockMode() types.ObjectLockMode {
	return types.ObjectLockMode(strings.ToUpper(s.o.ObjectLock))
}

// digests are sent along for the server to check what arrives: in a header,
// since the bytes are at hand, and servers that know no trailers take it. With
// a lock S3 insists on one of them.
func (s *Store) digests(data []byte) (crc32c, contentMD5 *string) {
	switch {
	case s.sums:
		return aws.String(encodeCRC(crc32.Checksum(data, castagnoli))), nil
	case s.o.LockFor > 0:
		sum := md5.Sum(data)
		return nil, aws.String(base64.StdEncoding.EncodeToString(sum[:]))
	}
	return nil, nil
}

func encodeCRC(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// commit performs the request that makes the object appear, create-only if
// that is wanted, by the condition or without it.
func (w *write) commit(ctx context.Context, p probe, send func(ctx context.Context, ifNoneMatch *string) error) error {
	if !w.createOnly {
		return w.outcome(ctx, send(ctx, nil))
	}
	honoured, err := w.s.honours(ctx, p)
	if err != nil {
		return err
	}
	if !honoured {
		return w.commitUnconditional(ctx, send)
	}
	err = w.outcome(ctx, send(ctx, aws.String("*")))
	if errors.Is(err, storage.ErrExist) && w.deleted(ctx) {
		return w.commitUnconditional(ctx, send)
	}
	return err
}

// deleted tells whether a delete marker stands for the object. Amazon takes it
// for none, as the condition has it; versitygw takes it for one, and does not
// mention it to a HEAD.
func (w *write) deleted(ctx context.Context) bool {
	out, err := w.s.client.GetObject(ctx, &awss3.GetObjectInput{
		Bucket: &w.s.o.Bucket, Key: w.s.object(w.key), Range: aws.String("bytes=0-0"),
	})
	if err == nil {
		out.Body.Close()
		return false
	}
	resp := response(err)
	return resp != nil && resp.Header.Get("X-Amz-Delete-Marker") == "true"
}

// outcome is err, or nil if the write has succeeded nevertheless: the answer to
// its first try was lost, and the second one met the object of the first. With
// that of somebody else there, a lost answer may have said so: a server that
// refuses a condition may close the connection on what it won't read.
func (w *write) outcome(ctx context.Context, err error) error {
	lost := err != nil && status(err) == 0
	switch code(err) {
	case "PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload":
	default:
		if !lost || ctx.Err() != nil {
			return err
		}
	}
	look, cancel := context.WithTimeout(ctx, w.s.limits.cleanup)
	defer cancel()
	token, headErr := w.standing(look)
	switch {
	case headErr == nil && token == w.token:
		return nil
	case code(err) == "PreconditionFailed", headErr == nil && w.createOnly:
		return storage.ErrExist
	}
	return err
}

// standing is the token of the object that is there.
func (w *write) standing(ctx context.Context) (string, error) {
	out, err := w.s.head(ctx, w.key)
	if err != nil {
		return "", err
	}
	return out.Metadata[tokenName], nil
}

// refuseTaken fails if the key is taken.
func (w *write) refuseTaken(ctx context.Context) error {
	_, err := w.s.head(ctx, w.key)
	switch {
	case err == nil:
		return storage.ErrExist
	case notFound(err):
		return nil
	}
	return err
}

// commitUnconditional is create-only on a server that knows no conditions; the
// package comment says how far it goes.
func (w *write) commitUnconditional(ctx context.Context, send func(ctx context.Context, ifNoneMatch *string) error) error {
	if err := w.refuseTaken(ctx); err != nil {
		return err
	}
	if err := w.outcome(ctx, send(ctx, nil)); err != nil {
		return err
	}
	if err := sleep(ctx, w.s.limits.settle); err != nil {
		return err
	}
	token, err := w.standing(ctx)
	switch {
	case notFound(err): // removed since
		return nil
	case err != nil:
		return fmt.Errorf("read back: %w", err)
	case token != w.token:
		return fmt.Errorf("%w: another writer came at the same time", storage.ErrExist)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
