package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Memory is a store that keeps its objects in memory.
type Memory struct {
	now func() time.Time

	mu      sync.Mutex
	objects map[string]memoryObject
}

type memoryObject struct {
	data     []byte // never written again
	modified time.Time
	locked   time.Time // until then
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{now: time.Now, objects: map[string]memoryObject{}}
}

// NewMemoryAt returns an empty store with a clock of its own.
func NewMemoryAt(now func() time.Time) *Memory {
	m := NewMemory()
	m.now = now
	return m
}

// Put implements [storage.Store].
func (m *Memory) Put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	obj, err := m.put(ctx, key, body, o)
	if err != nil {
		return storage.Object{}, fmt.Errorf("put %s in memory: %w", key, err)
	}
	return obj, nil
}

func (m *Memory) put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	if err := storage.CheckKey(key); err != nil {
		return storage.Object{}, err
	}
	var data bytes.Buffer
	if _, err := io.Copy(&data, &contextReader{ctx, body}); err != nil {
		return storage.Object{}, err
	}
	if err := ctx.Err(); err != nil {
		return storage.Object{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, taken := m.objects[key]
	if o.CreateOnly && taken {
		return storage.Object{}, storage.ErrExist
	}
	m.objects[key] = memoryObject{data.Bytes(), m.now(), old.locked}
	return m.objects[key].describe(key), nil
}

func (o memoryObject) describe(key string) storage.Object {
	return storage.Object{Key: key, Size: int64(len(o.data)), Modified: o.modified}
}

// Get implements [storage.Store].
func (m *Memory) Get(ctx context.Context, key string, r storage.Range) (io.ReadCloser, error) {
	obj, err := m.find(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get %s from memory: %w", key, err)
	}
	offset, length, err := r.Within(int64(len(obj.data)))
	if err != nil {
		return nil, fmt.Errorf("get %s from memory: %w", key, err)
	}
	return io.NopCloser(&contextReader{ctx, bytes.NewReader(obj.data[offset : offset+length])}), nil
}

// Stat implements [storage.Store].
func (m *Memory) Stat(ctx context.Context, key string) (storage.Object, error) {
	obj, err := m.find(ctx, key)
	if err != nil {
		return storage.Object{}, fmt.Errorf("stat %s in memory: %w", key, err)
	}
	return obj.describe(key), nil
}

func (m *Memory) find(ctx context.Context, key string) (memoryObject, error) {
	if err := errors.Join(ctx.Err(), storage.CheckKey(key)); err != nil {
		return memoryObject{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, ok := m.objects[key]
	if !ok {
		return memoryObject{}, storage.ErrNotExist
	}
	return obj, nil
}

// List implements [storage.Store].
func (m *Memory) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		if err := storage.CheckPrefix(prefix); err != nil {
			yield(storage.Object{}, fmt.Errorf("list memory: %w", err))
			return
		}
		for _, obj := range m.under(prefix) {
			if err := ctx.Err(); err != nil {
				yield(storage.Object{}, fmt.Errorf("list memory: %w", err))
				return
			}
			if !yield(obj, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(storage.Object{}, fmt.Errorf("list memory: %w", err))
		}
	}
}

func (m *Memory) under(prefix string) []storage.Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []storage.Object
	for _, key := range slices.Sorted(maps.Keys(m.objects)) {
		if strings.HasPrefix(key, prefix) {
			found = append(found, m.objects[key].describe(key))
		}
	}
	return found
}

// Delete implements [storage.Store].
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := errors.Join(ctx.Err(), storage.CheckKey(key)); err != nil {
		return fmt.Errorf("delete %s from memory: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if until := m.objects[key].locked; until.After(m.now()) {
		return fmt.Errorf("delete %s from memory: %w until %s", key, storage.ErrRetained, until.UTC().Format(time.RFC3339))
	}
	delete(m.objects, key)
	return nil
}

// String implements [storage.Store].
func (m *Memory) String() string { return "memory" }

// Corrupt changes the stored bytes of an object behind the store's back, and
// fails if there is none.
func (m *Memory) Corrupt(key string, change func([]byte) []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, ok := m.objects[key]
	if !ok {
		return fmt.Errorf("corrupt %s: %w", key, storage.ErrNotExist)
	}
	obj.data = change(bytes.Clone(obj.data))
	m.objects[key] = obj
	return nil
}

// Age moves what the store says of an object's time into the past.
func (m *Memory) Age(key string, by time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, ok := m.objects[key]
	if !ok {
		return fmt.Errorf("age %s: %w", key, storage.ErrNotExist)
	}
	obj.modified = obj.modified.Add(-by)
	m.objects[key] = obj
	return nil
}

// Locking is a [Memory] that can lock objects, as a bucket with object lock.
type Locking struct{ *Memory }

// Retain implements [storage.Retainer].
func (l Locking) Retain(ctx context.Context, key string, until time.Time) error {
	if err := errors.Join(ctx.Err(), storage.CheckKey(key)); err != nil {
		return fmt.Errorf("lock %s in memory: %w", key, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	obj, ok := l.objects[key]
	if !ok {
		return fmt.Errorf("lock %s in memory: %w", key, storage.ErrNotExist)
	}
	if until.After(obj.locked) {
		obj.locked = until
	}
	l.objects[key] = obj
	return nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
