package repository

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"sync"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Compression is how hard to compress; the zero value is fast.
//
// On backends of Kubernetes and of plain keys alike, what zstd calls its
// default level is half as fast as CompressFast and makes nothing smaller, and
// what is above CompressBetter gains a thousandth.
type Compression int

// The compressions.
const (
	CompressFast   Compression = iota
	CompressBetter             // 2 to 6 percent smaller, at three times the work
)

var compressions = []string{"fast", "better"}

// String is the name of c.
func (c Compression) String() string {
	if c < 0 || int(c) >= len(compressions) {
		return fmt.Sprintf("compression %d", int(c))
	}
	return compressions[c]
}

// ParseCompression reads the name of a compression; an empty one is fast.
func ParseCompression(name string) (Compression, error) {
	if name == "" {
		return CompressFast, nil
	}
	if i := slices.Index(compressions, name); i >= 0 {
		return Compression(i), nil
	}
	return 0, fmt.Errorf("compression %q: want %s", name, strings.Join(compressions, " or "))
}

func (c Compression) level() zstd.EncoderLevel {
	if c == CompressBetter {
		return zstd.SpeedBetterCompression
	}
	return zstd.SpeedFastest
}

// A part is stored as zstd frames of frameSize plain bytes each, which are
// compressed apart from each other. Measured on backends, larger frames make
// it smaller by less than one percent, and each costs memory several times
// over: at most queued+2 frames are in memory for a part.
const (
	frameSize = 1 << 20 // plain bytes
	workers   = 2       // frames that are compressed at once; etcd needs cores too
	queued    = 2       // frames on their way to the store
	maxPuts   = 2       // parts of a draft that are sealed at once
)

// sealer compresses and encrypts the parts of a draft.
type sealer struct {
	enc        *zstd.Encoder // for workers frames at once
	recipients []age.Recipient
	puts       chan struct{} // one for each Put under way
	free       chan *frame
}

func newSealer(c Compression, to Recipients) (*sealer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(c.level()), zstd.WithEncoderConcurrency(workers),
		zstd.WithWindowSize(frameSize), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &sealer{
		enc: enc, recipients: to.list,
		puts: make(chan struct{}, maxPuts),
		free: make(chan *frame, maxPuts*(queued+2)),
	}, nil
}

// frame is frameSize plain bytes, or the last of a part, and what they become.
type frame struct {
	plain, sealed []byte
	done          chan struct{} // closed when sealed is there
}

func (s *sealer) takeFrame() *frame {
	select {
	case f := <-s.free:
		f.plain, f.sealed, f.done = f.plain[:0], f.sealed[:0], make(chan struct{})
		return f
	default:
		return &frame{plain: make([]byte, 0, frameSize), sealed: make([]byte, 0, frameSize/2), done: make(chan struct{})}
	}
}

func (s *sealer) giveBack(f *frame) {
	select {
	case s.free <- f:
	default:
	}
}

// put streams what write writes to key, and returns part with its digests.
func (s *sealer) put(ctx context.Context, to storage.Store, key string, part Part, write func(context.Context, io.Writer) error) (Part, error) {
	select {
	case s.puts <- struct{}{}:
		defer func() { <-s.puts }()
	case <-ctx.Done():
		return Part{}, context.Cause(ctx)
	}
	p := &pipe{sealer: s, plain: newMeter(), queue: make(chan *frame, queued)}
	stored := &meteredReader{meter: newMeter()}
	err := p.run(ctx, write, func(ctx context.Context) error { return s.send(ctx, to, key, p, stored) })
	if p.failed {
		return Part{}, p.writeErr
	}
	part.Size, part.SHA256 = p.plain.n, p.plain.sum()
	part.StoredSize, part.StoredSHA256 = stored.meter.n, stored.meter.sum()
	if errors.Is(err, storage.ErrExist) && stored.ended && checkPart(ctx, to, key, part, newProgress(nil)) == nil {
		return part, nil // the answer to the store's own first try was lost
	}
	if err == nil && !stored.ended {
		err = fmt.Errorf("%s: the store stopped reading after %d bytes", key, stored.meter.n)
	}
	return part, err
}

// send puts what p reads, encrypted if it is to be, as it passes stored.
func (s *sealer) send(ctx context.Context, to storage.Store, key string, p io.Reader, stored *meteredReader) (err error) {
	stored.r = p
	if len(s.recipients) > 0 {
		if stored.r, err = age.EncryptReader(p, s.recipients...); err != nil {
			return fmt.Errorf("encrypt: %w", err)
		}
	}
	_, err = to.Put(ctx, key, stored, storage.PutOptions{CreateOnly: true})
	return err
}

// errStopped is what a writer gets whose reader is gone.
var errStopped = errors.New("nothing more is wanted")

// pipe compresses what is written to it, in goroutines, while it is read. One
// goroutine writes and then calls finish; another one reads.
type pipe struct {
	ctx    context.Context // ends when either side fails
	cancel context.CancelCauseFunc
	sealer *sealer

	// The writer's.
	plain       *meter
	filling     *frame
	began       bool // a frame was queued
	compressing sync.WaitGroup
	writeErr    error // set before queue is closed, if not nil
	failed      bool  // the writer did, and before the reader

	queue chan *frame // in order

	// The reader's.
	reading *frame
	read    int // bytes of reading.sealed
}

// run lets write write and send read until both have ended. It returns what
// send does.
func (p *pipe) run(ctx context.Context, write func(context.Context, io.Writer) error, send func(context.Context) error) error {
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { p.finish(write(p.ctx, p)) })
	err := send(p.ctx)
	p.cancel(errors.Join(errStopped, err))
	wg.Wait()
	p.compressing.Wait()
	return err
}

// Write implements io.Writer.
func (p *pipe) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		if p.filling == nil {
			p.filling = p.sealer.takeFrame()
		}
		n := min(len(rest), frameSize-len(p.filling.plain))
		p.filling.plain = append(p.filling.plain, rest[:n]...)
		rest = rest[n:]
		if len(p.filling.plain) == frameSize {
			if err := p.flush(); err != nil {
				return len(b) - len(rest), err
			}
		}
	}
	return p.plain.Write(b)
}

// flush queues the frame that is being filled and begins to compress it.
func (p *pipe) flush() error {
	f := p.filling
	p.filling = nil
	select {
	case p.queue <- f:
	case <-p.ctx.Done():
		p.writeErr = context.Cause(p.ctx) // should the writer go on regardless
		return p.writeErr
	}
	p.began = true
	p.compressing.Go(func() {
		f.sealed = p.sealer.enc.EncodeAll(f.plain, f.sealed)
		close(f.done)
	})
	return nil
}

// finish ends what is read, with err if that is not nil.
func (p *pipe) finish(err error) {
	err = cmp.Or(err, p.writeErr)
	if err == nil && !p.began && p.filling == nil {
		p.filling = p.sealer.takeFrame() // nothing at all is one empty frame
	}
	if err == nil && p.filling != nil {
		err = p.flush()
	}
	p.writeErr = err
	if err != nil && p.ctx.Err() == nil {
		p.failed = true
		p.cancel(err)
	}
	close(p.queue)
}

// Read implements io.Reader.
func (p *pipe) Read(b []byte) (int, error) {
	for p.reading == nil || p.read == len(p.reading.sealed) {
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.reading.sealed[p.read:])
	p.read += n
	return n, nil
}

func (p *pipe) next() error {
	if p.reading != nil {
		p.sealer.giveBack(p.reading)
		p.reading = nil
	}
	select {
	case f, ok := <-p.queue:
		if !ok {
			return p.end()
		}
		<-f.done
		p.reading, p.read = f, 0
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

func (p *pipe) end() error {
	if p.writeErr != nil {
		return p.writeErr
	}
	return io.EOF
}

// meter counts and hashes what is written to it.
type meter struct {
	hash hash.Hash
	n    int64 // bytes
}

func newMeter() *meter { return &meter{hash: sha256.New()} }

// Write implements io.Writer.
func (m *meter) Write(p []byte) (int, error) {
	m.n += int64(len(p))
	return m.hash.Write(p)
}

func (m *meter) sum() string { return hex.EncodeToString(m.hash.Sum(nil)) }

// meteredReader measures what is read through it.
type meteredReader struct {
	r     io.Reader
	meter *meter
	ended bool // io.EOF was read
}

// Read implements io.Reader.
func (m *meteredReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	_, _ = m.meter.Write(p[:n])
	m.ended = m.ended || err == io.EOF
	return n, err
}
