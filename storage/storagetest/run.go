package storagetest

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Reopener is a store under test that can be opened a second time, as another
// process would. Run looks for it with [storage.As].
type Reopener interface {
	Reopen(t *testing.T) storage.Store
}

// Run tests that a store keeps every promise of [storage.Store]. Each call of
// open returns a store on a new, empty place.
func Run(t *testing.T, open func(t *testing.T) storage.Store) {
	tests := []struct {
		name string
		run  func(t *testing.T, s suite)
	}{
		{"sizes", testSizes},
		{"a stream of unknown length", testStream},
		{"bodies that read oddly", testOddBodies},
		{"replace", testReplace},
		{"create only", testCreateOnly},
		{"create only at once", testCreateOnlyAtOnce},
		{"failed body", testFailedBody},
		{"cancelled put", testCancelledPut},
		{"cancelled before", testCancelledBefore},
		{"cancelled get", testCancelledGet},
		{"ranges", testRanges},
		{"one version", testOneVersion},
		{"missing", testMissing},
		{"stat", testStat},
		{"delete", testDelete},
		{"list", testList},
		{"list in byte order", testListOrder},
		{"list in pages", testListPages},
		{"list early break", testListBreak},
		{"keys", testKeys},
		{"illegal keys", testIllegalKeys},
		{"two handles", testTwoHandles},
		{"all at once", testAllAtOnce},
		{"unread get", testUnreadGet},
		{"names itself", testString},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			store := open(t)
			test.run(t, suite{store, t.Context()})
		})
	}
}

// suite is a store under test, with the checks that its tests share.
type suite struct {
	storage.Store
	ctx context.Context
}

func (s suite) put(t *testing.T, key, data string) {
	t.Helper()
	s.putBytes(t, key, []byte(data))
}

func (s suite) putBytes(t *testing.T, key string, data []byte) {
	t.Helper()
	obj, err := s.Put(s.ctx, key, bytes.NewReader(data), storage.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantObject(t, obj, key, int64(len(data)))
}

// wantObject checks what a Put returned.
func wantObject(t *testing.T, obj storage.Object, key string, size int64) {
	t.Helper()
	if obj.Key != key || obj.Size != size {
		t.Errorf("put returned key %q, %d bytes; want %q, %d bytes", obj.Key, obj.Size, key, size)
	}
	if !obj.Modified.IsZero() {
		wantRecent(t, obj)
	}
}

// wantRecent checks a time of modification, by a clock that need not be ours.
func wantRecent(t *testing.T, obj storage.Object) {
	t.Helper()
	if age := time.Since(obj.Modified); age < -5*time.Minute || age > 30*time.Minute {
		t.Errorf("%s: modified %v, which is %v ago", obj.Key, obj.Modified, age)
	}
}

func (s suite) get(t *testing.T, key string, r storage.Range) []byte {
	t.Helper()
	data, err := s.read(key, r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (s suite) read(key string, r storage.Range) ([]byte, error) {
	body, err := s.Get(s.ctx, key, r)
	if err != nil {
		return nil, err
	}
	var data bytes.Buffer
	_, err = data.ReadFrom(body)
	return data.Bytes(), errors.Join(err, body.Close())
}

func (s suite) want(t *testing.T, key, data string) {
	t.Helper()
	if got := s.get(t, key, storage.Range{}); string(got) != data {
		t.Errorf("%s holds %s, want %s", key, excerpt(got), excerpt([]byte(data)))
	}
}

// excerpt is data, cut short for people.
func excerpt(data []byte) string {
	if len(data) > 40 {
		return string(data[:40]) + "…"
	}
	return string(data)
}

// wantAbsent checks that neither Stat, Get nor List know the key.
func (s suite) wantAbsent(t *testing.T, key string) {
	t.Helper()
	if _, err := s.Stat(s.ctx, key); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("stat of %s: %v, want ErrNotExist", key, err)
	}
	if _, err := s.read(key, storage.Range{}); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("get of %s: %v, want ErrNotExist", key, err)
	}
	s.wantList(t, key)
}

func (s suite) list(t *testing.T, prefix string) []string {
	t.Helper()
	keys := []string{}
	for obj, err := range s.List(s.ctx, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, obj.Key)
	}
	return keys
}

func (s suite) wantList(t *testing.T, prefix string, keys ...string) {
	t.Helper()
	if got := s.list(t, prefix); !slices.Equal(got, keys) {
		t.Errorf("list of %q: %q, want %q", prefix, got, keys)
	}
}

// noise is data that no compression and no mix-up of blocks goes unseen in. Its
// generator is fast under the race detector too.
func noise(seed uint64, size int) []byte {
	key := binary.LittleEndian.AppendUint64(make([]byte, aes.BlockSize-8), seed)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has a legal length
	}
	data := make([]byte, size)
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(data, data)
	return data
}
