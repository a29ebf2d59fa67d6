package storage

import (
	"context"
	"io"
	"time"

	"golang.org/x/time/rate"
)

// Limit returns a store that passes on no more than so many bytes a second, to
// s from the bodies of all its Puts together and from s to the readers of all
// its Gets; 0 is no limit. What a store sends again after an error is not
// counted again.
func Limit(s Store, up, down int64) Store {
	if up <= 0 && down <= 0 {
		return s
	}
	return &limited{Store: s, up: newLimiter(up), down: newLimiter(down)}
}

type limited struct {
	Store
	up, down *rate.Limiter // nil for no limit
}

// maxBurst bounds how many bytes pass at once.
const maxBurst = 256 << 10

// newLimiter lets a tenth of a second's bytes pass at once.
func newLimiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(min(max(perSecond/10, 1), maxBurst)))
}

// Unwrap implements [Wrapper].
func (l *limited) Unwrap() Store { return l.Store }

// Put implements [Store].
func (l *limited) Put(ctx context.Context, key string, body io.Reader, o PutOptions) (Object, error) {
	if l.up != nil {
		body = &limitedReader{ctx, body, l.up}
	}
	return l.Store.Put(ctx, key, body, o)
}

// Get implements [Store].
func (l *limited) Get(ctx context.Context, key string, r Range) (io.ReadCloser, error) {
	body, err := l.Store.Get(ctx, key, r)
	if err != nil || l.down == nil {
		return body, err
	}
	return struct {
		io.Reader
		io.Closer
	}{&limitedReader{ctx, body, l.down}, body}, nil
}

type limitedReader struct {
	ctx   context.Context
	r     io.Reader
	limit *rate.Limiter
}

func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p[:min(len(p), l.limit.Burst())])
	if n == 0 {
		return n, err
	}
	if waitErr := wait(l.ctx, l.limit.ReserveN(time.Now(), n).Delay()); waitErr != nil {
		return n, waitErr
	}
	return n, err
}

func wait(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
