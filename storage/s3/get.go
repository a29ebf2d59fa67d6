package s3

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Get implements [storage.Store]. When a connection breaks off, it goes on
// reading where it was, unless the object has been replaced meanwhile.
//
// Of what is longer than two parts it fetches as many parts ahead, side by side
// and each over several connections, as there are free buffers; without one it
// reads on over one connection.
func (s *Store) Get(ctx context.Context, key string, r storage.Range) (io.ReadCloser, error) {
	if err := storage.CheckKey(key); err != nil {
		return nil, s.fail(ctx, opGet, key, err)
	}
	if _, _, err := r.Within(0); err != nil {
		return nil, s.fail(ctx, opGet, key, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	first := &stream{ctx: ctx, s: s, key: key, at: r.Offset, end: -1}
	if r.Length > 0 {
		first.end = r.Offset + r.Length
	}
	err := first.open()
	if err == nil {
		return newReader(first, cancel), nil
	}
	defer cancel()
	if status(err) == http.StatusRequestedRangeNotSatisfiable { // begins behind the end
		return io.NopCloser(strings.NewReader("")), nil
	}
	return nil, s.fail(ctx, opGet, key, err)
}

// reader is what a Get reads: one piece after the other. The first comes over
// the connection that told how long the object is.
type reader struct {
	first  *stream
	cancel context.CancelFunc // stops all that is fetched
	piece  io.ReadCloser      // that is read now
	ahead  []*fetched         // those that follow it
	next   int64              // offset of the one after these
	end    int64              // offset behind the last byte
	sum    *checksum          // nil if the server keeps none of what is read
	err    error              // that every Read returns from now on
}

func newReader(first *stream, cancel context.CancelFunc) *reader {
	g := &reader{first: first, cancel: cancel, piece: first, next: first.end, end: first.end, sum: first.sum}
	size := first.s.o.PartSize
	if first.s.o.OneStream || first.etag == nil || first.end-first.at <= 2*size {
		return g
	}
	g.next = first.at + size
	g.piece = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(first, size), first}
	g.fetch()
	return g
}

// fetch begins with the pieces that follow, as long as there are buffers. It
// must not wait for one: who has them may be waiting for this reader.
func (g *reader) fetch() {
	for g.next < g.end {
		buf := g.first.s.buffers.borrowToRead()
		if buf == nil {
			return
		}
		g.ahead = append(g.ahead, fetch(g.follow(), buf))
	}
}

// follow is the next piece that nobody reads yet.
func (g *reader) follow() *stream {
	at := g.next
	g.next = min(at+g.first.s.o.PartSize, g.end)
	return g.first.of(at, g.next)
}

// Read implements [io.Reader].
func (g *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for g.err == nil {
		n, err := g.piece.Read(p)
		if n > 0 {
			g.sum.write(p[:n])
			return n, nil // the error comes again
		}
		if err == io.EOF {
			err = g.advance()
		}
		g.err = err
	}
	return 0, g.err
}

// advance goes on to the next piece. It returns io.EOF after the last one.
func (g *reader) advance() error {
	g.piece.Close()
	switch {
	case len(g.ahead) > 0:
		g.piece, g.ahead = g.ahead[0], g.ahead[1:]
	case g.next < g.end:
		g.piece = g.follow()
	default:
		defer g.cancel()
		return g.checked()
	}
	g.fetch()
	return nil
}

// checked is io.EOF if the checksum fits.
func (g *reader) checked() error {
	if err := g.sum.check(); err != nil {
		return g.first.s.fail(g.first.ctx, opGet, g.first.key, err)
	}
	return io.EOF
}

// Close implements [io.Closer]. It stops what is fetched ahead, and waits for
// its end.
func (g *reader) Close() error {
	g.cancel()
	g.piece.Close()
	for _, f := range g.ahead {
		f.Close()
	}
	g.ahead = nil
	g.err = cmp.Or(g.err, errClosed)
	return nil
}

var errClosed = errors.New("read after close")

// fetched is a piece that is fetched into a buffer.
type fetched struct {
	from  *stream
	buf   []byte        // nil once it was given back
	ready chan struct{} // closed when all of it is there, or err is
	rest  []byte        // not read yet
	err   error
}

// lanes is how many connections fill a buffer: what is lost to the time that
// each answer takes is less than what one more connection brings.
const lanes = 2

func fetch(from *stream, buf []byte) *fetched {
	f := &fetched{from: from, buf: buf, ready: make(chan struct{})}
	go func() {
		defer close(f.ready)
		piece := buf[:from.end-from.at]
		if f.err = from.readAll(piece, int(from.s.o.PartSize/lanes)); f.err == nil {
			f.rest = piece
		}
	}()
	return f
}

// Read implements [io.Reader].
func (f *fetched) Read(p []byte) (int, error) {
	<-f.ready
	if ended := context.Cause(f.from.ctx); ended != nil {
		return 0, f.from.s.fail(f.from.ctx, opGet, f.from.key, ended)
	}
	if len(f.rest) == 0 {
		return 0, cmp.Or(f.err, io.EOF)
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// Close implements [io.Closer]. Unless all of it is there, its context is to
// have ended.
func (f *fetched) Close() error {
	<-f.ready
	if f.buf != nil {
		f.from.s.buffers.giveBackRead(f.buf)
		f.buf, f.rest = nil, nil
	}
	return nil
}
