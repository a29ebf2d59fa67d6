package forensic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// Tree is a raft snapshot opened to print its v2 key tree.
type Tree struct {
	Path string // of the file
	Why  string // it was picked, empty when it was named

	f    *os.File
	snap *snapcodec.Snap
}

// OpenTree opens a .snap file, or the newest usable one of a data dir, backup
// or snap folder: one that reads whole and that the log covers, where there is
// a log. Without one it takes the newest that reads whole.
func OpenTree(ctx context.Context, path, walDir string) (*Tree, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return openTree(path, "")
	}
	list, err := ListSnaps(ctx, path, walDir)
	if err != nil {
		return nil, err
	}
	name, why, err := list.newest()
	if err != nil {
		return nil, err
	}
	return openTree(filepath.Join(list.Dir, name), why)
}

func openTree(path, why string) (*Tree, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	snap, err := snapcodec.OpenSnap(f, info.Size(), snapcodec.SnapOptions{Name: path})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Tree{Path: path, Why: why, f: f, snap: snap}, nil
}

// newest picks a snapshot and says why.
func (l *SnapList) newest() (name, why string, err error) {
	var readable *SnapReport
	for i := range l.Files {
		f := &l.Files[i]
		if f.Kind != snapcodec.FileSnap.String() || f.State != SnapOK {
			continue
		}
		if f.InLog == nil {
			return f.Name, "the newest that reads well", nil
		}
		if *f.InLog {
			return f.Name, "the newest that reads well and that the log covers", nil
		}
		if readable == nil {
			readable = f
		}
	}
	if readable != nil {
		return readable.Name, "the newest that reads well, though the log covers none: " + readable.InLogProblem, nil
	}
	return "", "", l.noneReadable()
}

func (l *SnapList) noneReadable() error {
	for _, f := range l.Files {
		if f.State == SnapDamaged {
			return fmt.Errorf("%s: no snapshot reads well; the newest is %s: %s", l.Dir, f.Name, f.Problem)
		}
	}
	return fmt.Errorf("%s: %w (TERM-INDEX.snap): the member has not taken one yet, or keeps its data in the v3 backend", l.Dir, ErrNoSnaps)
}

// Header returns the snapshot's place in the raft log, and its voters.
func (t *Tree) Header() snapcodec.Header { return t.snap.Header }

// Close closes the file.
func (t *Tree) Close() error { return t.f.Close() }

// TreeOptions choose what [DumpTree] prints and how. The zero value prints all
// nodes as lines with whole values.
type TreeOptions struct {
	Format  Format
	Key     string // a key as clients know it, or a path of the store; a prefix when it ends in '*'; empty: all
	Members bool   // print the members instead
	Width   int    // of values in lines, bytes; 0: whole
	Now     time.Time
}

// DumpTree prints the key tree of a snapshot, or its members, as it is read.
// The checksum is known at the end only: the error then tells that what was
// printed is not to be trusted.
func DumpTree(w io.Writer, t *Tree, o TreeOptions) error {
	if o.Members {
		return dumpMembers(w, t, o)
	}
	p := &treePrinter{w: w, o: o, key: newPattern(o.Key), lines: lines{width: o.Width, now: o.Now}}
	_, err := t.snap.Walk(p.node)
	if flushed := p.flush(); err == nil {
		err = flushed
	}
	return err
}

// treePrinter prints nodes.
type treePrinter struct {
	w     io.Writer
	o     TreeOptions
	key   pattern
	lines lines
	out   []byte
}

// flushSize is how much is collected before it is written, in bytes.
const flushSize = 256 << 10

func (p *treePrinter) flush() error {
	_, err := p.w.Write(p.out)
	p.out = p.out[:0]
	return err
}

func (p *treePrinter) node(n *snapcodec.Node) error {
	path := string(n.Path)
	key, user := userKey(path)
	if !p.key.matches(path) && !(user && p.key.matches(key)) {
		return nil
	}
	if p.o.Format == FormatJSON {
		p.out = appendNodeJSON(p.out, n, key, user)
	} else {
		p.out = p.lines.appendNode(p.out, n, key, user)
	}
	if len(p.out) < flushSize {
		return nil
	}
	return p.flush()
}

func (l *lines) appendNode(dst []byte, n *snapcodec.Node, key string, user bool) []byte {
	if !user {
		key = string(n.Path)
	}
	dst = appendWord(dst, key)
	switch {
	case !n.Dir:
		dst = appendCut(append(dst, " = "...), n.Value, l.width)
	case key != "/":
		dst = append(dst, '/')
	}
	dst = strconv.AppendUint(append(dst, " created="...), n.CreatedIndex, 10)
	dst = strconv.AppendUint(append(dst, " modified="...), n.ModifiedIndex, 10)
	if !n.ExpireTime.IsZero() {
		dst = l.appendTime(append(dst, " expires="...), n.ExpireTime)
	}
	if !user {
		dst = append(dst, " internal"...)
	}
	return append(dst, '\n')
}

func appendNodeJSON(dst []byte, n *snapcodec.Node, key string, user bool) []byte {
	dst = append(dst, '{')
	if user {
		dst = append(appendJSONMember(dst, "key", key), ',')
	}
	dst = appendJSONMember(dst, "path", n.Path)
	if n.Dir {
		dst = append(dst, `,"dir":true`...)
	} else {
		dst = appendJSONMember(append(dst, ','), "value", n.Value)
	}
	dst = strconv.AppendUint(append(dst, `,"created_index":`...), n.CreatedIndex, 10)
	dst = strconv.AppendUint(append(dst, `,"modified_index":`...), n.ModifiedIndex, 10)
	if !n.ExpireTime.IsZero() {
		dst = n.ExpireTime.UTC().AppendFormat(append(dst, `,"expiration":"`...), time.RFC3339Nano)
		dst = append(dst, '"')
	}
	return append(dst, "}\n"...)
}

// dumpMembers prints who belongs to the cluster, and who no longer does.
func dumpMembers(w io.Writer, t *Tree, o TreeOptions) error {
	contents, err := t.snap.Inspect()
	if err != nil {
		return err
	}
	var dst []byte
	l := lines{now: o.Now}
	for _, m := range contents.Membership.Members {
		dst = l.appendMember(dst, o.Format, memberOp(m))
	}
	for _, id := range contents.Membership.Removed {
		removed := op{}
		removed.add(field{kind: fieldID, name: "id", n: id})
		removed.addFlag("removed", true)
		dst = l.appendMember(dst, o.Format, &removed)
	}
	_, err = w.Write(dst)
	return err
}

func (l *lines) appendMember(dst []byte, format Format, o *op) []byte {
	if format == FormatJSON {
		return append(o.appendJSON(dst), '\n')
	}
	o.typ = "member"
	return append(l.appendOp(dst, o), '\n')
}

func memberOp(m snapcodec.Member) *op {
	o := &op{}
	o.add(field{kind: fieldID, name: "id", n: m.ID})
	o.add(field{kind: fieldText, name: "name", s: m.Name})
	o.add(field{kind: fieldList, name: "peer_urls", label: "peerURLs", list: m.PeerURLs})
	o.add(field{kind: fieldList, name: "client_urls", label: "clientURLs", list: m.ClientURLs})
	o.addFlag("learner", m.IsLearner)
	return o
}
