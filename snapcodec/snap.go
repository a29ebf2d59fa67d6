package snapcodec

import (
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Header is what a raft snapshot says about itself.
type Header struct {
	Term      uint64
	Index     uint64
	ConfState ConfState
}

// SnapOptions tells OpenSnap more about its input.
type SnapOptions struct {
	Name string // the file's name, for errors
}

// Snap is an open raft snapshot: its header is read, its content is not.
type Snap struct {
	Header

	r    io.ReaderAt
	name string
	size int64
	crc  uint32
	data span // the raftpb.Snapshot
	// Whole fields, tags included, and their content, all inside data.
	storeField, store span
	metaField         span
}

// span is a range of bytes in the file.
type span struct{ off, end int64 }

func (s span) len() int64 { return s.end - s.off }

// Fields of the envelope, snappb.Snapshot. Source: etcdserver/api/snap/snappb.
const (
	fieldCRC  = 1
	fieldData = 2
)

// Fields of raftpb.Snapshot and its metadata.
const (
	fieldSnapData     = 1
	fieldSnapMetadata = 2

	fieldMetaConfState = 1
	fieldMetaIndex     = 2
	fieldMetaTerm      = 3
)

// maxMetadata bounds the metadata, in bytes: room for 50,000 members.
const maxMetadata = 1 << 20

// OpenSnap reads the envelope and the metadata of a raft snapshot of size
// bytes. The content is not read and its checksum not checked: see [Snap.Verify]
// and [Snap.Walk].
func OpenSnap(r io.ReaderAt, size int64, o SnapOptions) (*Snap, error) {
	s := &Snap{r: r, name: o.Name, size: size}
	if size == 0 {
		return nil, s.corrupt(0, errors.New("empty snapshot file"))
	}
	if err := s.readEnvelope(); err != nil {
		return nil, err
	}
	if err := s.readSnapshot(); err != nil {
		return nil, err
	}
	return s, nil
}

// corrupt makes an error at an offset of the file.
func (s *Snap) corrupt(off int64, cause error) error {
	return &CorruptError{File: s.name, Offset: off, Cause: cause}
}

// readEnvelope finds crc and data. etcd refuses a zero crc and empty data.
func (s *Snap) readEnvelope() error {
	for off := int64(0); off < s.size; {
		f, err := s.field(off, s.size)
		if err != nil {
			return err
		}
		switch f.num {
		case fieldCRC:
			err = s.setCRC(f)
		case fieldData:
			err = s.setSpan(&s.data, f)
		default:
			err = s.corrupt(off, fmt.Errorf("unknown field %d beside crc and data", f.num))
		}
		if err != nil {
			return err
		}
		off = f.payload.end
	}
	if s.crc == 0 {
		return s.corrupt(0, errors.New("no checksum"))
	}
	if s.data.len() == 0 {
		return s.corrupt(0, errors.New("no snapshot data"))
	}
	return nil
}

func (s *Snap) setCRC(f field) error {
	if f.typ != protowire.VarintType {
		return s.corrupt(f.off, fmt.Errorf("crc has wire type %d", f.typ))
	}
	if f.val > math.MaxUint32 || s.crc != 0 {
		return s.corrupt(f.off, errors.New("crc is not one 32-bit number"))
	}
	s.crc = uint32(f.val)
	return nil
}

// setSpan keeps the payload of a field that may be there once.
func (s *Snap) setSpan(dst *span, f field) error {
	if f.typ != protowire.BytesType {
		return s.corrupt(f.off, fmt.Errorf("field %d has wire type %d, want bytes", f.num, f.typ))
	}
	if *dst != (span{}) {
		return s.corrupt(f.off, fmt.Errorf("field %d is there twice", f.num))
	}
	*dst = f.payload
	return nil
}

// readSnapshot finds the store and the metadata, in either order, and skips
// fields that it does not know.
func (s *Snap) readSnapshot() error {
	var meta span
	for off := s.data.off; off < s.data.end; {
		f, err := s.field(off, s.data.end)
		if err != nil {
			return err
		}
		whole := span{off, f.payload.end}
		switch f.num {
		case fieldSnapData:
			s.storeField, err = whole, s.setSpan(&s.store, f)
		case fieldSnapMetadata:
			s.metaField, err = whole, s.setSpan(&meta, f)
		}
		if err != nil {
			return err
		}
		off = f.payload.end
	}
	if s.store == (span{}) {
		return s.corrupt(s.data.off, errors.New("no v2 store"))
	}
	if meta == (span{}) {
		return s.corrupt(s.data.off, errors.New("no snapshot metadata"))
	}
	return s.readMetadata(meta)
}

func (s *Snap) readMetadata(meta span) error {
	if meta.len() > maxMetadata {
		return s.corrupt(meta.off, fmt.Errorf("snapshot metadata of %d bytes", meta.len()))
	}
	for off := meta.off; off < meta.end; {
		f, err := s.field(off, meta.end)
		if err != nil {
			return err
		}
		if err := s.setMetadata(f); err != nil {
			return err
		}
		off = f.payload.end
	}
	return nil
}

func (s *Snap) setMetadata(f field) error {
	switch {
	case f.num == fieldMetaConfState && f.typ == protowire.BytesType:
		return s.readConfState(f.payload)
	case f.num == fieldMetaIndex && f.typ == protowire.VarintType:
		s.Index = f.val
	case f.num == fieldMetaTerm && f.typ == protowire.VarintType:
		s.Term = f.val
	case f.num <= fieldMetaTerm:
		return s.corrupt(f.off, fmt.Errorf("metadata field %d has wire type %d", f.num, f.typ))
	}
	return nil
}

func (s *Snap) readConfState(at span) error {
	raw, err := s.bytes(at)
	if err != nil {
		return err
	}
	s.ConfState, err = ParseConfState(raw)
	if err != nil {
		return s.corrupt(at.off, err)
	}
	return nil
}

// bytes reads a span that was bounded before.
func (s *Snap) bytes(at span) ([]byte, error) {
	b := make([]byte, at.len())
	if _, err := io.ReadFull(io.NewSectionReader(s.r, at.off, at.len()), b); err != nil {
		return nil, s.readError(at.off, err)
	}
	return b, nil
}

// readError wraps a failed read; a file that ends early did not keep its size.
func (s *Snap) readError(off int64, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if s.name == "" {
		return fmt.Errorf("read at offset %d: %w", off, err)
	}
	return fmt.Errorf("read %s at offset %d: %w", s.name, off, err)
}

// field is one protobuf field: val for varints, payload for bytes.
type field struct {
	off     int64
	num     protowire.Number
	typ     protowire.Type
	val     uint64
	payload span // ends where the next field starts
}

// field decodes the field at off without reading its payload. It has to end
// by end.
func (s *Snap) field(off, end int64) (field, error) {
	var buf [2 * 10]byte // tag and one varint
	b := buf[:min(int64(len(buf)), end-off)]
	if n, err := s.r.ReadAt(b, off); n < len(b) {
		return field{}, s.readError(off, err)
	}
	f := field{off: off}
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return field{}, s.corrupt(off, fmt.Errorf("bad field tag: %w", protowire.ParseError(n)))
	}
	f.num, f.typ = num, typ
	return f, s.value(&f, b[n:], off+int64(n), end)
}

// value decodes a field's varint or length and bounds its payload.
func (s *Snap) value(f *field, b []byte, off, end int64) error {
	var length uint64
	switch f.typ {
	case protowire.VarintType, protowire.BytesType:
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return s.corrupt(off, fmt.Errorf("field %d: %w", f.num, protowire.ParseError(n)))
		}
		off += int64(n)
		if f.typ == protowire.VarintType {
			f.val = v
		} else {
			length = v
		}
	case protowire.Fixed32Type:
		length = 4
	case protowire.Fixed64Type:
		length = 8
	default:
		return s.corrupt(f.off, fmt.Errorf("field %d has wire type %d", f.num, f.typ))
	}
	if length > uint64(end-off) {
		return s.corrupt(f.off, fmt.Errorf("field %d says %d bytes, %d are left", f.num, length, end-off))
	}
	f.payload = span{off, off + int64(length)}
	return nil
}

// Store reads the v2 store's JSON from its start. The checksum is not checked.
func (s *Snap) Store() io.Reader {
	return io.NewSectionReader(s.r, s.store.off, s.store.len())
}

// StoreSize is the length of the v2 store's JSON in bytes.
func (s *Snap) StoreSize() int64 { return s.store.len() }

// Verify reads all of the data and compares its checksum.
func (s *Snap) Verify() error {
	h := crc32.New(castagnoli)
	if err := s.hash(h, s.data); err != nil {
		return err
	}
	return s.checkCRC(h.Sum32())
}

// hash adds a span of the file to h.
func (s *Snap) hash(h hash.Hash32, at span) error {
	n, err := io.CopyBuffer(writerOnly{h}, io.NewSectionReader(s.r, at.off, at.len()), make([]byte, bufferFor(at)))
	if err != nil {
		return s.readError(at.off+n, err)
	}
	if n != at.len() {
		return s.readError(at.off+n, io.ErrUnexpectedEOF)
	}
	return nil
}

// copyBuffer is the size of the reads when whole spans are copied, in bytes.
const copyBuffer = 256 << 10

// bufferFor is the buffer for one pass over a span: no larger than it.
func bufferFor(at span) int { return int(min(max(at.len(), 512), copyBuffer)) }

// writerOnly hides ReadFrom, so that the copy uses the buffer it was given.
type writerOnly struct{ io.Writer }

func (s *Snap) checkCRC(got uint32) error {
	if got != s.crc {
		return s.corrupt(s.data.off, fmt.Errorf("%w: data has %08x, envelope says %08x", ErrChecksum, got, s.crc))
	}
	return nil
}

// Walk visits every node of the v2 store in one pass, parents first, and
// compares the checksum at the end: what fn was given is certain only when Walk
// returns nil. fn may return fs.SkipAll to end the walk early and unchecked.
// The node and its slices are valid until fn returns.
func (s *Snap) Walk(fn func(*Node) error) (StoreInfo, error) {
	h := crc32.New(castagnoli)
	if err := s.hash(h, span{s.data.off, s.store.off}); err != nil {
		return StoreInfo{}, err
	}
	body := io.TeeReader(s.Store(), h)
	info, stopped, err := s.walk(body, fn)
	if stopped || (err != nil && !isCorrupt(err)) {
		return info, err
	}
	if cerr := s.finishCRC(h, body); cerr != nil {
		return info, cerr
	}
	return info, err
}

// finishCRC hashes what the walk left and the fields after the store.
func (s *Snap) finishCRC(h hash.Hash32, body io.Reader) error {
	if _, err := io.CopyBuffer(writerOnly{io.Discard}, body, make([]byte, bufferFor(s.store))); err != nil {
		return s.readError(s.store.off, err)
	}
	if err := s.hash(h, span{s.store.end, s.data.end}); err != nil {
		return err
	}
	return s.checkCRC(h.Sum32())
}

// walk runs the tree walker over the store; its errors carry the file's offsets.
func (s *Snap) walk(r io.Reader, fn func(*Node) error) (info StoreInfo, stopped bool, err error) {
	w := newWalker(r, bufferFor(s.store), fn)
	info, err = w.walk()
	return info, w.stopped, atOffset(err, s.name, s.store.off)
}

func isCorrupt(err error) bool {
	_, ok := err.(*CorruptError)
	return ok
}
