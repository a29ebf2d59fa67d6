package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"
)

// stream reads a range of an object, over as many connections as it takes one
// after the other.
type stream struct {
	ctx  context.Context
	s    *Store
	key  string
	body io.ReadCloser
	etag *string   // of the version that is read; nil before the first answer
	at   int64     // offset of the next byte
	end  int64     // offset behind the last byte; -1 if it is the object's and not known yet
	sum  *checksum // of the whole object, if that is read
	idle int       // tries since the last byte
	err  error     // that every Read returns from now on
}

// of reads a range of the same version.
func (g *stream) of(at, end int64) *stream {
	return &stream{ctx: g.ctx, s: g.s, key: g.key, etag: g.etag, at: at, end: end}
}

// readAll reads all of the range, in lanes of that size side by side.
func (g *stream) readAll(to []byte, size int) error {
	var all errgroup.Group
	at := g.at
	for part := range slices.Chunk(to, size) {
		lane := g.of(at, at+int64(len(part)))
		at = lane.end
		all.Go(func() error {
			_, err := io.ReadFull(lane, part)
			return errors.Join(err, lane.Close())
		})
	}
	return all.Wait()
}

// open asks for the bytes from at on.
func (g *stream) open() error {
	span, options := g.span(), []func(*awss3.Options){}
	if span != nil {
		options = append(options, withoutSum)
	}
	out, err := g.s.client.GetObject(g.ctx, &awss3.GetObjectInput{
		Bucket: &g.s.o.Bucket, Key: g.s.object(g.key), Range: span, IfMatch: g.etag,
	}, options...)
	if err != nil {
		return err
	}
	end, err := g.answered(out)
	if err != nil {
		return errors.Join(err, out.Body.Close())
	}
	if span == nil {
		g.sum = wholeSum(out)
	}
	g.body, g.etag, g.end = out.Body, out.ETag, end
	return nil
}

// withoutSum asks for no checksum: some servers would send that of the whole
// object with a range of it.
func withoutSum(o *awss3.Options) {
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
}

// span is the header of a range; none for a whole object, of which alone the
// server sends the checksum.
func (g *stream) span() *string {
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
func (g *stream) answered(out *awss3.GetObjectOutput) (end int64, err error) {
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
	case g.etag != nil && aws.ToString(out.ETag) != *g.etag:
		return 0, errReplaced // the server ignores If-Match
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
func (g *stream) Read(p []byte) (int, error) {
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
func (g *stream) read(p []byte) (int, error) {
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
func (g *stream) after(err error) error {
	switch {
	case err == nil:
		return nil
	case err == io.EOF && g.at == g.end:
		return io.EOF
	case status(err) == http.StatusPreconditionFailed, errors.Is(err, errReplaced):
		err = fmt.Errorf("%w, at byte %d", errReplaced, g.at)
	case g.body != nil && g.at < g.end && g.ctx.Err() == nil:
		return g.again(err)
	}
	return g.s.fail(g.ctx, opGet, g.key, err)
}

// again drops the connection and waits.
func (g *stream) again(err error) error {
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

var errReplaced = errors.New("the object was replaced while it was read")

// brokenOff is a body that came no further, over several connections.
type brokenOff struct {
	at  int64
	err error
}

func (e *brokenOff) Error() string {
	return fmt.Sprintf("broken off at byte %d: %s", e.at, last(e.err))
}
func (e *brokenOff) Unwrap() error { return e.err }

func (g *stream) drop() {
	if g.body != nil {
		g.body.Close() // it is broken: what it says adds nothing
		g.body = nil
	}
}

// Close implements [io.Closer].
func (g *stream) Close() error {
	g.drop()
	g.err = cmp.Or(g.err, errClosed)
	return nil
}
