package walcodec

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
	"testing/iotest"
	"testing/synctest"
)

const fuzzLimit = 1 << 20 // largest record of FuzzReader, bytes

// segmentBytes are the segments of small logs, to start fuzzing from: the
// fuzzer spends its time on large ones.
func segmentBytes(t testing.TB) (all [][]byte) {
	t.Helper()
	for _, log := range []memory{smallLog(t, FramingPadded), smallLog(t, FramingPlain)} {
		for _, f := range log {
			all = append(all, f.Data)
		}
	}
	return all
}

// FuzzReader reads any bytes as a segment to its end, past damage too. It must
// come to an end, hold no more than the limit allows, agree with the decoder
// that it cuts short, and write back what it read.
func FuzzReader(f *testing.F) {
	for _, data := range segmentBytes(f) {
		f.Add(data, true, true)
		f.Add(data, false, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, last, stream bool) {
		synctest.Test(t, func(t *testing.T) { fuzzReader(t, data, last, stream) })
	})
}

func fuzzReader(t *testing.T, data []byte, last, stream bool) {
	var src io.Reader = bytes.NewReader(data)
	if stream {
		src = iotest.HalfReader(src)
	}
	o := ReaderOptions{Last: last, MaxRecord: fuzzLimit}
	r := NewReader(src, o)
	slow := NewReader(bytes.NewReader(data), o)
	skipped := false
	for end := int64(0); ; {
		rec, err := r.Next()
		if !skipped {
			sameAsSlow(t, slow, rec, err)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			skip, err := r.Resync()
			must(t, err)
			skipped = true
			if skip.Offset < end || skip.Offset+skip.Len > int64(len(data)) {
				t.Fatalf("skipped %+v after offset %d of %d", skip, end, len(data))
			}
			continue
		}
		if rec.Offset < end || rec.End() > int64(len(data)) {
			t.Fatalf("record at %d to %d after %d of %d", rec.Offset, rec.End(), end, len(data))
		}
		end = rec.End()
		rewritten(t, data[rec.Offset:end], rec)
	}
	if len(r.buf) > 2*(fuzzLimit+64) {
		t.Errorf("buffer of %d bytes for a limit of %d", len(r.buf), fuzzLimit)
	}
}

// sameAsSlow decodes the same record without the short cut.
func sameAsSlow(t *testing.T, slow *Reader, rec Record, err error) {
	t.Helper()
	want, wantErr := slow.decode()
	if wantErr != nil {
		want, wantErr = slow.judge(wantErr)
	}
	if (err == nil) != (wantErr == nil) || errors.Is(err, ErrTorn) != errors.Is(wantErr, ErrTorn) && slow.at == nil {
		t.Fatalf("ended with %v, the long way with %v", err, wantErr)
	}
	if err == nil && !reflect.DeepEqual(rec, want) {
		t.Fatalf("record %+v, the long way %+v", rec, want)
	}
}

// rewritten frames a record again.
func rewritten(t *testing.T, raw []byte, rec Record) {
	t.Helper()
	f, err := parseFrame(uint64(raw[0]) | uint64(raw[1])<<8 | uint64(raw[2])<<16 | uint64(raw[3])<<24 |
		uint64(raw[4])<<32 | uint64(raw[5])<<40 | uint64(raw[6])<<48 | uint64(raw[7])<<56)
	must(t, err)
	got := appendHeader(nil, rec.Kind, rec.CRC, len(rec.Data))
	got = append(got, rec.Data...)
	got = append(got, make([]byte, f.pad)...)
	if !bytes.Equal(got, raw[lengthSize:]) {
		t.Fatalf("record of % x was written as % x", raw, got)
	}
}

// checkCodec parses, and if that goes well encodes and parses again.
func checkCodec[T any](t *testing.T, data []byte, parse func([]byte) (T, error), encode func([]byte, T) []byte) {
	t.Helper()
	v, err := parse(data)
	if err != nil {
		return
	}
	again, err := parse(encode(nil, v))
	if err != nil || !reflect.DeepEqual(v, again) {
		t.Errorf("%+v came back as %+v (%v)", v, again, err)
	}
}

// FuzzPayloads decodes, encodes and decodes any bytes as each payload.
func FuzzPayloads(f *testing.F) {
	for _, data := range segmentBytes(f) {
		r := NewReader(bytes.NewReader(data), ReaderOptions{Last: true})
		for rec, err := r.Next(); err == nil; rec, err = r.Next() {
			f.Add(bytes.Clone(rec.Data))
			if e, err := ParseEntry(rec.Data); err == nil {
				f.Add(bytes.Clone(e.Data))
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		checkCodec(t, data, ParseMetadata, AppendMetadata)
		checkCodec(t, data, ParseEntry, AppendEntry)
		checkCodec(t, data, ParseHardState, AppendHardState)
		checkCodec(t, data, ParseSnapshot, AppendSnapshot)
		checkCodec(t, data, ParseConfState, AppendConfState)
		checkCodec(t, data, ParseConfChange, AppendConfChange)
		checkCodec(t, data, ParseConfChangeV2, AppendConfChangeV2)
		checkCodec(t, data, ParseRequest, AppendRequest)
		_, _ = ParseMember(data)
		peekAgrees(t, data)
		quickAgrees(t, data)
	})
}

// peekAgrees peeks into a request as etcd would encode it.
func peekAgrees(t *testing.T, data []byte) {
	t.Helper()
	_, _ = PeekRequest(data)
	r, err := ParseRequest(data)
	if err != nil {
		return
	}
	if method, path := PeekRequest(AppendRequest(nil, r)); string(method) != r.Method || string(path) != r.Path {
		t.Errorf("peeked %q %q into %+v", method, path, r)
	}
}

// quickAgrees compares the short cuts for payloads to the parsers.
func quickAgrees(t *testing.T, data []byte) {
	t.Helper()
	var e, slowE Entry
	var s, slowS HardState
	if quickEntry(data, &e) {
		if err := checkPayload(KindEntry, data, &slowE, &slowS); err != nil || !reflect.DeepEqual(e, slowE) {
			t.Errorf("entry %+v, the long way %+v (%v)", e, slowE, err)
		}
	}
	if quickState(data, &s) {
		if err := checkPayload(KindState, data, &slowE, &slowS); err != nil || s != slowS {
			t.Errorf("hard state %+v, the long way %+v (%v)", s, slowS, err)
		}
	}
}

// FuzzInternalRequest decodes any bytes as a v3 request.
func FuzzInternalRequest(f *testing.F) {
	f.Add([]byte{0x1a, 0x03, 0x0a, 0x01, 'k', 0xa2, 0x06, 0x02, 0x08, 0x07})
	f.Add(appendBytes(nil, 6, appendBytes(nil, 2, appendBytes(nil, 4, appendBytes(nil, 1, []byte{8, 1})))))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseInternalRequest(data)
		if kind := ClassifyEntry(Entry{Data: data}); kind == V3Request && err == nil && r.Op == "" && len(data) > 1000 {
			t.Errorf("a v3 request of %d bytes without an operation", len(data))
		}
	})
}
