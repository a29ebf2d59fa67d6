package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// records are one of each kind, as they are stored, with where to read them.
func records(t testing.TB) map[string]struct {
	sealed []byte
	into   func() any
} {
	t.Helper()
	now := time.Date(2026, 3, 4, 5, 6, 7, 8e6, time.UTC)
	hash, keys := uint32(7), int64(9)
	values := map[string]struct {
		value any
		into  func() any
	}{
		kindRepository: {head{Format: 1, ID: "abc", Created: now, Tool: "test <&>"}, func() any { return new(head) }},
		kindManifest: {Manifest{
			Format: 1, ID: "20260304T050607Z-abcdef", Cluster: "prod", Kind: Live, Started: now, Finished: now.Add(time.Second),
			Members: []Member{{ID: "8e9e05c52164694d", PeerURLs: []string{"http://a:2380"}}}, RaftIndex: 1 << 63, Revision: 12,
			HashKV: &hash, Keys: &keys, Labels: map[string]string{"b": "1", "a": "ü "}, Compression: "zstd",
			Parts: []Part{{Name: "db", Object: "db.zst", Role: RoleDB, Mode: 0o640, Size: 1, StoredSize: 2, SHA256: sum(nil), StoredSHA256: sum(nil)}},
		}, func() any { return new(Manifest) }},
		kindProof:  {Proof{Format: 1, ID: "x", Time: now, Seconds: 0.1, Level: Boot, Result: ResultPassed, Checks: []Check{{Name: "n"}}}, func() any { return new(Proof) }},
		kindHold:   {Hold{Format: 1, ID: "x", Time: now, Reason: "audit"}, func() any { return new(Hold) }},
		kindPruned: {PruneMark{Format: 1, ID: "x", Time: now}, func() any { return new(PruneMark) }},
	}
	all := map[string]struct {
		sealed []byte
		into   func() any
	}{}
	for kind, v := range values {
		sealed, digest, err := sealRecord(kind, v.value)
		if err != nil {
			t.Fatal(err)
		}
		back := v.into()
		if d, err := openRecord("key", kind, sealed, back); err != nil || d != digest {
			t.Fatalf("%s: %v, digest %s, want %s\n%s", kind, err, d, digest, sealed)
		}
		all[kind] = struct {
			sealed []byte
			into   func() any
		}{sealed, v.into}
	}
	return all
}

func TestEveryChangedByteOfARecordIsFound(t *testing.T) {
	for kind, r := range records(t) {
		t.Run(kind, func(t *testing.T) {
			for i, old := range r.sealed {
				for _, b := range []byte{old ^ 1, old ^ 0x20, old ^ 0x80, old + 1, 0, ' ', '"', '\n', '0'} {
					changed := bytes.Clone(r.sealed)
					if changed[i] = b; b == old {
						continue
					}
					mustBeDamage(t, kind, changed, r.into(), fmt.Sprintf("byte %d: %q for %q", i, b, old))
				}
				mustBeDamage(t, kind, append(bytes.Clone(r.sealed[:i]), r.sealed[i+1:]...), r.into(), fmt.Sprintf("without byte %d", i))
				mustBeDamage(t, kind, r.sealed[:i], r.into(), fmt.Sprintf("the first %d bytes", i))
			}
			mustBeDamage(t, kind, append(bytes.Clone(r.sealed), '\n'), r.into(), "one more line")
			mustBeDamage(t, kind, append(bytes.Clone(r.sealed), r.sealed...), r.into(), "twice")
		})
	}
}

func mustBeDamage(t *testing.T, kind string, sealed []byte, into any, what string) {
	t.Helper()
	_, err := openRecord("the/key", kind, sealed, into)
	var damage *DamageError
	if !errors.As(err, &damage) || damage.Key != "the/key" || !strings.HasPrefix(err.Error(), "the/key: ") {
		t.Fatalf("%s: %v, want a DamageError that names the key", what, err)
	}
}

// reseal gives content of any shape a digest that fits.
func reseal(t *testing.T, kind string, content any) []byte {
	t.Helper()
	sealed, _, err := sealRecord(kind, content)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestWhatIsNotARecord(t *testing.T) {
	good := records(t)[kindHold]
	var outer map[string]json.RawMessage
	if err := json.Unmarshal(good.sealed, &outer); err != nil {
		t.Fatal(err)
	}
	reordered := fmt.Appendf(nil, "{\n  \"hold\": %s,\n  \"sha256\": %s\n}\n", outer["hold"], outer["sha256"])
	for name, sealed := range map[string][]byte{
		"empty":                  {},
		"other JSON":             []byte(`[1]`),
		"another kind":           records(t)[kindPruned].sealed,
		"other order":            reordered,
		"an unknown field":       reseal(t, kindHold, map[string]any{"format": 1, "cluster": "", "id": "", "time": "2026-01-01T00:00:00Z", "reason": "", "more": 1}),
		"a field twice":          resealText(kindHold, `{"format":1,"cluster":"","id":"a","id":"a","time":"2026-01-01T00:00:00Z","reason":""}`),
		"a field in upper case":  resealText(kindHold, `{"format":1,"cluster":"","ID":"a","time":"2026-01-01T00:00:00Z","reason":""}`),
		"a field that is absent": resealText(kindHold, `{"format":1,"cluster":"","time":"2026-01-01T00:00:00Z","reason":""}`),
		"a time in another zone": resealText(kindHold, `{"format":1,"cluster":"","id":"","time":"2026-01-01T00:00:00.10Z","reason":""}`),
		"no format":              resealText(kindHold, `{"format":"one"}`),
	} {
		t.Run(name, func(t *testing.T) { mustBeDamage(t, kindHold, sealed, new(Hold), name) })
	}
}

// resealText is a record with content as it stands.
func resealText(kind, content string) []byte {
	sealed := fmt.Appendf(nil, `{"sha256":%q,%q:%s}`, sum([]byte(content)), kind, content)
	var out bytes.Buffer
	_ = json.Indent(&out, sealed, "", "  ")
	return append(out.Bytes(), '\n')
}

// Whatever text a record is given, it can be read again.
func TestRecordsOfAnyText(t *testing.T) {
	for _, text := range []string{"\xff\xfe", "\ufffd", `\ufffd`, "\xff" + `\ufffd`, "\u2028<&>\x00\n", "ü"} {
		sealed, digest, err := sealRecord(kindHold, Hold{Format: 1, Reason: text})
		if err != nil {
			t.Fatal(err)
		}
		var h Hold
		d, err := openRecord("key", kindHold, sealed, &h)
		if err != nil || d != digest || h.Reason != strings.ToValidUTF8(text, "\ufffd") && len(text) != 2 {
			t.Errorf("%q: %q, %v", text, h.Reason, err)
		}
	}
}

func TestNewerRecordsAreRefusedByName(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		want    string
	}{
		"format":  {`{"format":2,"id":{"of":"another shape"}}`, "the/key: format 2 is newer than 1, the newest that this version knows: use a newer lifeboat"},
		"feature": {`{"format":1,"requires":["chunks","lz4"],"more":1}`, "the/key: needs chunks, lz4, which this version does not know: use a newer lifeboat"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openRecord("the/key", kindManifest, resealText(kindManifest, c.content), new(Manifest))
			var newer *FormatError
			if !errors.As(err, &newer) || err.Error() != c.want {
				t.Fatalf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestARecordTooLargeIsNotRead(t *testing.T) {
	repo, store := newRepository(t)
	if err := store.Corrupt(repositoryKey, func([]byte) []byte { return make([]byte, maxRecord+1) }); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), repo.Store())
	var damage *DamageError
	if !errors.As(err, &damage) || !strings.Contains(err.Error(), "more than 16777216 bytes") {
		t.Fatal(err)
	}
}

func FuzzOpenRecord(f *testing.F) {
	for _, r := range records(f) {
		f.Add(r.sealed)
	}
	f.Fuzz(func(t *testing.T, sealed []byte) {
		var m Manifest
		if _, err := openRecord("key", kindManifest, sealed, &m); err == nil {
			again, _, err := sealRecord(kindManifest, m)
			if err != nil || !bytes.Equal(again, sealed) {
				t.Fatalf("reads %q, which is written %q, %v", sealed, again, err)
			}
		}
	})
}
