package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

func testRanges(t *testing.T, s suite) {
	const size = 10_000
	data := noise(7, size)
	s.putBytes(t, "ranged", data)
	s.put(t, "empty", "")
	offsets := []int64{0, 1, 4095, 4096, size - 1, size, size + 1, math.MaxInt64}
	lengths := []int64{0, 1, 4096, size - 1, size, size + 1, math.MaxInt64}
	for _, offset := range offsets {
		for _, length := range lengths {
			r := storage.Range{Offset: offset, Length: length}
			if got, want := s.get(t, "ranged", r), part(data, r); !bytes.Equal(got, want) {
				t.Errorf("%+v: %d bytes, want %d, or they differ", r, len(got), len(want))
			}
			if got := s.get(t, "empty", r); len(got) != 0 {
				t.Errorf("%+v of an empty object: %q", r, got)
			}
		}
	}
	for _, r := range []storage.Range{{Offset: -1}, {Length: -1}, {Offset: 5, Length: math.MinInt64}} {
		if _, err := s.read("ranged", r); err == nil || errors.Is(err, storage.ErrNotExist) {
			t.Errorf("%+v: %v, want an error that says so", r, err)
		}
	}
	if _, err := s.read("absent", storage.Range{Offset: 5, Length: 5}); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("range of what is not there: %v, want ErrNotExist", err)
	}
}

// part is what r covers of data, said in another way than Range.Within does.
func part(data []byte, r storage.Range) []byte {
	if r.Offset >= int64(len(data)) {
		return nil
	}
	data = data[r.Offset:]
	if r.Length == 0 || r.Length > int64(len(data)) {
		return data
	}
	return data[:r.Length]
}

// testOneVersion replaces and deletes what is being read.
func testOneVersion(t *testing.T, s suite) {
	old := bytes.Repeat([]byte("old!"), 5<<20)
	for name, change := range map[string]func(t *testing.T){
		"replaced by a longer": func(t *testing.T) { s.putBytes(t, "a", bytes.Repeat([]byte("NEW?"), 5<<20+1000)) },
		"replaced by a short":  func(t *testing.T) { s.put(t, "a", "NEW?") },
		"deleted": func(t *testing.T) {
			if err := s.Delete(s.ctx, "a"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.putBytes(t, "a", old)
			body, err := s.Get(s.ctx, "a", storage.Range{})
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			head := make([]byte, 1000)
			if _, err := io.ReadFull(body, head); err != nil {
				t.Fatal(err)
			}
			change(t)
			var rest bytes.Buffer
			_, err = rest.ReadFrom(body)
			if err == nil && !bytes.Equal(rest.Bytes(), old[len(head):]) {
				t.Errorf("read a mix of versions, %d bytes of %d, without an error", len(head)+rest.Len(), len(old))
			}
		})
	}
}

func testMissing(t *testing.T, s suite) {
	s.wantAbsent(t, "a")
	s.wantAbsent(t, "a/b/c")
	s.put(t, "a/b/c", "deep")
	for _, key := range []string{"a", "a/b", "a/b/cc", "a/b/c/d", "b"} {
		if _, err := s.Stat(s.ctx, key); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("stat of %s: %v, want ErrNotExist", key, err)
		}
		if _, err := s.read(key, storage.Range{}); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("get of %s: %v, want ErrNotExist", key, err)
		}
		if err := s.Delete(s.ctx, key); err != nil {
			t.Errorf("delete of %s: %v", key, err)
		}
	}
	s.want(t, "a/b/c", "deep")
}

func testStat(t *testing.T, s suite) {
	for i, size := range []int{0, 1, 100_000, 6 << 20} {
		key := fmt.Sprintf("stat/%d", i)
		s.putBytes(t, key, noise(8, size))
		obj, err := s.Stat(s.ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if obj.Key != key || obj.Size != int64(size) {
			t.Errorf("%s: %+v, want %d bytes", key, obj, size)
		}
		wantRecent(t, obj)
		for listed, err := range s.List(s.ctx, key) {
			if err != nil {
				t.Fatal(err)
			}
			// Some servers tell seconds here and milliseconds there.
			if d := listed.Modified.Sub(obj.Modified).Abs(); listed.Key != key || listed.Size != obj.Size || d > time.Second {
				t.Errorf("listed as %+v, but stat says %+v", listed, obj)
			}
		}
	}
}

func testDelete(t *testing.T, s suite) {
	s.put(t, "a/b/c", "1")
	s.put(t, "a/b/d", "2")
	s.put(t, "a/bb", "3")
	for range 2 {
		if err := s.Delete(s.ctx, "a/b/c"); err != nil {
			t.Fatal(err)
		}
		s.wantAbsent(t, "a/b/c")
	}
	s.wantList(t, "", "a/b/d", "a/bb")
	for _, key := range []string{"a/b/d", "a/bb"} {
		if err := s.Delete(s.ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	s.wantList(t, "")
	s.put(t, "a", "what was a folder before")
	s.want(t, "a", "what was a folder before")
}
