package forensic

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzAppendJSONMember(f *testing.F) {
	for _, seed := range []string{
		"", "plain", `{"kind":"Pod","name":"x"}`, "tab\tnew\nline\r\x00\x1f\x7f", "日本語\"", "\xff\xfe", "12345678\"", `\\\\\\\\\\`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		checkJSONMember(t, value)
	})
}

// checkJSONMember reads back what is written, with encoding/json.
func checkJSONMember(t *testing.T, value []byte) {
	t.Helper()
	fromBytes := string(appendJSONMember(nil, "v", value))
	if fromString := string(appendJSONMember([]byte{}, "v", string(value))); fromString != fromBytes {
		t.Fatalf("string gives %s, bytes %s", fromString, fromBytes)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte("{"+fromBytes+"}"), &got); err != nil {
		t.Fatalf("%q: %v in %s", value, err, fromBytes)
	}
	if utf8.Valid(value) {
		if got["v"] != string(value) {
			t.Fatalf("%q came back as %q", value, got["v"])
		}
		return
	}
	if got["v_base64"] != base64.StdEncoding.EncodeToString(value) {
		t.Fatalf("% x came back as %v", value, got)
	}
}

// TestJSONStringsAtEveryOffset puts each byte at each place of the eight that
// are looked at together, with and without room to spare.
func TestJSONStringsAtEveryOffset(t *testing.T) {
	for c := range 0x80 {
		for at := range 17 {
			text := strings.Repeat("x", at) + string(rune(c)) + strings.Repeat(string(rune(c)), at%3) + strings.Repeat("é", 17-at)
			checkJSONMember(t, []byte(text))
		}
	}
}

func BenchmarkAppendJSONString(b *testing.B) {
	value := []byte(strings.Repeat(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"gateway"},"uid":"648968c89345347e84a214722cbba0fb"}`, 10))
	var dst []byte
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		dst = appendJSONString(dst[:0], value)
	}
}
