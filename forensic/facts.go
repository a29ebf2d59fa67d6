package forensic

import (
	"bytes"
	"context"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Facts are what the entries of a log tell about who wrote it.
type Facts struct {
	Terms []Terms // of each segment

	// Entries by what they are, overwritten ones included.
	V2, V3, ConfChanges, Noops, Unknown int64

	Overwritten    int64  // entries that a later one replaced
	ClusterVersion string // the last one that was set, empty if none was

	// Terse tells that an entry leaves out what is zero, as etcd 3.7 does
	// (google.golang.org/protobuf; gogo before it wrote zeros too).
	Terse bool
}

// Terms are the terms of the first and last entry record, 0 when there is none.
type Terms struct{ First, Last uint64 }

// Facts reads the log once more, past damage, and looks at every entry.
func (l *Log) Facts(ctx context.Context, s *Survey) (*Facts, error) {
	f := &Facts{Terms: make([]Terms, len(l.segments))}
	err := l.visit(ctx, s, visitOptions{skipDamage: true}, func(it *item) error {
		if it.damage == nil && it.kind == walcodec.KindEntry {
			f.add(it)
		}
		return nil
	})
	return f, err
}

func (f *Facts) add(it *item) {
	terms := &f.Terms[it.seg]
	if terms.First == 0 {
		terms.First = it.entry.Term
	}
	terms.Last = it.entry.Term
	if it.overwritten {
		f.Overwritten++
	}
	f.Terse = f.Terse || it.terse
	switch walcodec.ClassifyEntry(it.entry) {
	case walcodec.Empty:
		f.Noops++
	case walcodec.V2Request:
		f.V2++
		f.v2Version(it)
	case walcodec.V3Request:
		f.V3++
		f.v3Version(it)
	case walcodec.ConfChangePayload, walcodec.ConfChangeV2Payload:
		f.ConfChanges++
	default:
		f.Unknown++
	}
}

// versionPath is where the v2 store keeps the cluster version, until 3.5.
const versionPath = "/0/version"

// maxVersionEntry bounds the entries that may set a cluster version, in bytes:
// larger ones are not taken apart.
const maxVersionEntry = 512

func (f *Facts) v2Version(it *item) {
	if it.overwritten || len(it.data) > maxVersionEntry || !bytes.Contains(it.data, []byte(versionPath)) {
		return
	}
	r, err := walcodec.ParseRequest(it.data)
	if err == nil && r.Method == "PUT" && r.Path == versionPath {
		f.ClusterVersion = r.Val
	}
}

// Writers says in words which etcd the log points to. It names evidence, not
// more: a log can be carried on by several versions.
func (f *Facts) Writers(s *Survey) []string {
	var said []string
	plain, padded := s.framing()
	switch {
	case plain && padded:
		said = append(said, "frames without padding and with it: begun by 2.x, carried on by 3.0 or later")
	case plain:
		said = append(said, "frames without padding: 2.0 to 2.3")
	case padded:
		said = append(said, "padded frames: 3.0 or later")
	}
	if s.confStates() {
		said = append(said, "snapshot records with the members: 3.5 or later")
	}
	if f.Terse {
		said = append(said, "entries without their zero fields: 3.7 or later")
	}
	if f.ClusterVersion != "" {
		said = append(said, "cluster version set to "+strings.TrimSpace(f.ClusterVersion))
	}
	return said
}

func (s *Survey) framing() (plain, padded bool) {
	for _, segment := range s.Segments {
		plain, padded = plain || segment.Plain, padded || segment.Padded
	}
	return plain, padded
}

func (s *Survey) confStates() bool {
	for _, r := range s.Snapshots {
		if r.ConfState != nil && len(r.ConfState.Voters) > 0 {
			return true
		}
	}
	return false
}
