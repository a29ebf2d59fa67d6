package walcodec

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
)

// docBlock returns the one block of that language in the format page.
func docBlock(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/formats/wal.md")
	must(t, err)
	found := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllSubmatch(page, -1)
	if len(found) != 1 {
		t.Fatalf("%d blocks of %s in the page", len(found), language)
	}
	return string(found[0][1])
}

// TestFormatPage decodes the example of docs/formats/wal.md, compares it to
// what the page says it reads as, and writes it again.
func TestFormatPage(t *testing.T) {
	var data []byte
	for line := range strings.Lines(docBlock(t, "hex")) {
		left, _, _ := strings.Cut(line, "|")
		b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(left), " ", ""))
		must(t, err)
		data = append(data, b...)
	}
	var text strings.Builder
	var again bytes.Buffer
	w := NewWriter(&again, WriterOptions{})
	r := NewReader(bytes.NewReader(data), ReaderOptions{Last: true})
	rec, err := r.Next()
	for ; err == nil; rec, err = r.Next() {
		text.WriteString(strings.TrimRight(fmt.Sprintf("offset %3d  %-8v  %08x  %s", rec.Offset, rec.Kind, rec.CRC, explain(t, rec)), " ") + "\n")
		must(t, w.Write(rec.Kind, rec.Data))
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	if want := docBlock(t, "text"); text.String() != want {
		t.Errorf("the example reads as:\n%s\nthe page says:\n%s", text.String(), want)
	}
	if !bytes.Equal(again.Bytes(), data) {
		t.Errorf("written again:\n%s", hex.Dump(again.Bytes()))
	}
}

func explain(t *testing.T, rec Record) string {
	t.Helper()
	switch rec.Kind {
	case KindMetadata:
		m, err := ParseMetadata(rec.Data)
		must(t, err)
		return fmt.Sprintf("node %x, cluster %x", m.NodeID, m.ClusterID)
	case KindSnapshot:
		s, err := ParseSnapshot(rec.Data)
		must(t, err)
		return fmt.Sprintf("index %d, term %d", s.Index, s.Term)
	case KindState:
		s, err := ParseHardState(rec.Data)
		must(t, err)
		return fmt.Sprintf("term %d, vote %x, commit %d", s.Term, s.Vote, s.Commit)
	case KindEntry:
		e, err := ParseEntry(rec.Data)
		must(t, err)
		q, err := ParseRequest(e.Data)
		must(t, err)
		return fmt.Sprintf("%v, term %d, index %d: %v %s %s = %s", e.Type, e.Term, e.Index, ClassifyEntry(e), q.Method, q.Path, q.Val)
	}
	return ""
}

// Example reads a segment and prints what it holds.
func Example() {
	var segment bytes.Buffer
	w := NewWriter(&segment, WriterOptions{})
	_ = w.Write(KindCRC, nil)
	_ = w.Write(KindMetadata, AppendMetadata(nil, Metadata{NodeID: 0x8e9e05c52164694d, ClusterID: 0xcdf818194e3a8c32}))
	_ = w.Write(KindEntry, AppendEntry(nil, Entry{Term: 2, Index: 1}))

	r := NewReader(&segment, ReaderOptions{Last: true})
	for {
		rec, err := r.Next()
		if err == io.EOF {
			break // clean end, or only zeros left
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(rec.Kind, rec.Offset)
	}
	// Output:
	// crc 0
	// metadata 16
	// entry 56
}
