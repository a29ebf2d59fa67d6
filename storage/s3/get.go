package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Get implements [storage.Store]. When the connection breaks off, it goes on
// reading where it was, unless the object has been replaced meanwhile.
func (s *Store) Get(ctx context.Context, key string, r storage.Range) (io.ReadCloser, error) {
	if err := storage.CheckKey(key); err != nil {
		return nil, s.fail(ctx, opGet, key, err)
	}
	if _, _, err := r.Within(0); err != nil {
		return nil, s.fail(ctx, opGet, key, err)
	}
	g := &reader{ctx: ctx, s: s, key: key, at: r.Offset, end: -1}
	if r.Length > 0 {
		g.end = r.Offset + r.Length
	}
	err := g.open()
	if status(err) == http.StatusRequestedRangeNotSatisfiable { // begins behind the end
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, s.fail(ctx, opGet, key, err)
	}
	return g, nil
}

// reader is what a Get reads, over as many connections as it takes.
type reader struct {
	ctx  context.Context
	s    *Store
	key  string
	body io.ReadCloser
	etag *string // of the version that is read; nil before the first answer
	at   int64   // offset of the next byte
	end  int64   // offset behind the last byte; -1 if it is the object's and not known yet
	idle int     // tries since the last byte
	err  error   // that every Read returns from now on
}

// open asks for the bytes from at on.
func (g *reader) open() error {
	out, err := g.s.client.GetObject(g.ctx, &awss3.GetObjectInput{
		Bucket: &g.s.o.Bucket, Key: g.s.object(g.key), Range: g.span(), IfMatch: g.etag,
	})
	if err != nil {
		return err
	}
	end, err := g.answered(out)
	if err != nil {
		return errors.Join(err, out.Body.Close())
	}
	g.body, g.etag, g.end = out.Body, out.ETag, end
	return nil
}

// span is the header of a range; none for a whole object, of which alone the
// server sends the checksum.
func (g *reader) span() *string {
	switch {
	case g.end >= 0:
		return aws.String(fmt.Sprintf("bytes=%d-%d", g.at, g.end-1))
	case g.at > 0:
		return aws.String(fmt.Sprintf("bytes=%d-", g.at))
	}
	return nil
}

// answered checks that the answer is for the bytes asked for, and returns where
// they end.
func (g *reader) answered(out *awss3.GetObjectOutput) (end int64, err error) {
	if out.ContentLength == nil {
		return 0, errors.New("the server does not say how many bytes come")
	}
	from := int64(0)
	if span := aws.ToString(out.ContentRange); span != "" {
		if from, err = rangeStart(span); err != nil {
			return 0, err
		}
	}
	end = from + *out.ContentLength
	switch {
	case from != g.at:
		return 0, fmt.Errorf("the server sends bytes from %d on, not from %d", from, g.at)
	case g.end >= 0 && end > g.end, g.etag != nil && end != g.end:
		return 0, fmt.Errorf("the server sends bytes up to %d, not to %d", end, g.end)
	}
	return end, nil
}

// rangeStart reads a header such as "bytes 5-9/20".
func rangeStart(span string) (int64, error) {
	first, _, _ := strings.Cut(strings.TrimPrefix(span, "bytes "), "-")
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the server sends the range %q", span)
	}
	return from, nil
}

// Read implements [io.Reader].
func (g *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for g.err == nil {
		n, err := g.read(p)
		if n > 0 {
			return n, nil // the error comes again
		}
		g.err = g.after(err)
	}
	return 0, g.err
}

// read reads from the connection, after opening one if there is none.
func (g *reader) read(p []byte) (int, error) {
	if err := context.Cause(g.ctx); err != nil {
		return 0, err
	}
	if g.body == nil {
		return 0, g.open()
	}
	n, err := g.body.Read(p)
	if n > 0 {
		g.at += int64(n)
		g.idle = 0
	}
	return n, err
}

// after decides what becomes of a read that gave no bytes: nil is to go on.
func (g *reader) after(err error) error {
	switch {
	case err == nil:
		return nil
	case err == io.EOF && g.at == g.end:
		return io.EOF
	case status(err) == http.StatusPreconditionFailed:
		err = fmt.Errorf("the object was replaced while it was read, at byte %d of %d", g.at, g.end)
	case g.body != nil && g.at < g.end && g.ctx.Err() == nil:
		return g.again(err)
	}
	return g.s.fail(g.ctx, opGet, g.key, err)
}

// again drops the connection and waits.
func (g *reader) again(err error) error {
	g.drop()
	g.idle++
	if g.idle >= g.s.limits.tries {
		return g.s.fail(g.ctx, opGet, g.key, &brokenOff{g.at, err})
	}
	wait := min(g.s.limits.backoff, time.Duration(1<<g.idle)*100*time.Millisecond)
	if err := sleep(g.ctx, rand.N(wait)); err != nil {
		return g.s.fail(g.ctx, opGet, g.key, err)
	}
	return nil
}

// brokenOff is a body that came no further, over several connections.
type brokenOff struct {
	at  int64
	err error
}

func (e *brokenOff) Error() string {
	return fmt.Sprintf("broken off at byte %d: %s", e.at, last(e.err))
}
func (e *brokenOff) Unwrap() error { return e.err }

func (g *reader) drop() {
	if g.body != nil {
		g.body.Close() // it is broken: what it says adds nothing
		g.body = nil
	}
}

// Close implements [io.Closer].
func (g *reader) Close() error {
	g.drop()
	if g.err == nil {
		g.err = errors.New("read after close")
	}
	return nil
}
