package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

func testList(t *testing.T, s suite) {
	s.wantList(t, "")
	s.wantList(t, "a")
	s.wantList(t, "a/")
	for _, key := range []string{"ab/c", "a/b", "a/c/d", "abc", "b/x", "c"} {
		s.put(t, key, key)
	}
	for prefix, want := range map[string][]string{
		"":       {"a/b", "a/c/d", "ab/c", "abc", "b/x", "c"},
		"a":      {"a/b", "a/c/d", "ab/c", "abc"},
		"a/":     {"a/b", "a/c/d"},
		"a/c":    {"a/c/d"},
		"a/c/":   {"a/c/d"},
		"a/c/d":  {"a/c/d"},
		"a/c/d/": {},
		"a/c/dd": {},
		"ab":     {"ab/c", "abc"},
		"ab/":    {"ab/c"},
		"abc":    {"abc"},
		"abc/":   {},
		"b":      {"b/x"},
		"c":      {"c"},
		"d":      {},
		"d/e/f":  {},
		"a.":     {},
	} {
		s.wantList(t, prefix, want...)
	}
	for _, prefix := range []string{"/", "/a", "a//", "../", "a/../", "./", "a\x00", "a b", "é"} {
		for obj, err := range s.List(s.ctx, prefix) {
			if err == nil {
				t.Errorf("list of %q yields %q, want an error: no key can begin so", prefix, obj.Key)
			}
		}
	}
}

// testListOrder holds what a walk over folders gets wrong that sorts the names
// in each: "a-b", "a.b" come before "a/b", and "a0" after it.
func testListOrder(t *testing.T, s suite) {
	keys := []string{
		"A1", "B/z", "Z1", "_", "a+/x", "a-", "a-b", "a-c/c.d", "a.", "a.b", "a/+", "a/b-/x", "a/b.c", "a/b.c.d", "a/b/c",
		"a/b0", "a/b@", "a0", "a=", "a@/b", "aA", "a_", "ab", "z/9", "z/10",
	}
	slices.Reverse(keys)
	for _, key := range keys {
		s.put(t, key, "")
	}
	slices.Sort(keys)
	s.wantList(t, "", keys...)
	for _, prefix := range []string{"a", "a-", "a.", "a/", "a/b", "z/"} {
		var want []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		s.wantList(t, prefix, want...)
	}
}

// manyKeys is more than one page of an S3 listing.
const manyKeys = 1_100

func testListPages(t *testing.T, s suite) {
	keys := s.putMany(t, "many/")
	s.put(t, "many-not", "")
	s.put(t, "zz", "")
	s.wantList(t, "many/", keys...)
	if got := s.list(t, ""); len(got) != len(keys)+2 || !slices.IsSorted(got) {
		t.Errorf("list of all: %d keys, sorted: %v; want %d", len(got), slices.IsSorted(got), len(keys)+2)
	}
}

// putMany stores empty objects in several folders, and returns their keys in
// order.
func (s suite) putMany(t *testing.T, prefix string) []string {
	var keys []string
	for i := range manyKeys {
		keys = append(keys, fmt.Sprintf("%s%d/%d", prefix, i%7, i))
	}
	var writers sync.WaitGroup
	for chunk := range slices.Chunk(keys, manyKeys/16+1) {
		writers.Go(func() {
			for _, key := range chunk {
				if _, err := s.Put(s.ctx, key, strings.NewReader(""), storage.PutOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	slices.Sort(keys)
	return keys
}

func testListBreak(t *testing.T, s suite) {
	for i := range 10 {
		s.put(t, fmt.Sprintf("a/%d/x", i), "")
	}
	for range 3 {
		var seen []string
		for obj, err := range s.List(s.ctx, "a") {
			if err != nil {
				t.Fatal(err)
			}
			if seen = append(seen, obj.Key); len(seen) == 3 {
				break
			}
		}
		if want := []string{"a/0/x", "a/1/x", "a/2/x"}; !slices.Equal(seen, want) {
			t.Errorf("the first keys are %q, want %q", seen, want)
		}
	}
	all := s.List(s.ctx, "a")
	for range 2 { // an iterator can be used again
		count := 0
		for range all {
			count++
		}
		if count != 10 {
			t.Errorf("%d keys, want 10", count)
		}
	}
}

func testKeys(t *testing.T, s suite) {
	keys := []string{
		"a", "A", "0", "_", "-", "-x", "+", "=", "@", "...", "..a", "a..", ".a", ".b/.b", "b.", "b/-/b", "tmp", ".tmp", "con", "a=b+c@d",
		"abcdefghijklmnopqrstuvwxyz/ABCDEFGHIJKLMNOPQRSTUVWXYZ/0123456789._-+=@",
		"20060102T150405Z-abcdef/manifest.json",
		strings.Repeat("p", 200),
		strings.Repeat(strings.Repeat("q", 199)+"/", 3) + strings.Repeat("r", 200),
	}
	var stored []string
	for _, key := range keys {
		if err := storage.CheckKey(key); err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(stored, func(k string) bool { return strings.EqualFold(k, key) }) {
			continue // a file system may not tell them apart
		}
		s.put(t, key, key)
		stored = append(stored, key)
	}
	for _, key := range stored {
		s.want(t, key, key)
		if obj, err := s.Stat(s.ctx, key); err != nil || obj.Key != key {
			t.Errorf("stat of %q: %+v, %v", key, obj, err)
		}
	}
	slices.Sort(stored)
	s.wantList(t, "", stored...)
	for _, key := range stored {
		if err := s.Delete(s.ctx, key); err != nil {
			t.Error(err)
		}
	}
	s.wantList(t, "")
}

func testIllegalKeys(t *testing.T, s suite) {
	s.put(t, "a/b", "there")
	for _, key := range []string{
		"", ".", "..", "/", "/a", "a/", "a//b", "a/./b", "a/../b", "../a", "a/..", "./a", "a b", "a\\b", "a\x00b", "a\nb",
		"a:b", "a*", "a?", "a%2fb", "é", "\xff", "a~", "#", strings.Repeat("p", 201), strings.Repeat("p/", 400) + "p",
	} {
		_, put := s.Put(s.ctx, key, strings.NewReader("x"), storage.PutOptions{})
		_, create := s.Put(s.ctx, key, strings.NewReader("x"), storage.PutOptions{CreateOnly: true})
		_, get := s.read(key, storage.Range{})
		_, stat := s.Stat(s.ctx, key)
		for name, err := range map[string]error{"put": put, "create": create, "get": get, "stat": stat, "delete": s.Delete(s.ctx, key)} {
			if err == nil || errors.Is(err, storage.ErrNotExist) || errors.Is(err, storage.ErrExist) {
				t.Errorf("%s of %q: %v, want the key refused", name, key, err)
			}
		}
	}
	s.wantList(t, "", "a/b")
}
