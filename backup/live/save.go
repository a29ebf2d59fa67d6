package live

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// DefaultStall is how long the member may send nothing unless told otherwise.
const DefaultStall = 30 * time.Second

// Options of Save; the zero value is fine.
type Options struct {
	Stall    time.Duration // without a byte from the member; 0: DefaultStall
	Progress func(int64)   // called with the bytes of each part
}

// Result tells what came.
type Result struct {
	Size    int64  // bytes, the SHA-256 included
	Version string // of the server; empty before 3.6
}

// StallError says that the member stopped sending.
type StallError struct {
	For   time.Duration
	After int64 // bytes
}

func (e *StallError) Error() string {
	return fmt.Sprintf("nothing came for %v, after %d bytes", e.For, e.After)
}

// Save streams a snapshot of the member at address to w and checks the SHA-256
// at its end. After an error what w got is not to be used.
//
// w may be slow: time that it takes is not the member's. All the while the
// member keeps the read transaction of the snapshot open, and can't reuse the
// pages that it freed meanwhile: its database grows by what is written.
func Save(ctx context.Context, cfg clientv3.Config, address string, w io.Writer, o Options) (Result, error) {
	if o.Stall == 0 {
		o.Stall = DefaultStall
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &stream{w: w, progress: o.Progress, hash: sha256.New()}
	timer := time.AfterFunc(o.Stall, func() { cancel(&StallError{For: o.Stall}) })
	defer timer.Stop()
	s.timer, s.stall = timer, o.Stall
	version, err := s.receive(ctx, cfg, address)
	var stall *StallError
	if errors.As(context.Cause(ctx), &stall) {
		err = &StallError{For: stall.For, After: s.size}
	}
	if err == nil {
		err = s.verify()
	}
	switch {
	case err == nil:
	case needsRoot(err):
		return Result{}, fmt.Errorf("snapshot from %s: etcd sends one to a user with the role root only: %w", address, err)
	default:
		return Result{}, fmt.Errorf("snapshot from %s: %w", address, err)
	}
	return Result{Size: s.size, Version: version}, nil
}

// stream writes what comes and hashes all but the last bytes, which are the
// SHA-256 itself.
type stream struct {
	w        io.Writer
	progress func(int64)
	timer    *time.Timer // runs while the member is waited for
	stall    time.Duration
	hash     hash.Hash
	tail     []byte
	size     int64
}

func (s *stream) receive(ctx context.Context, cfg clientv3.Config, address string) (version string, err error) {
	client, err := Dial(ctx, cfg, address)
	if err != nil {
		return "", err
	}
	defer client.Close()
	resp, err := client.SnapshotWithVersion(ctx)
	if err != nil {
		return "", err
	}
	defer resp.Snapshot.Close()
	_, err = io.Copy(s, resp.Snapshot)
	return resp.Version, err
}

// WriteError says that the snapshot came and could not be written.
type WriteError struct{ Cause error }

func (e *WriteError) Error() string { return "write: " + e.Cause.Error() }
func (e *WriteError) Unwrap() error { return e.Cause }

func (s *stream) Write(p []byte) (int, error) {
	s.timer.Stop()
	n, err := s.w.Write(p)
	s.timer.Reset(s.stall)
	s.size += int64(n)
	if s.progress != nil {
		s.progress(int64(n))
	}
	if err != nil {
		return n, &WriteError{err}
	}
	s.digest(p)
	return n, nil
}

// digest hashes p but for what may be the SHA-256 at the end.
func (s *stream) digest(p []byte) {
	if len(p) < sha256.Size {
		s.tail = append(s.tail, p...)
		if extra := len(s.tail) - sha256.Size; extra > 0 {
			s.hash.Write(s.tail[:extra])
			s.tail = append(s.tail[:0], s.tail[extra:]...)
		}
		return
	}
	s.hash.Write(s.tail)
	s.hash.Write(p[:len(p)-sha256.Size])
	s.tail = append(s.tail[:0], p[len(p)-sha256.Size:]...)
}

func (s *stream) verify() error {
	if !snapcodec.HasTrailer(s.size) {
		return fmt.Errorf("it ended after %d bytes, without a SHA-256: %w", s.size, io.ErrUnexpectedEOF)
	}
	if got := s.hash.Sum(nil); !bytes.Equal(got, s.tail) {
		return fmt.Errorf("%d bytes came with SHA-256 %x, their trailer says %x: %w", s.size, got, s.tail, snapcodec.ErrChecksum)
	}
	return nil
}
