package snapcodec

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"
)

// TestFixturesAgreeWithEtcd compares header and content of real snapshots with
// what etcd's own reader makes of them.
func TestFixturesAgreeWithEtcd(t *testing.T) {
	for _, name := range fixtureSnaps(t) {
		t.Run(name, func(t *testing.T) {
			want, err := snap.Read(zap.NewNop(), name)
			if err != nil {
				t.Fatal(err)
			}
			s := openBytes(t, readFile(t, name))
			if s.Index != want.Metadata.GetIndex() || s.Term != want.Metadata.GetTerm() {
				t.Errorf("index %d term %d, want %v", s.Index, s.Term, want.Metadata)
			}
			cs := want.Metadata.ConfState
			wantCS := ConfState{cs.Voters, cs.Learners, cs.VotersOutgoing, cs.LearnersNext, cs.GetAutoLeave()}
			if !reflect.DeepEqual(s.ConfState, wantCS) {
				t.Errorf("conf state %+v, want %+v", s.ConfState, wantCS)
			}
			got, err := io.ReadAll(s.Store())
			if err != nil || !bytes.Equal(got, want.Data) {
				t.Errorf("store differs from etcd's reading (%v)", err)
			}
			if err := s.Verify(); err != nil {
				t.Error(err)
			}
			if base := filepath.Base(name); SnapName(s.Term, s.Index) != base {
				t.Errorf("name %s, want %s", SnapName(s.Term, s.Index), base)
			}
		})
	}
}

// smallSnap is a real snapshot with its watch history cut to one event, so that
// every byte of it can be tried.
func smallSnap(t testing.TB) []byte {
	var b bytes.Buffer
	m := Membership{Members: []Member{{ID: 0x3ebf79ede0765aab, Name: "m1", PeerURLs: []string{"http://127.0.0.1:31031"}}}}
	h := Header{Term: 2, Index: 301, ConfState: ConfState{Voters: []uint64{0x3ebf79ede0765aab}}}
	if err := WriteMembershipSnap(&b, h, m); err != nil {
		t.Fatal(err)
	}
	small := bytes.Replace(b.Bytes(), bytes.Repeat([]byte("null,"), 900), nil, 1)
	s := reseal(small)
	if err := openBytes(t, s).Verify(); err != nil {
		t.Fatal(err)
	}
	return s
}

// reseal recomputes lengths and checksum after the JSON was changed in length.
func reseal(b []byte) []byte {
	start := bytes.Index(b, []byte(`{"Root"`))
	end := bytes.LastIndex(b, []byte(`"CurrentVersion":2}`)) + len(`"CurrentVersion":2}`)
	data := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b[start:end])
	data = append(data, b[end:]...)
	return append(appendEnvelope(nil, crcOf(data), int64(len(data))), data...)
}

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// readAll is everything that a reader of a snapshot can be asked for.
func readAll(b []byte) error {
	s, err := OpenSnap(bytes.NewReader(b), int64(len(b)), SnapOptions{Name: "x.snap"})
	if err != nil {
		return err
	}
	_, err = s.Walk(func(*Node) error { return nil })
	return err
}

func TestEveryTruncationIsDetected(t *testing.T) {
	b := smallSnap(t)
	for n := range b {
		var c *CorruptError
		if err := readAll(b[:n]); !errors.As(err, &c) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(b), err)
		}
	}
}

// TestEveryBitFlipIsDetected: the checksum covers the data, and what is before
// it (the checksum itself, two tags and a length) leaves no room for a flip
// that stays unseen.
func TestEveryBitFlipIsDetected(t *testing.T) {
	b := smallSnap(t)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			var c *CorruptError
			if err := readAll(b); !errors.As(err, &c) {
				t.Errorf("byte %d bit %d: %v", i, bit, err)
			}
			b[i] ^= 1 << bit
		}
	}
	if err := readAll(b); err != nil {
		t.Fatal(err)
	}
}

// TestFieldOrder reads metadata before data, which protobuf allows.
func TestFieldOrder(t *testing.T) {
	want := openBytes(t, smallSnap(t))
	store, err := io.ReadAll(want.Store())
	if err != nil {
		t.Fatal(err)
	}
	data := appendMetadata(nil, want.Header)
	data = protowire.AppendTag(data, 9, protowire.Fixed64Type)
	data = protowire.AppendFixed64(data, 7) // a field of the future
	data = protowire.AppendBytes(protowire.AppendTag(data, 1, protowire.BytesType), store)
	file := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), data)
	file = protowire.AppendVarint(protowire.AppendTag(file, 1, protowire.VarintType), uint64(crcOf(data)))

	got := openBytes(t, file)
	if !reflect.DeepEqual(got.Header, want.Header) {
		t.Errorf("header %+v, want %+v", got.Header, want.Header)
	}
	if err := readAll(file); err != nil {
		t.Error(err)
	}
	var copied bytes.Buffer
	version := "3.0.0"
	if err := RewriteSnap(&copied, got, Edit{Version: &version, ConfState: &ConfState{Voters: []uint64{1}}}); err != nil {
		t.Fatal(err)
	}
	edited := openBytes(t, copied.Bytes())
	if err := edited.Verify(); err != nil {
		t.Error(err)
	}
	m, err := edited.Membership()
	if err != nil || m.ClusterVersion != version || edited.ConfState.Voters[0] != 1 {
		t.Errorf("%+v %+v %v", m, edited.ConfState, err)
	}
}

func TestNotASnapshot(t *testing.T) {
	tests := []struct{ name, content, want string }{
		{"empty", "", "empty snapshot file"},
		{"text", "hello, world", "unknown field"},
		{"zeros", strings.Repeat("\x00", 64), "bad field tag"},
		{"no data", "\x08\x01", "no snapshot data"},
		{"no crc", "\x12\x01\x00", "no checksum"},
		{"two data", "\x08\x01\x12\x01\x00\x12\x01\x00", "there twice"},
		{"length past the end", "\x08\x01\x12\xff\xff\xff\x0f\x00", "bytes, 1 are left"},
		{"no store", "\x08\x01\x12\x02\x12\x00", "no v2 store"},
		{"no metadata", "\x08\x01\x12\x04\x0a\x02{}", "no snapshot metadata"},
		{"33-bit crc", "\x08\xff\xff\xff\xff\x7f\x12\x01\x00", "not one 32-bit number"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := readAll([]byte(tt.content))
			var c *CorruptError
			if !errors.As(err, &c) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "x.snap: offset ") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestReadErrorIsNotDamage: a failing disk must not look like a bad file.
func TestReadErrorIsNotDamage(t *testing.T) {
	b := smallSnap(t)
	broken := errors.New("disk on fire")
	for n := 0; n < len(b); n += 7 {
		r := failingReaderAt{b, int64(n), broken}
		s, err := OpenSnap(r, int64(len(b)), SnapOptions{Name: "x.snap"})
		if err == nil {
			_, err = s.Walk(func(*Node) error { return nil })
		}
		var c *CorruptError
		if !errors.Is(err, broken) || errors.As(err, &c) {
			t.Fatalf("failing at %d: %v", n, err)
		}
	}
}

// failingReaderAt fails for every byte at and after a limit.
type failingReaderAt struct {
	b     []byte
	limit int64
	err   error
}

func (r failingReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= r.limit {
		return 0, r.err
	}
	n := copy(p, r.b[off:r.limit])
	if n < len(p) {
		return n, r.err
	}
	return n, nil
}

func TestWalkStops(t *testing.T) {
	s := openBytes(t, readFile(t, fixtureSnaps(t)[0]))
	n := 0
	_, err := s.Walk(func(*Node) error {
		n++
		return fs.SkipAll
	})
	if n != 1 || err != nil {
		t.Errorf("%d nodes, %v", n, err)
	}
	sentinel := errors.New("enough")
	if _, err := s.Walk(func(*Node) error { return sentinel }); err != sentinel {
		t.Errorf("got %v", err)
	}
}

func TestCRCCombine(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for range 200 {
		a, b := make([]byte, rnd.Intn(5000)), make([]byte, rnd.Intn(5000))
		rnd.Read(a)
		rnd.Read(b)
		want := crcOf(append(append([]byte{}, a...), b...))
		if got := crcCombine(crcOf(a), crcOf(b), int64(len(b))); got != want {
			t.Fatalf("%d and %d bytes: %08x, want %08x", len(a), len(b), got, want)
		}
	}
}

func TestNames(t *testing.T) {
	tests := []struct {
		name string
		kind FileKind
	}{
		{"0000000000000002-000000000000025a.snap", FileSnap},
		{"0000000000000002-000000000000025A.snap", FileOther},
		{"2-25a.snap", FileOther},
		{"000000000000025a.snap.db", FileSnapDB},
		{"25a.snap.db", FileOther},
		{"db", FileDB},
		{"0000000000000002-000000000000025a.snap.broken", FileBroken},
		{"tmp123456", FileTemp},
		{"db.tmp.8462", FileTemp},
		{"db.tmp8462", FileTemp},
		{"lost+found", FileOther},
		{"+000000000000002-000000000000025a.snap", FileOther},
	}
	for _, tt := range tests {
		if got := Classify(tt.name); got != tt.kind {
			t.Errorf("%s is %s, want %s", tt.name, got, tt.kind)
		}
	}
	term, index, ok := ParseSnapName(SnapName(2, 0x25a))
	if !ok || term != 2 || index != 0x25a {
		t.Errorf("%d %d %v", term, index, ok)
	}
	if index, ok := ParseSnapDBName("000000000000025a.snap.db"); !ok || index != 0x25a {
		t.Errorf("%d %v", index, ok)
	}
}

func TestConfStateRoundTrip(t *testing.T) {
	want := ConfState{Voters: []uint64{1, 1 << 63}, Learners: []uint64{3}, VotersOutgoing: []uint64{4}, LearnersNext: []uint64{5}, AutoLeave: true}
	got, err := ParseConfState(AppendConfState(nil, want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	packed := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte{1, 2, 3})
	got, err = ParseConfState(packed)
	if err != nil || fmt.Sprint(got.Voters) != "[1 2 3]" {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzOpenSnap(f *testing.F) {
	f.Add(smallSnap(f))
	f.Add([]byte("\x08\x01\x12\x04\x0a\x02{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := OpenSnap(bytes.NewReader(b), int64(len(b)), SnapOptions{})
		if err != nil {
			return
		}
		s.Membership()
		s.Inspect()
		version := "3.0.0"
		RewriteSnap(io.Discard, s, Edit{Version: &version})
	})
}

func FuzzConfState(f *testing.F) {
	f.Add(AppendConfState(nil, ConfState{Voters: []uint64{1}, AutoLeave: true}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfState(b)
		if err != nil {
			return
		}
		again, err := ParseConfState(AppendConfState(nil, c))
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Errorf("%+v, then %+v, %v", c, again, err)
		}
	})
}
