package repository

import "io"

const (
	aheadBuffer  = 256 << 10 // bytes
	aheadBuffers = 4
)

// ahead reads from another reader in a goroutine of its own, some buffers ahead,
// so that what is done with the bytes takes place meanwhile. Stop it.
type ahead struct {
	free, full chan []byte
	buf, rest  []byte // that is read now, and what is left of it
	err        error  // that ended it; set before full is closed
	stopped    bool
}

func newAhead(from io.Reader) *ahead {
	a := &ahead{free: make(chan []byte, aheadBuffers), full: make(chan []byte, aheadBuffers)}
	for range aheadBuffers {
		a.free <- nil // made when it is needed
	}
	go a.run(from)
	return a
}

func (a *ahead) run(from io.Reader) {
	defer close(a.full)
	for buf := range a.free {
		if buf == nil {
			buf = make([]byte, aheadBuffer)
		}
		n, err := fill(buf[:aheadBuffer], from)
		a.full <- buf[:n]
		if err != nil {
			a.err = err
			return
		}
	}
}

// fill reads until buf is full or r fails.
func fill(buf []byte, r io.Reader) (n int, err error) {
	for n < len(buf) && err == nil {
		var more int
		more, err = r.Read(buf[n:])
		n += more
	}
	return n, err
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if !a.next() {
			return 0, a.err
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// next goes on to the next buffer, and tells whether there is one.
func (a *ahead) next() bool {
	if a.buf != nil {
		a.free <- a.buf
	}
	a.buf = <-a.full
	a.rest = a.buf
	return a.buf != nil
}

// WriteTo implements io.WriterTo.
func (a *ahead) WriteTo(to io.Writer) (written int64, err error) {
	for a.next() {
		n, err := to.Write(a.rest)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	if a.err == io.EOF {
		return written, nil
	}
	return written, a.err
}

// stop waits until the goroutine has ended. A read that is under way must end by
// itself, or by its context.
func (a *ahead) stop() {
	if a.stopped {
		return
	}
	a.stopped = true
	close(a.free)
	for range a.full {
	}
}

// copyAhead copies as io.Copy does, but reads while it writes. After an error it
// calls cancel, which should end a read.
func copyAhead(to io.Writer, from io.Reader, cancel func()) error {
	a := newAhead(from)
	_, err := a.WriteTo(to)
	if err != nil {
		cancel()
	}
	a.stop()
	return err
}
