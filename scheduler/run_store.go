package scheduler

import (
	"context"
	"io"
	"iter"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// toldStore is a store whose errors say that they are its own, whatever they
// are wrapped in later.
type toldStore struct{ storage.Store }

// Unwrap is the store that it wraps.
func (s toldStore) Unwrap() storage.Store { return s.Store }

func (s toldStore) Put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	source := &watched{Reader: body}
	obj, err := s.Store.Put(ctx, key, source, o)
	if source.failed {
		return obj, err // the body's error
	}
	return obj, ofStore(err)
}

func (s toldStore) Get(ctx context.Context, key string, r storage.Range) (io.ReadCloser, error) {
	body, err := s.Store.Get(ctx, key, r)
	if err != nil {
		return nil, ofStore(err)
	}
	return toldBody{body}, nil
}

func (s toldStore) Stat(ctx context.Context, key string) (storage.Object, error) {
	obj, err := s.Store.Stat(ctx, key)
	return obj, ofStore(err)
}

func (s toldStore) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		for obj, err := range s.Store.List(ctx, prefix) {
			if !yield(obj, ofStore(err)) {
				return
			}
		}
	}
}

func (s toldStore) Delete(ctx context.Context, key string) error {
	return ofStore(s.Store.Delete(ctx, key))
}

// watched notes whether it was the body that failed.
type watched struct {
	io.Reader
	failed bool
}

func (s *watched) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.failed = s.failed || err != nil && err != io.EOF
	return n, err
}

type toldBody struct{ io.ReadCloser }

func (b toldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = ofStore(err)
	}
	return n, err
}

func ofStore(err error) error {
	if err == nil {
		return nil
	}
	return &storeError{err}
}
