package snapcodec

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Edit says what a copy of a raft snapshot has different. The zero Edit copies
// byte for byte.
type Edit struct {
	Version    *string     // of the cluster: nil keeps /0/version, "" drops it
	Membership *Membership // nil keeps; its members and removed ids replace all (its ClusterVersion is not looked at)
	ConfState  *ConfState  // nil keeps
}

// RewriteSnap writes a copy of src with an edit to dst. It reads src twice: the
// checksum stands before the data that it covers, so the first pass verifies
// the source and computes the new one, and nothing is written when the source
// is damaged. What the edit does not touch is copied byte for byte.
func RewriteSnap(dst io.Writer, src *Snap, e Edit) error {
	pieces, err := src.edit(e)
	if err != nil {
		return err
	}
	crc, size, err := src.hashPieces(pieces)
	if err != nil {
		return err
	}
	if _, err := dst.Write(appendEnvelope(nil, crc, size)); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return src.writePieces(dst, pieces)
}

// appendEnvelope encodes snappb.Snapshot up to the data itself.
func appendEnvelope(dst []byte, crc uint32, size int64) []byte {
	dst = protowire.AppendTag(dst, fieldCRC, protowire.VarintType)
	dst = protowire.AppendVarint(dst, uint64(crc))
	dst = protowire.AppendTag(dst, fieldData, protowire.BytesType)
	return protowire.AppendVarint(dst, uint64(size))
}

// piece is a part of the raftpb.Snapshot: a span of the source that is kept, or
// one that is replaced by with (which may be empty, as may the span).
type piece struct {
	src     span
	replace bool
	with    []byte
}

// size is the piece's length in the copy, in bytes.
func (p piece) size() int64 {
	if p.replace {
		return int64(len(p.with))
	}
	return p.src.len()
}

// edit cuts the source's data into pieces, in order and without gaps.
func (s *Snap) edit(e Edit) ([]piece, error) {
	var cuts []piece
	if e.Version != nil || e.Membership != nil {
		store, err := s.editStore(e)
		if err != nil {
			return nil, err
		}
		cuts = append(cuts, s.withLength(store)...)
	}
	if e.ConfState != nil {
		meta := s.Header
		meta.ConfState = *e.ConfState
		cuts = append(cuts, piece{src: s.metaField, replace: true, with: appendMetadata(nil, meta)})
	}
	return fillGaps(s.data, cuts), nil
}

// withLength adds the piece that rewrites the store's length before it.
func (s *Snap) withLength(store []piece) []piece {
	size := s.store.len()
	for _, p := range store {
		size += p.size() - p.src.len()
	}
	tag := protowire.AppendTag(nil, fieldSnapData, protowire.BytesType)
	tag = protowire.AppendVarint(tag, uint64(size))
	head := piece{src: span{s.storeField.off, s.store.off}, replace: true, with: tag}
	return append([]piece{head}, store...)
}

// fillGaps sorts cuts in and keeps what lies between them.
func fillGaps(whole span, cuts []piece) []piece {
	sortPieces(cuts)
	var all []piece
	at := whole.off
	for _, c := range cuts {
		if c.src.off > at {
			all = append(all, piece{src: span{at, c.src.off}})
		}
		all = append(all, c)
		at = c.src.end
	}
	if at < whole.end {
		all = append(all, piece{src: span{at, whole.end}})
	}
	return all
}

// appendMetadata encodes field 2 of raftpb.Snapshot, the numbers always
// written, as gogo does (etcd before 3.7; later ones read both).
func appendMetadata(dst []byte, h Header) []byte {
	meta := protowire.AppendTag(nil, fieldMetaConfState, protowire.BytesType)
	meta = protowire.AppendBytes(meta, AppendConfState(nil, h.ConfState))
	meta = protowire.AppendTag(meta, fieldMetaIndex, protowire.VarintType)
	meta = protowire.AppendVarint(meta, h.Index)
	meta = protowire.AppendTag(meta, fieldMetaTerm, protowire.VarintType)
	meta = protowire.AppendVarint(meta, h.Term)
	dst = protowire.AppendTag(dst, fieldSnapMetadata, protowire.BytesType)
	return protowire.AppendBytes(dst, meta)
}

// hashPieces reads the source once, verifies its checksum and computes that of
// the copy, whose size it gives too.
func (s *Snap) hashPieces(pieces []piece) (crc uint32, size int64, err error) {
	var source uint32
	for _, p := range pieces {
		h := crc32.New(castagnoli)
		if err := s.hash(h, p.src); err != nil {
			return 0, 0, err
		}
		source = crcCombine(source, h.Sum32(), p.src.len())
		if p.replace {
			h.Reset()
			h.Write(p.with)
		}
		crc = crcCombine(crc, h.Sum32(), p.size())
		size += p.size()
	}
	return crc, size, s.checkCRC(source)
}

func (s *Snap) writePieces(dst io.Writer, pieces []piece) error {
	buf := make([]byte, bufferFor(s.data))
	for _, p := range pieces {
		if err := s.writePiece(dst, p, buf); err != nil {
			return err
		}
	}
	return nil
}

func (s *Snap) writePiece(dst io.Writer, p piece, buf []byte) error {
	var from io.Reader = io.NewSectionReader(s.r, p.src.off, p.src.len())
	if p.replace {
		from = bytes.NewReader(p.with)
	}
	n, err := io.CopyBuffer(writerOnly{dst}, readerOnly{from}, buf)
	if err == nil && n != p.size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("copy snapshot at offset %d: %w", p.src.off+n, err)
	}
	return nil
}

// readerOnly hides WriteTo.
type readerOnly struct{ io.Reader }

// systemDir is what the edit of the store needs to know of /0.
type systemDir struct {
	body    span // between the braces of its Children
	entries []dirEntry
	created uint64 // v2 index
}

// dirEntry is one child of /0: its bytes run from the quote of its name to the
// end of its object.
type dirEntry struct {
	name     string
	at       span
	created  uint64 // v2 indexes
	modified uint64
}

// editStore cuts new content for /0 out of the store.
func (s *Snap) editStore(e Edit) ([]piece, error) {
	dir, err := s.findSystemDir()
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, ent := range dir.merge(e) {
		text, err := s.renderEntry(ent, e)
		if err != nil {
			return nil, err
		}
		if len(text) > 0 && len(out) > 0 {
			out = append(out, ',')
		}
		out = append(out, text...)
	}
	return []piece{{src: dir.body, replace: true, with: out}}, nil
}

// merge lists the entries of /0 in the copy, those that the edit adds included,
// in the order of names.
func (d *systemDir) merge(e Edit) []dirEntry {
	entries := d.entries
	add := func(name string) {
		for _, ent := range entries {
			if ent.name == name {
				return
			}
		}
		entries = append(entries, dirEntry{name: name, created: d.created, modified: d.created})
	}
	if e.Membership != nil {
		add("members")
		if len(e.Membership.Removed) > 0 {
			add("removed_members")
		}
	}
	if e.Version != nil {
		add("version")
	}
	sortEntries(entries)
	return entries
}

// renderEntry gives the JSON of one entry of /0 in the copy: the source's own
// unless the edit names it.
func (s *Snap) renderEntry(ent dirEntry, e Edit) ([]byte, error) {
	switch {
	case ent.name == "version" && e.Version != nil:
		if *e.Version == "" {
			return nil, nil
		}
		return ent.appendTo(nil, versionNode(*e.Version)), nil
	case ent.name == "members" && e.Membership != nil:
		return ent.appendTo(nil, membersNode(e.Membership.Members)), nil
	case ent.name == "removed_members" && e.Membership != nil:
		return ent.appendTo(nil, removedNode(e.Membership.Removed)), nil
	}
	if ent.at.len() > maxEntry {
		return nil, s.corrupt(ent.at.off, fmt.Errorf("/0/%s of %d bytes", ent.name, ent.at.len()))
	}
	return s.bytes(ent.at)
}

// maxEntry bounds what is kept of an entry of /0 in memory, in bytes. A member
// takes about 1 KB.
const maxEntry = 16 << 20

func (ent dirEntry) appendTo(dst []byte, n *outNode) []byte {
	n.stamp(ent.created, ent.modified)
	return n.appendEntry(dst, "/0/")
}

// findSystemDir reads the store up to the end of /0, which is its first entry.
func (s *Snap) findSystemDir() (*systemDir, error) {
	f := &dirFinder{scanner: newScanner(s.Store(), bufferFor(s.store)), base: s.store.off}
	err := f.only("Root", func() error {
		return f.only("Children", func() error { return f.only("0", f.dir) })
	})
	if err != nil && !errors.Is(err, errFound) {
		return nil, atOffset(err, s.name, s.store.off)
	}
	if f.found == nil {
		return nil, s.corrupt(s.store.off, errors.New("v2 store: no directory /0"))
	}
	return f.found, nil
}

// errFound ends the search.
var errFound = errors.New("found")

type dirFinder struct {
	*scanner
	base  int64 // of the store in the file
	found *systemDir
}

// dir takes the node of /0.
func (f *dirFinder) dir() error {
	d := &systemDir{}
	err := f.members(func(name []byte) (err error) {
		switch string(name) {
		case "CreatedIndex":
			d.created, err = f.uint()
			return err
		case "Children":
			return f.entries(d)
		}
		return f.skip()
	})
	if err != nil {
		return err
	}
	if d.body == (span{}) {
		return f.fail("/0 is no directory")
	}
	f.found = d
	return errFound
}

// entries notes where each child of /0 starts and ends.
func (f *dirFinder) entries(d *systemDir) error {
	if err := f.open('{'); err != nil {
		return err
	}
	d.body.off = f.base + f.offset()
	for first := true; ; first = false {
		more, err := f.more('}', first)
		if err != nil {
			return err
		}
		if !more {
			d.body.end = f.base + f.offset() - 1
			return nil
		}
		if err := f.entry(d); err != nil {
			return err
		}
	}
}

// maxEntries bounds the children of /0; etcd makes three.
const maxEntries = 1024

func (f *dirFinder) entry(d *systemDir) error {
	if len(d.entries) == maxEntries {
		return f.fail("/0 has more than %d entries", maxEntries)
	}
	if _, err := f.peek(); err != nil {
		return err
	}
	ent := dirEntry{at: span{off: f.base + f.offset()}}
	name, err := f.string(nil)
	if err != nil {
		return err
	}
	if err := f.expect(':'); err != nil {
		return err
	}
	ent.name = string(name)
	if err := f.indexes(&ent); err != nil {
		return err
	}
	ent.at.end = f.base + f.offset()
	d.entries = append(d.entries, ent)
	return nil
}

func (f *dirFinder) indexes(ent *dirEntry) error {
	return f.members(func(name []byte) (err error) {
		switch string(name) {
		case "CreatedIndex":
			ent.created, err = f.uint()
		case "ModifiedIndex":
			ent.modified, err = f.uint()
		default:
			err = f.skip()
		}
		return err
	})
}

// outNode is a small tree to write.
type outNode struct {
	name              string
	value             string
	created, modified uint64 // v2 indexes
	dir               bool
	children          []*outNode // by name
}

// stamp sets the v2 indexes of a node and all below it. The new nodes of an
// edit take those of what they replace: no index of the source is ever passed.
func (n *outNode) stamp(created, modified uint64) {
	n.created, n.modified = created, modified
	for _, c := range n.children {
		c.stamp(created, modified)
	}
}

// appendEntry writes the node as a member of its directory's Children, as
// encoding/json writes v2store's node.
func (n *outNode) appendEntry(dst []byte, dir string) []byte {
	dst = append(appendJSON(dst, n.name), ':')
	return n.append(dst, dir+n.name)
}

func (n *outNode) append(dst []byte, path string) []byte {
	dst = appendJSON(append(dst, `{"Path":`...), path)
	dst = fmt.Appendf(dst, `,"CreatedIndex":%d,"ModifiedIndex":%d`, n.created, n.modified)
	dst = append(dst, `,"ExpireTime":"`+permanent+`","Value":`...)
	dst = append(appendJSON(dst, n.value), `,"Children":`...)
	if !n.dir {
		return append(dst, `null}`...)
	}
	dst = append(dst, '{')
	if path != "/" {
		path += "/"
	}
	for i, c := range n.children {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = c.appendEntry(dst, path)
	}
	return append(dst, `}}`...)
}

// appendJSON writes a string as encoding/json does.
func appendJSON(dst []byte, s string) []byte {
	b, _ := json.Marshal(s) // a string cannot fail
	return append(dst, b...)
}

func versionNode(v string) *outNode { return &outNode{name: "version", value: v} }

func removedNode(ids []uint64) *outNode {
	n := &outNode{name: "removed_members", dir: true}
	for _, id := range ids {
		n.children = append(n.children, &outNode{name: FormatID(id)})
	}
	sortNodes(n.children)
	return n
}

func membersNode(members []Member) *outNode {
	n := &outNode{name: "members", dir: true}
	for _, m := range members {
		n.children = append(n.children, memberNode(m))
	}
	sortNodes(n.children)
	return n
}

// memberNode has no attributes while the member has no name, as in etcd.
func memberNode(m Member) *outNode {
	n := &outNode{name: FormatID(m.ID), dir: true}
	if m.Name != "" || len(m.ClientURLs) > 0 {
		attrs := jsonText(attributes{m.Name, m.ClientURLs})
		n.children = append(n.children, &outNode{name: "attributes", value: attrs})
	}
	raft := jsonText(raftAttributes{m.PeerURLs, m.IsLearner})
	n.children = append(n.children, &outNode{name: "raftAttributes", value: raft})
	return n
}

// jsonText encodes one of the structs above, which cannot fail.
func jsonText(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// WriteMembershipSnap writes a raft snapshot that holds nothing but members,
// as "snapshot restore" makes one and as etcd 3.6 and 3.7 do all of theirs:
// /0 filled, /1 empty, no history.
func WriteMembershipSnap(dst io.Writer, h Header, m Membership) error {
	data := protowire.AppendTag(nil, fieldSnapData, protowire.BytesType)
	data = protowire.AppendBytes(data, membershipStore(m))
	data = appendMetadata(data, h)
	crc := crc32.Checksum(data, castagnoli)
	file := append(appendEnvelope(nil, crc, int64(len(data))), data...)
	if _, err := dst.Write(file); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// membershipStore is the v2 store's JSON for a membership.
func membershipStore(m Membership) []byte {
	system := &outNode{name: "0", dir: true}
	if len(m.Members) > 0 {
		system.children = append(system.children, membersNode(m.Members))
	}
	if len(m.Removed) > 0 {
		system.children = append(system.children, removedNode(m.Removed))
	}
	if m.ClusterVersion != "" {
		system.children = append(system.children, versionNode(m.ClusterVersion))
	}
	index := system.number(0)
	root := &outNode{dir: true, children: []*outNode{system, {name: "1", dir: true}}}
	out := root.append([]byte(`{"Root":`), "/")
	return fmt.Appendf(out, `,%s,"CurrentIndex":%d,"Stats":%s,"CurrentVersion":2}`, emptyHub(), index, emptyStats())
}

// number gives the keys below n their v2 indexes, one each and a directory that
// of its first, and returns the last one used.
func (n *outNode) number(last uint64) uint64 {
	for _, c := range n.children {
		first := last + 1
		if c.dir {
			last = c.number(last)
		} else {
			last++
		}
		c.created, c.modified = first, first
	}
	return last
}

// historyCapacity is how many events a v2 store keeps. It fills its ring's
// empty slots with null, and needs them there.
const historyCapacity = 1000

func emptyHub() []byte {
	nulls := bytes.TrimSuffix(bytes.Repeat([]byte("null,"), historyCapacity), []byte(","))
	return fmt.Appendf(nil, `"WatcherHub":{"EventHistory":{"Queue":{"Events":[%s],"Size":0,"Front":0,"Back":0,`+
		`"Capacity":%d},"StartIndex":0,"LastIndex":0}}`, nulls, historyCapacity)
}

// emptyStats lists the counters in etcd's order. Source: v2store/stats.go.
func emptyStats() string {
	return `{"getsSuccess":0,"getsFail":0,"setsSuccess":0,"setsFail":0,"deleteSuccess":0,"deleteFail":0,` +
		`"updateSuccess":0,"updateFail":0,"createSuccess":0,"createFail":0,"compareAndSwapSuccess":0,` +
		`"compareAndSwapFail":0,"compareAndDeleteSuccess":0,"compareAndDeleteFail":0,"expireCount":0,"watchers":0}`
}

func sortPieces(p []piece) {
	slices.SortFunc(p, func(a, b piece) int { return cmp.Compare(a.src.off, b.src.off) })
}

func sortEntries(e []dirEntry) {
	slices.SortFunc(e, func(a, b dirEntry) int { return cmp.Compare(a.name, b.name) })
}

func sortNodes(n []*outNode) {
	slices.SortFunc(n, func(a, b *outNode) int { return cmp.Compare(a.name, b.name) })
}
