package snapcodec

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// docHex reads the hex block of a page: bytes left of the bar, with an address
// before them or following on; what is left out is zero.
func docHex(t testing.TB, page string) []byte {
	t.Helper()
	_, block, found := strings.Cut(string(readFile(t, page)), "```hex\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatalf("%s: no hex block", page)
	}
	var b []byte
	for line := range strings.Lines(block) {
		digits, _, _ := strings.Cut(line, "|")
		if address, rest, ok := strings.Cut(digits, ":"); ok {
			at, err := strconv.ParseUint(address, 16, 16)
			if err != nil || int(at) < len(b) {
				t.Fatalf("%s: %q: address", page, line)
			}
			b, digits = append(b, make([]byte, int(at)-len(b))...), rest
		}
		part, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatalf("%s: %q: %v", page, line, err)
		}
		b = append(b, part...)
	}
	return b
}

func TestSnapPageExample(t *testing.T) {
	s := openBytes(t, docHex(t, "../docs/formats/snap.md"))
	header := Header{Term: 2, Index: 301, ConfState: ConfState{Voters: []uint64{0x81ffdcfb5f4cde8}}}
	if !reflect.DeepEqual(s.Header, header) {
		t.Errorf("header %+v", s.Header)
	}
	var last flatNode
	info, err := s.Walk(func(n *Node) error { last = flatten(n); return nil })
	if err != nil || info.CurrentIndex != 7 {
		t.Fatalf("%+v, %v", info, err)
	}
	want := flatNode{"/1/k", "a<b", 5, 7, time.Date(2036, 11, 19, 5, 46, 40, 5e8, time.UTC), false}
	if last != want {
		t.Errorf("%+v, want %+v", last, want)
	}
}

func TestBackendPageExample(t *testing.T) {
	file := docHex(t, "../docs/formats/backend.md")
	db := openDB(t, file)
	var got []string
	err := db.Keys(Revision{}, func(r *KeyRecord) error {
		kv, err := r.KeyValue()
		got = append(got, fmt.Sprintf("%s %v %s=%s", r.Revision, r.Tombstone, kv.Key, kv.Value))
		return err
	})
	if want := []string{"2.0 false a=hi", "3.0 true a="}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, want %q (%v)", got, want, err)
	}
	if m, err := db.Meta(); err != nil || m.ConsistentIndex != 9 {
		t.Errorf("%+v, %v", m, err)
	}
	if h, err := db.HashKV(0); err != nil || h.Hash != 1919627201 {
		t.Errorf("%+v, %v", h, err)
	}
	checkClean(t, file)
}
