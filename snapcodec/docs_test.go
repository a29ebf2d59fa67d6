package snapcodec

import (
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// docHex reads the n-th ```hex block of a page: bytes left of the bar.
func docHex(t testing.TB, page string, n int) []byte {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```hex\n")
	if len(blocks) < n+2 {
		t.Fatalf("%s: no hex block %d", page, n)
	}
	block, _, _ := strings.Cut(blocks[n+1], "```")
	var b []byte
	for line := range strings.Lines(block) {
		digits, _, _ := strings.Cut(line, "|")
		part, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatalf("%s: %q: %v", page, line, err)
		}
		b = append(b, part...)
	}
	return b
}

func TestSnapPageExample(t *testing.T) {
	s := openBytes(t, docHex(t, "../docs/formats/snap.md", 0))
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
